"""Tests by how much of the program they need: unit, contract, gui, e2e; and bench, which measures."""
