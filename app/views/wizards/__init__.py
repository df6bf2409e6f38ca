"""Wizards: choose, fill in, review, launch."""
