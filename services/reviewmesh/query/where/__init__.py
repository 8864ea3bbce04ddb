"""The conditions of `--where`: which enriched records are meant, as docs/reprocess.md describes.

`read` makes a checked expression of what somebody wrote, `matcher` a function of the expression.
Only that runs which is written here: no name of Python's is ever looked up.
"""
