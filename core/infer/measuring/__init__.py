"""Measuring one model in a process of its own: the messages, the process, and its handle."""
