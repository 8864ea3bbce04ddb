"""Downloads of the embedded stack, against a real web server in this process."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jgo.maven._core as jgo_core
import pytest

from reviewmesh.local import artifacts
from reviewmesh.local.artifacts import Bundle, LockedFile, ensure_bundle, locked_bundles
from reviewmesh.local.errors import UnreachableError

JAR = b"the bytes of a jar"


class CountingServer(ThreadingHTTPServer):
    """Serves a folder as a Maven repository and counts the downloads of files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
        self.downloads: list[str] = []
        self.folder = folder

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def publish(self, path: str, content: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        assert isinstance(self.server, CountingServer)
        if not self.path.endswith(".sha1"):
            self.server.downloads.append(self.path)


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingServer]:
    """A Maven repository that stands in for Maven Central, and an empty cache."""
    with CountingServer(tmp_path / "maven") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.publish("org/probe/probe/1.0/probe-1.0.jar", JAR)
        monkeypatch.setattr(jgo_core, "DEFAULT_REMOTE_REPOS", {"central": server.url})
        monkeypatch.setattr(artifacts, "DOWNLOAD_ATTEMPTS", 2)
        monkeypatch.setattr(artifacts, "RETRY_PAUSE_S", 0.01)
        monkeypatch.setenv("REVIEWMESH_CACHE_DIR", str(tmp_path / "cache"))
        yield server
        server.shutdown()


def _bundle(content: bytes = JAR, coordinate: str = "org.probe:probe:1.0") -> Bundle:
    return Bundle("probe", (LockedFile(coordinate, hashlib.sha256(content).hexdigest()),))


def test_a_file_is_downloaded_once_and_then_found_in_the_cache(maven: CountingServer) -> None:
    first = ensure_bundle(_bundle())
    second = ensure_bundle(_bundle())

    assert first == second
    assert (first / "probe-1.0.jar").read_bytes() == JAR
    assert len(maven.downloads) == 1


def test_several_that_ask_at_once_share_one_download(maven: CountingServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: ensure_bundle(_bundle()), range(4)))

    assert len(folders) == 1
    assert len(maven.downloads) == 1


def test_a_file_that_is_not_what_the_lock_says_is_never_used(
    maven: CountingServer, tmp_path: Path
) -> None:
    maven.publish("org/probe/probe/1.0/probe-1.0.jar", b"something else")

    with pytest.raises(UnreachableError, match="the lock says"):
        ensure_bundle(_bundle())

    assert list((tmp_path / "cache").rglob("*.jar")) == []
    assert len(maven.downloads) == 2, "it is tried again before giving up"


def test_an_archive_is_unpacked(maven: CountingServer) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("lib/inside.txt")
        entry.size = len(JAR)
        archive.addfile(entry, io.BytesIO(JAR))
    maven.publish("org/probe/app/1.0/app-1.0-all.tar.gz", packed.getvalue())

    folder = ensure_bundle(_bundle(packed.getvalue(), "org.probe:app:1.0:tar.gz:all"))

    assert (folder / "lib" / "inside.txt").read_bytes() == JAR


def test_without_a_network_the_error_says_what_to_do(
    maven: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The discard port: nothing listens there.
    monkeypatch.setattr(jgo_core, "DEFAULT_REMOTE_REPOS", {"central": "http://127.0.0.1:9"})

    with pytest.raises(UnreachableError, match="The first start needs the network"):
        ensure_bundle(_bundle())


def test_the_committed_lock_names_versions_and_digests_and_no_host() -> None:
    bundles = locked_bundles()

    assert bundles.keys() == {"kafka", "apicurio"}
    names = [file.coordinate.split(":")[1] for file in bundles["kafka"].files]
    assert {"kafka_2.13", "kafka-clients", "slf4j-api", "slf4j-simple"} <= set(names)
    assert len(names) == len(set(names)), "one version of each"
    for bundle in bundles.values():
        for file in bundle.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert "/" not in file.coordinate
