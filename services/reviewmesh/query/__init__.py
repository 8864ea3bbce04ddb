"""Queries on a running mesh, for the command line and other front ends: records of its topics, all
records of one review, dead letters, lag, reconciliation."""
