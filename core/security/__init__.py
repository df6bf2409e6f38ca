"""Secrets of the user: kept in the keyring of the operating system, never in files of ours in the clear."""
