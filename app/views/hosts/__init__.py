"""The parts of the Hosts page."""
