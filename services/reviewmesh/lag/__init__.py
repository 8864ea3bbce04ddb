"""Lag for those on call: how far behind every group is, in records, seconds and time to drain.

`meter` measures, for the service and for `reviewmesh lag` alike; `loop` measures again and again
and `metrics` shows the last measurement at each scrape.
"""
