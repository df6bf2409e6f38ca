"""Frozen records, names and protocols that every layer shares; imports nothing of ours and no heavy library."""
