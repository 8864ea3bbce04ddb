"""What reaches the log, at which level, and how often."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from reviewmesh.process import logs
from reviewmesh_kit.settings import LogSettings

REFUSED = "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused"


def librdkafka_line(code: str, text: str, client: str = "rdkafka#consumer-1") -> str:
    return f"{code} [{client}] [thrd:127.0.0.1:1/bootstrap]: {text}"


class Log:
    """The lines written so far, and the two ways that lead to them."""

    def __init__(self, read: Callable[[], str], level: str = "INFO") -> None:
        settings: Any = LogSettings(level=level)  # type: ignore[arg-type]
        self.service = logs.configure(settings, "test")
        self.librdkafka = logging.getLogger("librdkafka")
        self._read = read

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._read().splitlines()]


OpenLog = Callable[..., Log]


@pytest.fixture
def open_log(capsys: pytest.CaptureFixture[str]) -> Iterator[OpenLog]:
    handlers, level = logging.root.handlers[:], logging.root.level
    # Opened by the test itself: what it writes to is there for its own phase only.
    yield lambda level="INFO": Log(lambda: capsys.readouterr().err, level)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_of_librdkafka_becomes_fields(open_log: OpenLog) -> None:
    log = open_log()
    log.librdkafka.error(librdkafka_line("FAIL", REFUSED))
    (line,) = log.lines()
    assert line.pop("timestamp")
    assert line == {
        "service": "test",
        "event": "kafka",
        "level": "warning",
        "code": "FAIL",
        "error": REFUSED,
    }


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (logging.CRITICAL, "error"),
        (logging.ERROR, "warning"),
        (logging.WARNING, "warning"),
        (logging.INFO, "info"),
        (logging.DEBUG, "debug"),
    ],
)
def test_levels(open_log: OpenLog, given: int, written: str) -> None:
    log = open_log("DEBUG")
    log.librdkafka.log(given, librdkafka_line("X", "something"))
    assert [line["level"] for line in log.lines()] == [written]


def test_what_is_below_the_level_is_not_written(open_log: OpenLog) -> None:
    log = open_log()
    log.librdkafka.debug(librdkafka_line("X", "something"))
    assert log.lines() == []


def test_options_of_the_other_kind_of_client_are_no_news(open_log: OpenLog) -> None:
    log = open_log()
    log.librdkafka.warning(
        librdkafka_line(
            "CONFWARN",
            "Configuration property session.timeout.ms is a consumer property and will be ignored "
            "by this producer instance",
        )
    )
    log.librdkafka.warning(librdkafka_line("CONFWARN", "property x is deprecated"))
    assert [line["error"] for line in log.lines()] == ["property x is deprecated"]


def test_a_line_of_another_shape_is_written_whole(open_log: OpenLog) -> None:
    log = open_log()
    log.librdkafka.critical("ASSERT: no client")
    assert [line["error"] for line in log.lines()] == ["ASSERT: no client"]


def test_other_libraries_go_the_same_way(open_log: OpenLog) -> None:
    log = open_log()
    logging.getLogger("grpc.aio").warning("gone: %s", "x")
    (line,) = log.lines()
    assert (line["event"], line["logger"], line["service"]) == ("gone: x", "grpc.aio", "test")


def test_what_aiokafka_retries_is_a_warning_once(open_log: OpenLog) -> None:
    log = open_log()
    for _ in range(3):
        logging.getLogger("aiokafka.consumer.fetcher").error("cannot connect")
    logging.getLogger("aiokafkaesque").error("broken")
    assert [(line["level"], line["event"]) for line in log.lines()] == [
        ("warning", "cannot connect"),
        ("error", "broken"),
    ]


def test_a_failure_that_comes_as_line_and_as_error_is_written_once(open_log: OpenLog) -> None:
    log = open_log()
    log.librdkafka.error(librdkafka_line("FAIL", f"{REFUSED} (after 0ms in state CONNECT)"))
    log.service.warning(
        "kafka", code="_TRANSPORT", error=f"{REFUSED} (after 17ms in state CONNECT)"
    )
    log.librdkafka.error(
        librdkafka_line(
            "FAIL",
            f"{REFUSED} (after 3ms in state CONNECT, 4 identical error(s) suppressed)",
            "rdkafka#producer-2",
        )
    )
    assert len(log.lines()) == 1


def test_different_failures_are_all_written(open_log: OpenLog) -> None:
    log = open_log()
    for port in (1, 2, 3):
        log.librdkafka.error(librdkafka_line("FAIL", f"127.0.0.1:{port}: Connection refused"))
    assert len(log.lines()) == 3


# -- repeats, with a clock of the test's own --------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def written(throttle: logs.Throttle, method: str = "warning", **fields: Any) -> dict[str, Any]:
    """The event as it would be written; empty when it is dropped."""
    try:
        return dict(throttle(None, method, dict(fields)))
    except structlog.DropEvent:
        return {}


def test_a_repeated_warning_is_written_every_30_seconds_with_a_count() -> None:
    clock = Clock()
    throttle = logs.Throttle(clock)
    came = []
    for _ in range(120):
        came.append(written(throttle, event="waiting", waiting_for="broker"))
        clock.now += 1
    at = [second for second, event in enumerate(came) if event]
    assert at == [0, 30, 60, 90]
    assert [came[second].get("repeated") for second in at] == [None, 29, 29, 29]


def test_a_warning_that_differs_in_a_field_is_another() -> None:
    throttle = logs.Throttle(Clock())
    assert written(throttle, event="lost", partitions=[1])
    assert written(throttle, event="lost", partitions=[2])
    assert not written(throttle, event="lost", partitions=[1])


def test_what_librdkafka_tells_as_information_is_held_back_as_well() -> None:
    throttle = logs.Throttle(Clock())
    assert written(throttle, "info", event="kafka", error="Disconnected (after 600ms in state UP)")
    assert not written(
        throttle, "info", event="kafka", error="Disconnected (after 7ms in state UP)"
    )
    assert all(written(throttle, "debug", event="kafka", error="x") for _ in range(3))


@pytest.mark.parametrize("method", ["info", "error"])
def test_only_warnings_are_held_back(method: str) -> None:
    throttle = logs.Throttle(Clock())
    assert all(written(throttle, method, event="stopped") for _ in range(3))


def test_it_remembers_a_bounded_number() -> None:
    throttle = logs.Throttle(Clock())
    for number in range(logs.REMEMBERED_WARNINGS + 1):
        assert written(throttle, event="lost", partition=number)
    assert not written(throttle, event="lost", partition=1)
    assert written(throttle, event="lost", partition=0)
