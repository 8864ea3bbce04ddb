"""Writes `artifacts.lock.toml`: `python -m reviewmesh.local.relock`, after changing a version.

Resolves Kafka's dependencies as Maven does, downloads every file and writes its SHA-256.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from jgo.maven import Artifact, Dependency, MavenContext

from reviewmesh.local.artifacts import LOCK_FILE

KAFKA_VERSION = "4.3.1"
# Kafka has slf4j's interface without an implementation, so it would log nothing.
SLF4J_BINDING = ("org.slf4j", "slf4j-simple", "1.7.36")
APICURIO_VERSION = "3.3.3"

HEADER = """\
# The Java parts of the embedded stack: exact versions and the SHA-256 of each file.
# Written by `python -m reviewmesh.local.relock`; the coordinates are group:artifact:version,
# then :packaging:classifier where it is not a plain jar.
"""


def kafka_artifacts(context: MavenContext) -> list[Artifact]:
    """Kafka's server, what it depends on, and a logger."""
    kafka = context.project("org.apache.kafka", "kafka_2.13").at_version(KAFKA_VERSION)
    inputs, transitive = context.resolver.resolve([Dependency(kafka.artifact())])
    group, name, version = SLF4J_BINDING
    binding = context.project(group, name).at_version(version).artifact()
    return [dependency.artifact for dependency in [*inputs, *transitive]] + [binding]


def apicurio_artifacts(context: MavenContext) -> list[Artifact]:
    """The registry, as the archive that its project publishes."""
    app = context.project("io.apicurio", "apicurio-registry-app").at_version(APICURIO_VERSION)
    return [app.artifact(classifier="all", packaging="tar.gz")]


Bundles = Mapping[str, Callable[[MavenContext], list[Artifact]]]
"""What finds the files of each bundle."""


def write_lock(path: Path, header: str, bundles: Bundles) -> None:
    """Resolve every bundle and write its files with their SHA-256."""
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder), local_repos=[])
        sections = [section(name, find(context)) for name, find in bundles.items()]
    path.write_text("\n".join([header, *sections]), encoding="utf-8")


def section(name: str, artifacts: Iterable[Artifact]) -> str:
    """One bundle of the lock file."""
    lines = sorted(f'"{_coordinate(item)}" = "{_sha256(item)}"' for item in artifacts)
    return "\n".join([f"[{name}]", *lines, ""])


def _coordinate(artifact: Artifact) -> str:
    plain = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
    if not artifact.classifier and artifact.packaging == "jar":
        return plain
    return f"{plain}:{artifact.packaging}:{artifact.classifier}"


def _sha256(artifact: Artifact) -> str:
    return hashlib.sha256(artifact.resolve().read_bytes()).hexdigest()


def main() -> None:
    """Write the lock file beside this module."""
    path = Path(__file__).with_name(LOCK_FILE)
    write_lock(path, HEADER, {"kafka": kafka_artifacts, "apicurio": apicurio_artifacts})


if __name__ == "__main__":
    main()
