"""Groups of spec fields that the training kinds share, one file each."""
