"""Do independent methods agree? Statistics first, verdict second, words last."""
