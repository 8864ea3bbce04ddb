"""Certificates that are read again: what counts as a replacement, and what does not."""

from __future__ import annotations

from pathlib import Path

from reviewmesh.local.authority import Authority
from reviewmesh_kit.certificates import LOOK_EVERY_S, CertificateFiles, PemFiles


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def files_of(folder: Path, clock: Clock) -> tuple[Authority, CertificateFiles]:
    authority = Authority(folder)
    paths = authority.issue("services")
    return authority, CertificateFiles(
        PemFiles(paths.ca, paths.certificate, paths.key), "kafka", clock
    )


def looks(clock: Clock, files: CertificateFiles, times: int = 3) -> set[int]:
    """The identities of what is current at so many looks."""
    found = []
    for _ in range(times):
        clock.now += LOOK_EVERY_S
        found.append(files.current())
    return {id(each) for each in found}


def test_files_that_cannot_be_used_are_no_replacement(tmp_path: Path) -> None:
    """A client is made anew when the object changes: it must not change at each look."""
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    clock = Clock()
    assert len(looks(clock, CertificateFiles(PemFiles(broken), "kafka", clock))) == 1


def test_without_files_nothing_is_ever_replaced() -> None:
    clock = Clock()
    assert len(looks(clock, CertificateFiles(PemFiles(), "kafka", clock))) == 1


def test_the_last_good_certificate_stays_until_another_is_whole(tmp_path: Path) -> None:
    clock = Clock()
    authority, files = files_of(tmp_path, clock)
    first = files.current()
    key = tmp_path / "services.key"
    kept = key.read_bytes()
    key.write_text("half a key")
    clock.now += LOOK_EVERY_S
    assert files.current() is first
    key.write_bytes(kept)
    clock.now += LOOK_EVERY_S
    assert files.current() is first
    authority.issue("services")
    assert files.current() is first, "looked too often"
    clock.now += LOOK_EVERY_S
    assert files.current() is not first
    assert len(looks(clock, files)) == 1
