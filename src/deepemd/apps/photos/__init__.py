"""Classify and check the user's own photos, and write pages that explain the results."""
