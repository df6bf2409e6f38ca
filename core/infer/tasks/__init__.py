"""One module per kind of inference run; each declares ``KIND``."""
