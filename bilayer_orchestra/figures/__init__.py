"""Figures of whole studies: ``orchestra plot``."""
