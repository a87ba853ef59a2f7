"""What the command line calls: one typed function a command, whose docstring is its help."""
