"""deploy/take-slot as processes: no two replicas alike, and a dead one's number is used again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.deploy.files import DEPLOY

SAY_AND_STAY = 'echo "$REVIEWMESH_SLOT"; exec cat'


@contextmanager
def replica(service: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds its slot until its input ends, and the slot."""
    command = ["sh", str(DEPLOY / "take-slot"), str(service), "sh", "-c", SAY_AND_STAY]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    ) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_replicas_of_a_service_take_different_numbers(tmp_path: Path) -> None:
    with (
        replica(tmp_path / "intake") as (_, first),
        replica(tmp_path / "intake") as (_, second),
        replica(tmp_path / "joiner") as (_, other),
    ):
        assert (first, second, other) == ("0", "1", "0")


def test_the_number_of_a_killed_replica_is_taken_again(tmp_path: Path) -> None:
    service = tmp_path / "intake"
    with replica(service) as (killed, _), replica(service) as (_, second):
        killed.kill()
        killed.wait(timeout=10)
        with replica(service) as (_, successor), replica(service) as (_, third):
            assert (second, successor, third) == ("1", "0", "2")


def test_a_replica_that_is_stopped_keeps_its_number(tmp_path: Path) -> None:
    service = tmp_path / "intake"
    with replica(service) as (stopped, _):
        stopped.send_signal(19)
        with replica(service) as (_, successor):
            assert successor == "1"


def test_a_slot_that_is_set_is_kept(tmp_path: Path) -> None:
    with replica(tmp_path / "intake", REVIEWMESH_SLOT="pod-3") as (_, slot):
        assert slot == "pod-3"
    assert not list(tmp_path.iterdir())


def test_wrong_usage_says_what_is_expected(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(DEPLOY / "take-slot"), str(tmp_path / "intake")],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert done.returncode == 2
    assert "expected FOLDER/SERVICE COMMAND" in done.stderr


def test_taking_more_than_there_are_ends_with_a_word(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "folder"
    done = subprocess.run(
        ["sh", str(DEPLOY / "take-slot"), str(missing), "true"],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert done.returncode != 0
    assert str(missing) in done.stderr
