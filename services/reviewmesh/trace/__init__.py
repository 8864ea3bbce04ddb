"""Spans of reviews, read from what the mesh published, for an OpenTelemetry backend."""
