"""Measure the accuracy on episodes: all methods see the same embeddings and the same episodes."""
