"""A saved classifier as an HTTP endpoint: photos in, JSON out. It needs the extra package ``deepemd[serve]``."""
