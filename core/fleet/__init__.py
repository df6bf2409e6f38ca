"""Runs on other machines: hosts, what is on them, and the way runs get there and back."""
