"""Trends: what reviews say per business and topic, in tumbling windows.

`reviews.enriched` → (per review, its latest revision) contributions → (per business and window)
partial counts, one per partition of the reviews → totals → `reviews.insights`. On Faust, in an
environment of its own. At-least-once: everything that is written replaces what was there, nothing
is added up twice, so a record that is processed again ends in the same counts. How and why:
docs/decisions/0005-insights.md.
"""
