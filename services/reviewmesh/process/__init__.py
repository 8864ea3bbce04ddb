"""A service as a process: start, HTTP endpoints, logs, and how it ends."""
