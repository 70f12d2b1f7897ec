"""Our planning beside that of other code, measured in turns on the same machine."""
