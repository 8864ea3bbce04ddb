"""A service as a process: startup, HTTP endpoints, logs, signals, exit codes."""
