"""Image retrieval: an index of embedded images, and how good its order is."""
