"""Applications of the library, one folder or file for each."""
