"""Records where the time and the memory of a few training steps go."""
