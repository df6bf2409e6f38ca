"""One file per way to INT8: each calibrates, writes a model file and loads it again before it counts."""
