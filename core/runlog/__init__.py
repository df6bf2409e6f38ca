"""The run directory: names in it, the event writer, the reader by offset, and the fold from events to a summary."""
