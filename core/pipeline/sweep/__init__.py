"""Sweeps: runs that try values of the fields of a spec, each trial a run of its own."""
