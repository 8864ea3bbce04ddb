"""Free TCP ports for the processes of an embedded mesh.

They are below the kernel's range of ephemeral ports. A listening port in that range can be lost
while its owner restarts: a client that reconnects may get the very port that it connects to, and
then is connected to itself.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Mapping, Sequence

import psutil

from reviewmesh.local.errors import LocalStackError

HOST = "127.0.0.1"
LOWEST_PORT = 20_000
HIGHEST_PORT = 32_000
ATTEMPTS_PER_PORT = 200


def choose_ports(
    names: Sequence[str], earlier: Mapping[str, int], folder: str = ""
) -> dict[str, int]:
    """A free port for each name, the one it had before where that is still free.

    Others follow from the name of the folder: a mesh whose data was removed gets its ports again.
    """
    chosen: dict[str, int] = {}
    for name in names:
        before = earlier.get(name)
        keep = before is not None and before not in chosen.values() and is_free(before)
        if keep and before is not None:
            chosen[name] = before
        else:
            draws = random.Random(f"{folder} {name}") if folder else None
            chosen[name] = find_free(chosen.values(), draws)
    return chosen


def taken_by(port: int) -> str:
    """The program that listens on a port, for a message; empty if unknown."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port == port and connection.pid is not None:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    # Another user's process, or a system that shows it to administrators only.
    except (psutil.Error, OSError):
        pass
    return ""


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that lingers in TIME_WAIT does not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def listens(port: int, timeout_s: float) -> bool:
    """Whether a server listens on the port; unlike `is_free`, does not bind it."""
    try:
        socket.create_connection((HOST, port), timeout_s).close()
    # A full backlog accepts no connection in time, but a server listens.
    except TimeoutError:
        return True
    except OSError:
        return False
    return True


def moved(earlier: Mapping[str, int], now: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The ports that are others than before, by name: the old one and the new one."""
    return {
        name: (port, now[name]) for name, port in earlier.items() if now.get(name, port) != port
    }


def find_free(taken: Collection[int], draws: random.Random | None = None) -> int:
    """A free port that is none of those `taken`. Raises LocalStackError where there is none."""
    for _ in range(ATTEMPTS_PER_PORT):
        port = (draws or random).randint(LOWEST_PORT, HIGHEST_PORT)
        if port not in taken and is_free(port):
            return port
    raise LocalStackError(
        f"found no free port between {LOWEST_PORT} and {HIGHEST_PORT} on {HOST} in "
        f"{ATTEMPTS_PER_PORT} attempts; end some of the servers that listen there"
    )
