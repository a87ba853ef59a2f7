"""Images become node sets, each encoded once: whole splits, or images of any kind; cached on the disk."""
