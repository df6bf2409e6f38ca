"""Watches a training for trouble and does something about it."""
