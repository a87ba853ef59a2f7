"""Explain a match: which parts of two images were matched, as a record and as a picture."""
