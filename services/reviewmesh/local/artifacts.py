"""Downloads the Java parts of the embedded stack from Maven Central into the user's cache folder.

`artifacts.lock.toml` names every file with its version and SHA-256, so nothing is resolved at
run time and only checked files are started. A bundle (Kafka's jars, Apicurio unpacked) gets a
folder named after its locked content and appears there by one rename: it is complete or absent,
also with several processes at once.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tarfile
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from reviewmesh.local.errors import LocalStackError, UnreachableError
from reviewmesh.local.java import make_class_archive
from reviewmesh.local.paths import cache_dir

if TYPE_CHECKING:
    # With it comes `requests`: only a download needs them.
    from jgo.maven import Artifact, MavenContext

LOCK_FILE = "artifacts.lock.toml"
DOWNLOAD_ATTEMPTS = 4
RETRY_PAUSE_S = 1.0
DOWNLOAD_THREADS = 8
SOCKET_TIMEOUT_S = 20
LOCK_WAIT_S = 600.0
# Errors for which a retry does not help.
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR)

ProgressCallback = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Called with a file's name and size; the context it gives yields a `downloaded(n_bytes)`."""


@dataclass(frozen=True)
class Artifacts:
    """The folders of the unpacked Java parts."""

    kafka_dir: Path
    """Folder with all of Kafka's jars."""
    apicurio_dir: Path
    """Folder with Apicurio's `quarkus-run.jar`."""


@dataclass(frozen=True)
class LockedFile:
    """One file of a bundle, as the lock names it."""

    coordinate: str
    sha256: str

    def artifact(self, context: MavenContext) -> Artifact:
        group, name, version, *rest = self.coordinate.split(":")
        packaging, classifier = rest if rest else ("jar", "")
        component = context.project(group, name).at_version(version)
        return component.artifact(classifier=classifier, packaging=packaging)


@dataclass(frozen=True)
class Bundle:
    """Files that are cached together."""

    name: str
    files: tuple[LockedFile, ...]

    @property
    def folder_name(self) -> str:
        content = "\n".join(f"{file.coordinate} {file.sha256}" for file in self.files)
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def locked_bundles() -> dict[str, Bundle]:
    """The bundles in the embedded stack's lock file."""
    return read_lock(resources.files(__package__).joinpath(LOCK_FILE).read_text(encoding="utf-8"))


def read_lock(text: str) -> dict[str, Bundle]:
    """The bundles of a lock file, a section each."""
    return {
        name: Bundle(name, tuple(LockedFile(c, digest) for c, digest in sorted(files.items())))
        for name, files in tomllib.loads(text).items()
    }


def ensure(progress: ProgressCallback | None = None) -> Artifacts:
    """Return both bundles, after downloading missing ones in parallel."""
    bundles = locked_bundles()
    interrupted = threading.Event()
    watched = _interruptible(progress or _silent, interrupted)
    with ThreadPoolExecutor(max_workers=3) as pool:
        try:
            archive = pool.submit(make_class_archive)
            kafka = pool.submit(ensure_bundle, bundles["kafka"], watched)
            apicurio = pool.submit(ensure_bundle, bundles["apicurio"], watched)
            archive.result()
            return Artifacts(kafka_dir=kafka.result(), apicurio_dir=apicurio.result())
        finally:
            # After Ctrl-C, stop a long download.
            interrupted.set()


def _interruptible(progress: ProgressCallback, interrupted: threading.Event) -> ProgressCallback:
    @contextmanager
    def watched(name: str, size: int) -> Iterator[Callable[[int], None]]:
        with progress(name, size) as downloaded:

            def checked(n_bytes: int) -> None:
                if interrupted.is_set():
                    raise LocalStackError(f"the download of {name} was interrupted")
                downloaded(n_bytes)

            yield checked

    return watched


def ensure_bundle(bundle: Bundle, progress: ProgressCallback | None = None) -> Path:
    """Return the folder of one bundle; it exists only if every file passed its check."""
    target = cache_dir() / bundle.folder_name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(target.parent / f".{bundle.name}.lock"):
        if not target.is_dir():
            _install(bundle, target, progress)
    return target


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time download a bundle; the others wait."""
    deadline = time.monotonic() + LOCK_WAIT_S
    with path.open("w") as handle:
        while not _try_lock(handle.fileno()):
            if time.monotonic() > deadline:
                raise LocalStackError(
                    f"another process has been downloading into {path.parent} for more than "
                    f"{LOCK_WAIT_S:.0f} s; end it and try again"
                )
            time.sleep(0.1)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _install(bundle: Bundle, target: Path, progress: ProgressCallback | None) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{bundle.name}-", dir=target.parent) as staging:
        files = _download_all(bundle, Path(staging) / "repository", progress)
        content = Path(staging) / "content"
        content.mkdir()
        for path in files:
            _place(path, content)
        content.rename(target)


def _place(path: Path, content: Path) -> None:
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            archive.extractall(content, filter="data")
    else:
        shutil.move(path, content / path.name)


def _download_all(
    bundle: Bundle, repository: Path, progress: ProgressCallback | None
) -> list[Path]:
    from jgo.maven import MavenContext, PythonResolver

    _trust_ssl_cert_file()
    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress or _silent),
        repo_cache=repository,
        local_repos=[],
        timeout=SOCKET_TIMEOUT_S,
    )
    with ThreadPoolExecutor(max_workers=DOWNLOAD_THREADS) as pool:
        return list(pool.map(lambda file: _download(file, context), bundle.files))


def _silent(_name: str, _size: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _n_bytes: None)


def _trust_ssl_cert_file() -> None:
    """`requests` reads REQUESTS_CA_BUNDLE only; some machines set just the other one."""
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and Path(bundle).is_file():
        os.environ.setdefault("REQUESTS_CA_BUNDLE", bundle)


def _download(file: LockedFile, context: MavenContext) -> Path:
    problem = "not tried"
    for attempt in range(DOWNLOAD_ATTEMPTS):
        if attempt:
            time.sleep(RETRY_PAUSE_S * 2 ** (attempt - 1))
        artifact = file.artifact(context)
        try:
            path = artifact.resolve()
        # `requests` raises OSError; jgo raises RuntimeError for a missing file.
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno in NO_PLACE:
                raise
            problem = f"{type(error).__name__}: {error}"
        else:
            digest = _sha256(path)
            if digest == file.sha256:
                return path
            problem = f"its SHA-256 is {digest}, the lock says {file.sha256}"
        _forget(artifact)
    raise UnreachableError(
        f"could not download {file.coordinate} from Maven Central in {DOWNLOAD_ATTEMPTS} "
        f"attempts ({problem}). The first start needs the network: check it, and "
        f"REQUESTS_CA_BUNDLE or HTTPS_PROXY behind a proxy, or copy a filled cache folder to "
        f"{cache_dir()}"
    )


def _forget(artifact: Artifact) -> None:
    """Remove a partial file, which jgo would take for the complete one the next time."""
    path = artifact.cached_path
    if path is not None:
        Path(path).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
