"""Exit codes of processes and commands."""

from __future__ import annotations

DONE = 0
FAILED = 1
"""The work could not be done, or a process ended by an error."""
USAGE = 2
"""Wrong settings or arguments; nothing was begun."""
UNREACHABLE = 3
"""A broker, a registry or a worker does not answer."""
STANDS_STILL = 70
"""Work was possible and none was done; a supervisor is expected to start the process again."""
