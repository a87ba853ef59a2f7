"""Encode images once each, into node sets that are cached on disk: whole splits, or images of any kind."""
