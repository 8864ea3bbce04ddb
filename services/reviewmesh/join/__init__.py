"""Joins the results of all tasks into one enriched record per review."""
