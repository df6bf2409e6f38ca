"""Parts of ``train.script``: starting a user's own program, reading the metrics it writes, saying why it failed."""
