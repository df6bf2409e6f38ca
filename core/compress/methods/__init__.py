"""One module per kind of compression run; each declares ``KIND``."""
