"""Folders of the embedded stack: a mesh's state folder, and the user's cache of downloads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

DEFAULT_STATE_DIR = ".reviewmesh"
PRIVATE = 0o700
OWNER_ONLY = 0o600


def default_state_dir() -> Path:
    """`REVIEWMESH_STATE_DIR`, or `.reviewmesh` in the current folder."""
    return Path(os.environ.get("REVIEWMESH_STATE_DIR") or DEFAULT_STATE_DIR)


def cache_dir() -> Path:
    """The folder that keeps downloads between meshes: `REVIEWMESH_CACHE_DIR`, or the user's."""
    if chosen := os.environ.get("REVIEWMESH_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    return user_cache_path("reviewmesh")


def make_private(folder: Path) -> None:
    """Create a folder that only this user can access, or restrict an existing one."""
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    folder.chmod(PRIVATE)


def write_in_one_step(path: Path, content: bytes, mode: int = OWNER_ONLY) -> None:
    """A reader sees the old file or the new one, which nobody else can read before `mode` says."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    draft.replace(path)


@contextmanager
def private_files() -> Iterator[None]:
    """Files created within are accessible to this user only: data, logs, addresses."""
    before = os.umask(0o777 - PRIVATE)
    try:
        yield
    finally:
        os.umask(before)


@dataclass(frozen=True)
class StackPaths:
    """The files of one state folder."""

    state_dir: Path

    @classmethod
    def at(cls, state_dir: Path) -> StackPaths:
        """Resolve the folder once: processes that are started run elsewhere."""
        return cls(state_dir.expanduser().resolve())

    @property
    def stack_file(self) -> Path:
        """Ports, addresses and process ids: how clients and later commands find the mesh."""
        return self.state_dir / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Held while `up` or `down` changes the mesh."""
        return self.state_dir / "lock"

    @property
    def forwarding_secret(self) -> Path:
        """The secret with which intake authenticates coordinates in forwarded records."""
        return self.state_dir / "forwarding-secret"

    @property
    def supervisor_config(self) -> Path:
        return self.state_dir / "supervisord.conf"

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"

    @property
    def supervisor_log(self) -> Path:
        return self.logs / "supervisord.log"

    @property
    def broker_dir(self) -> Path:
        """Of the first broker, or the only one."""
        return self.folder_of("broker")

    def folder_of(self, broker: str) -> Path:
        """The configuration and the data of a broker, by its name."""
        return self.state_dir / broker

    @property
    def registry_dir(self) -> Path:
        return self.state_dir / "registry"

    @property
    def console_dir(self) -> Path:
        """The console's index, which it makes again from the topics."""
        return self.state_dir / "console"

    @property
    def secure_dir(self) -> Path:
        """Passwords, keys and certificates of a secure mesh."""
        return self.state_dir / "secure"

    @property
    def monitoring_dir(self) -> Path:
        """Of Prometheus and Alertmanager, where `reviewmesh monitor` runs them."""
        return self.state_dir / "monitoring"

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name}.log"
