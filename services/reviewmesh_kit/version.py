"""The version of the project that a process runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def running_version() -> str:
    """As the wheel was built with; empty where the package is not installed."""
    try:
        return version("reviewmesh")
    except PackageNotFoundError:
        return ""
