"""What all tests share: one real broker and registry a run, and the list of what could not run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import structlog

from tests.broker import TestStack, running_stack
from tests.broker import breakable_stack as breakable

if find_spec("hypothesis"):
    from hypothesis import HealthCheck, settings

    # No test is one of speed: a busy machine must not fail it.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


@pytest.fixture(scope="session")
def stack() -> Iterator[TestStack]:
    """The broker and the registry of this run; tests keep apart by topic prefixes."""
    with running_stack() as running:
        yield running


@pytest.fixture(scope="session")
def breakable_stack(stack: TestStack) -> Iterator[TestStack]:
    """As `stack`, but its broker and registry can be stopped, killed and started again."""
    with breakable(stack) as running:
        yield running


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that a test runs in this process writes logs to a file that ends with the test."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def prefix() -> str:
    """A prefix for the topics, groups and subjects of one test."""
    return f"t{uuid.uuid4().hex[:8]}."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what could not be run on this machine, and why."""
    skipped = terminalreporter.getreports("skipped")
    if not skipped:
        return
    terminalreporter.section("could not be run on this machine")
    for report in skipped:
        terminalreporter.write_line(f"NOT RUN {report.nodeid}: {_reason(report)}")


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr)
