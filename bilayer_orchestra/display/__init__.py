"""What is shown while something is computed, on a terminal, in a log, in a notebook."""
