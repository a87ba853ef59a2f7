"""The page of ``deepemd app``."""
