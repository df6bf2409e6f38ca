"""Alembic's environment and the steps from each form of the history to the next."""
