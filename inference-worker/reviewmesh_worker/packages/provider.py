"""A model that a provider runs: it is named in the settings and has no folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from reviewmesh_worker.packages.manifest import Manifest, Package, version_of
from reviewmesh_worker.tasks.definition import Task

PROVIDER: Final = "provider"
"""The kind of such a package, which no manifest on disk can have."""


@dataclass(frozen=True)
class ProviderPackage(Package):
    """It has no files; its digest covers everything that affects answers."""

    @property
    def kind(self) -> str:
        return PROVIDER

    @property
    def id(self) -> str:
        return self.manifest.name

    def verify_files(self) -> None:
        """There are no files."""


def provider_package(
    model: str, tasks: Mapping[str, Task], decisive: Mapping[str, Any]
) -> ProviderPackage:
    """The provider's model for tasks as they are defined here.

    `decisive` is what decides an answer besides. The version is the model's name: a provider says
    no other, and a dated name says when.
    """
    manifest = Manifest.model_construct(
        name=model,
        version=model,
        # Nobody reads it: see `ProviderPackage.kind`.
        kind="causal",
        tasks={name: version_of(task) for name, task in tasks.items()},
        base=None,
        license="",
        data=[],
        training=dict(decisive),
        scores=None,
        files={},
        created_at=datetime.now(UTC),
    )
    return ProviderPackage(Path(), manifest)
