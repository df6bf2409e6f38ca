"""One module per recipe; each declares ``KIND``. The workspace is imported inside their ``run`` only."""
