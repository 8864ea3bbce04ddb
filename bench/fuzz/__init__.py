"""`python -m bench.fuzz --cases 1000000 --seed 1`: whatever strangers may write, through intake.

The stage, the codec and the dead letters are the real ones; the registry is in this process and
makes its schemas up. Every record must have exactly one outcome, in bounded time, whose outputs fit
their topics and are decoded by a reader that knows the logical types.
"""
