"""Sends accepted reviews to the inference workers of one task."""
