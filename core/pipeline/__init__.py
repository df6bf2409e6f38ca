"""Runs that launch other runs: recipes over the workspace, their results and their reports."""
