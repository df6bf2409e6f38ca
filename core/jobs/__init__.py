"""Starting, guarding, ending and judging the processes of a run."""
