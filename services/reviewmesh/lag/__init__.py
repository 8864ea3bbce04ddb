"""Lag for those on call: how far behind every group is, in records, seconds and time to drain.

`meter` measures, for the service and for `reviewmesh lag`; `loop` repeats measurements, and
`metrics` exports the last one at each scrape.
"""
