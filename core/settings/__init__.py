"""Where Pilothouse keeps things (the home folder), what the user set, and the files shipped with it."""
