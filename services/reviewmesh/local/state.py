"""The `stack.json` of a state folder: one embedded mesh, for clients and later commands."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reviewmesh.local import programs
from reviewmesh.local.errors import LocalStackError
from reviewmesh.local.paths import StackPaths
from reviewmesh.local.ports import HOST
from reviewmesh.local.processes import is_marked_pid
from reviewmesh.local.secure import OPERATOR, Identities
from reviewmesh.settings import RegistrySettings, Settings


@dataclass(frozen=True)
class StackInfo:
    """One embedded mesh, running or stopped."""

    stack_id: str
    """Marks its processes; new with each start."""
    mesh: bool
    """Whether it runs the services and a worker, or the broker and the registry alone."""
    ports: Mapping[str, int]
    supervisor_pid: int | None
    """None when it was stopped in order."""
    supervisor_socket: str
    secure_dir: str | None = None
    """The folder with everybody's passwords and certificates; None where nobody needs any."""

    @property
    def bootstrap_servers(self) -> str:
        return programs.addresses(self.ports, self.is_secure).bootstrap_servers

    @property
    def registry_url(self) -> str:
        """The Confluent-compatible base URL."""
        return programs.addresses(self.ports, self.is_secure).registry_url

    @property
    def console_url(self) -> str:
        """Of the page over the mesh."""
        return f"http://{HOST}:{self.ports[programs.CONSOLE_PAGE]}"

    @property
    def is_secure(self) -> bool:
        return self.secure_dir is not None

    @property
    def identities(self) -> Identities | None:
        return None if self.secure_dir is None else Identities(Path(self.secure_dir))

    def kafka(self, who: str = OPERATOR) -> dict[str, str]:
        """librdkafka's options with which `who` connects."""
        identities = self.identities
        own = {} if identities is None else identities.kafka_options(who)
        return {"bootstrap.servers": self.bootstrap_servers, **own}

    def registry(self, who: str = OPERATOR) -> RegistrySettings:
        """With which `who` connects."""
        identities = self.identities
        own: dict[str, Any] = {} if identities is None else identities.registry_options(who)
        return RegistrySettings(url=self.registry_url, **own)

    def settings(self) -> Settings:
        """Those of the environment, with the addresses of this mesh and the operator's login."""
        fields: dict[str, Any] = {
            "kafka": {name.replace(".", "_"): value for name, value in self.kafka().items()},
            "registry": self.registry().model_dump(exclude_unset=True),
        }
        return Settings(**fields)

    def is_running(self) -> bool:
        """Whether its supervisor lives."""
        pid = self.supervisor_pid
        return pid is not None and is_marked_pid(pid, self.stack_id)

    def stopped(self) -> StackInfo:
        return replace(self, supervisor_pid=None)


def read(paths: StackPaths) -> StackInfo | None:
    """The mesh of the state folder; None when none was ever started there."""
    try:
        content: dict[str, Any] = json.loads(paths.stack_file.read_text(encoding="utf-8"))
        return StackInfo(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LocalStackError(
            f"{paths.stack_file} is not what `reviewmesh up` writes ({error}); if the mesh there "
            "is stopped, remove the file: its data stays"
        ) from error


def write(paths: StackPaths, info: StackInfo) -> None:
    """Replace `stack.json` in one step, so that no reader sees half of it."""
    fresh = paths.stack_file.with_suffix(f".{os.getpid()}.new")
    content = asdict(info) | {"ports": dict(info.ports)}
    # Earlier versions know no secure mesh; they can read, and run, one that is not.
    if info.secure_dir is None:
        del content["secure_dir"]
    try:
        fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        fresh.replace(paths.stack_file)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def forwarding_secret(paths: StackPaths) -> str:
    """Generated at the first start and kept, so that earlier forwarded records stay trusted."""
    if paths.forwarding_secret.exists() and (
        kept := paths.forwarding_secret.read_text(encoding="utf-8").strip()
    ):
        return kept
    drawn = secrets.token_hex(32)
    paths.forwarding_secret.write_text(drawn + "\n", encoding="utf-8")
    return drawn


def find_running(state_dir: Path) -> StackInfo | None:
    """The mesh that runs from this state folder; None when there is none."""
    info = read(StackPaths.at(state_dir))
    return info if info is not None and info.is_running() else None
