"""Reads data sets, and hands each data rank its part of every step's batch."""
