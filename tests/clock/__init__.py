"""A broker whose clock is wrong: a class of Kafka's in whose place another one is loaded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reviewmesh.local import artifacts, broker
from reviewmesh.local.java import java_command
from tests.broker import wait_until
from tests.clients.relock import LOCK
from tests.cluster import Cluster

SOURCE = Path(__file__).with_name("SystemTime.java")
HEAP_MB = 256
COMPILED_WITHIN_S = 240
STOPPED_WITHIN_S = 60


def compile_clock(folder: Path) -> Path:
    """By Eclipse's compiler: the runtime has none. Gives what is put on the class path."""
    bundles = artifacts.read_lock(LOCK.read_text(encoding="utf-8"))
    compiler = next(artifacts.ensure_bundle(bundles["java-compiler"]).glob("*.jar"))
    jars = sorted(artifacts.ensure().kafka_dir.glob("kafka-clients-*.jar"))
    options = ["-21", "-proc:none", "-cp", os.pathsep.join(map(str, jars)), "-d", str(folder)]
    subprocess.run(
        java_command(HEAP_MB, "-jar", str(compiler), *options, str(SOURCE)),
        check=True,
        timeout=COMPILED_WITHIN_S,
    )
    return folder


@contextmanager
def clock_off(
    cluster: Cluster, name: str, off_s: float, classes: Path, log: Path
) -> Iterator[None]:
    """Run this broker with a clock that is off. Its supervisor runs it before and after."""
    cluster.stack.stop(name)
    assert cluster.stack.embedded is not None
    folder = cluster.stack.embedded.paths.folder_of(name)
    command = java_command(
        broker.MAX_HEAP_MB[3],
        *broker.LOG_OPTIONS,
        f"-Dtests.clock.off.ms={int(off_s * 1000)}",
        "-cp",
        f"{classes}{os.pathsep}{artifacts.ensure().kafka_dir}/*",
        *("kafka.Kafka", str(broker.properties_file(folder))),
    )
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_until(lambda: cluster.stack.answers(name), 120, f"{name} is ready")
        yield
    finally:
        process.terminate()
        process.wait(STOPPED_WITHIN_S)
        cluster.stack.start(name)
