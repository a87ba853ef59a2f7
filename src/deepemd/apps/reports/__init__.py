"""What reports are made of: HTML pages, tables, curves and drawings of matches."""
