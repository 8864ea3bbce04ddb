"""The conditions of `--where`: which enriched records they choose, as docs/reprocess.md describes.

`read_condition` parses and checks a condition, `matcher` makes a function of it. Nothing of it is
evaluated as Python.
"""
