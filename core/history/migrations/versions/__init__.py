"""One file a step; see ``core.history.schema`` for the newest form."""
