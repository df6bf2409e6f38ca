"""The training loop, its contract with tasks, checkpoints, precision and measured steps."""
