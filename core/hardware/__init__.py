"""The host's hardware: what it is (``probe``), what it reads (``sampler``), what it can do at most (``roofline``)."""
