"""Scores of a model on labelled rows, as the worker serves it.

`scores` counts, `run` drives the serving engine over the rows, `table` prints.
"""
