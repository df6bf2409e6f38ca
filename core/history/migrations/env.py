"""Alembic's entry: runs the steps on the connection and inside the transaction that ``core.history.migration`` made."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
