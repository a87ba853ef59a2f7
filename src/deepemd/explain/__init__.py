"""Which part of one image is matched with which part of another, as a record and as a picture."""
