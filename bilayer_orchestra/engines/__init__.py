"""Engines that the user installs: where they are, how they are built, whether they work."""
