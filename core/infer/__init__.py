"""Runs models on inference backends and measures them; trains and compresses nothing."""
