"""The elements of reports: HTML pages, tables, curves and drawings of matches."""
