"""Image retrieval: build, search and evaluate an index of embedded images."""
