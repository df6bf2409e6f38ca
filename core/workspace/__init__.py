"""One home opened for use: history, launcher, follower and settings behind one facade for window, command line and pipelines."""
