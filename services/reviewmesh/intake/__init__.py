"""Judges raw reviews: refuse, forward, drop as duplicate, or accept."""
