"""Drives the whole mesh under load and reports what it holds, how late and at what cost."""
