"""Many points from one file: a base model, axes, and where they run."""
