"""Finds and ends the processes of one embedded mesh without its supervisor.

Every process of a mesh has the mesh's id in its environment, which its children inherit. So the
processes are found when supervisord itself was killed, and no others are ended: a process is
recognised by that variable, never by its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil

MARKER = "REVIEWMESH_LOCAL_STACK"
TERMINATE_WAIT_S = 8.0
KILL_WAIT_S = 5.0


def marker_environment(stack_id: str) -> dict[str, str]:
    """The variable that marks the processes of a mesh."""
    return {MARKER: stack_id}


def marked_processes(stack_id: str) -> list[psutil.Process]:
    """The living processes of this mesh, but for the caller."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _is_marked(p, stack_id)]


def _is_marked(process: psutil.Process, stack_id: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get(MARKER) == stack_id
    # Another user's process, or one that ended meanwhile.
    except (psutil.Error, OSError):
        return False


def is_marked_pid(pid: int, stack_id: str) -> bool:
    """Whether this process id still belongs to this mesh (ids are reused)."""
    try:
        return _is_marked(psutil.Process(pid), stack_id)
    except psutil.NoSuchProcess:
        return False


def has_ended(pid: int) -> bool:
    """Whether a child process has ended; needs no readable environment."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end_marked(stack_id: str) -> int:
    """End all processes of this mesh, by SIGTERM, then SIGKILL; returns their number."""
    found = marked_processes(stack_id)
    _signal_and_wait(found, "terminate", TERMINATE_WAIT_S)
    # Search again: one may have been started meanwhile.
    _signal_and_wait(marked_processes(stack_id), "kill", KILL_WAIT_S)
    return len(found)


def _signal_and_wait(processes: Iterable[psutil.Process], method: str, timeout_s: float) -> None:
    signalled = []
    for process in processes:
        try:
            getattr(process, method)()
        except psutil.NoSuchProcess:
            continue
        signalled.append(process)
    psutil.wait_procs(signalled, timeout=timeout_s)
