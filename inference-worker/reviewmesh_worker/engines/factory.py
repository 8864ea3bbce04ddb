"""Which engine serves a package, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final, cast

from reviewmesh_worker.engines.interface import Engine, EngineLoadError
from reviewmesh_worker.engines.settings import EngineSettings
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.packages.provider import PROVIDER
from reviewmesh_worker.tasks.definition import Task

Open = Callable[[Package, Mapping[str, Task], EngineSettings], Engine]
"""`open_engine` of an engine's module, for tasks that the package serves. It loads nothing yet."""

# Imported on demand: no environment has the dependencies of all.
_MODULES: Final = {
    "onnx": "reviewmesh_worker.engines.onnx.engine",
    "vllm": "reviewmesh_worker.engines.vllm.engine",
    "openai": "reviewmesh_worker.engines.openai.engine",
}
_SERVES: Final = {"encoder": ("onnx", "vllm"), "causal": ("vllm",), PROVIDER: ("openai",)}
"""By kind of package; `auto` takes the first."""


def open_engine(package: Package, tasks: Mapping[str, Task], settings: EngineSettings) -> Engine:
    """Raises EngineLoadError."""
    kind, wanted = package.kind, settings.engine
    name = _SERVES[kind][0] if wanted == "auto" else wanted
    if name not in _SERVES[kind]:
        raise EngineLoadError(
            f"{package.id} is of the kind {kind}, which {' or '.join(_SERVES[kind])} serves, not "
            f"{name}: set REVIEWMESH_WORKER__ENGINE, or name another package"
        )
    try:
        module = import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        raise EngineLoadError(
            f"the engine {name} needs the package {error.name}, which is not installed here; see "
            "requirements/"
        ) from error
    return cast(Open, module.open_engine)(package, tasks, settings)
