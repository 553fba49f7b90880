"""One file a command: ask, then print a table or one JSON object."""
