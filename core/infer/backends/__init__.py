"""One module per inference backend; each exposes ``BACKEND``."""
