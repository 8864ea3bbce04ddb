"""The version of the project that a process runs."""

from __future__ import annotations


def running_version() -> str:
    """As the wheel was built with; empty where the package is not installed."""
    # Imports half of the standard library, which a command that never asks need not wait for.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("reviewmesh")
    except PackageNotFoundError:
        return ""
