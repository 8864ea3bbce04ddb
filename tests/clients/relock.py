"""Writes `java/artifacts.lock.toml` anew: `python -m tests.clients.relock`, after a new version."""

from __future__ import annotations

from pathlib import Path

from jgo.maven import Artifact, Dependency, MavenContext

from reviewmesh.local.relock import KAFKA_VERSION, write_lock

LOCK = Path(__file__).parent / "java" / "artifacts.lock.toml"
CLIENT = (
    ("io.apicurio", "apicurio-registry-avro-serde-kafka", "3.1.7"),
    ("org.apache.kafka", "kafka-clients", KAFKA_VERSION),
    ("org.slf4j", "slf4j-simple", "2.0.17"),
)
# The runtime that the tests run on has no javac.
COMPILER = ("org.eclipse.jdt", "ecj", "3.46.100")

HEADER = """\
# What the Java client under test is compiled with and runs on.
# Written by `python -m tests.clients.relock`; see services/reviewmesh/local/artifacts.lock.toml.
"""


def client_artifacts(context: MavenContext) -> list[Artifact]:
    """Kafka's Java client, Apicurio's Avro serializer, and all that they depend on."""
    wanted = [_artifact(context, *coordinate) for coordinate in CLIENT]
    inputs, transitive = context.resolver.resolve([Dependency(item) for item in wanted])
    return [dependency.artifact for dependency in [*inputs, *transitive]]


def compiler_artifacts(context: MavenContext) -> list[Artifact]:
    """Eclipse's compiler, one jar."""
    return [_artifact(context, *COMPILER)]


def _artifact(context: MavenContext, group: str, name: str, version: str) -> Artifact:
    return context.project(group, name).at_version(version).artifact()


if __name__ == "__main__":
    write_lock(
        LOCK,
        HEADER,
        {"java-client": client_artifacts, "java-compiler": compiler_artifacts},
    )
