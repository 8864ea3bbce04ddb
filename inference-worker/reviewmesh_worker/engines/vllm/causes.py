"""Why vLLM did not start, as its own processes report it.

The worker only learns that a process of vLLM failed; the reason is in that process's log. So while
a model is loaded, each of them also writes the exceptions that it logs to a file. Whether memory
was short is then vLLM's own judgement, on any device, shared or not.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_WHERE: Final = "REVIEWMESH_VLLM_CAUSES"
"""In the environment of vLLM's processes: the file to write to."""
_MEMORY_KINDS: Final = {"OutOfMemoryError", "MemoryError"}
_MEMORY_MESSAGES: Final = (
    # vLLM 0.32: v1/worker/utils.py (a GPU that another engine holds), v1/worker/cpu_worker.py.
    "Free memory on device ",
    "Available memory on node ",
    # torch, on CPU
    "DefaultCPUAllocator: can't allocate memory",
)


@dataclass(frozen=True, slots=True)
class Cause:
    """An exception of one of vLLM's processes."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    def is_memory(self) -> bool:
        """Whether less memory was free than the model may use.

        A share that is too small for the model is something else: no retry helps.
        """
        return self.kind in _MEMORY_KINDS or any(one in self.message for one in _MEMORY_MESSAGES)


@contextmanager
def told() -> Iterator[Callable[[], list[Cause]]]:
    """Yields a function that reads the causes reported so far by processes started within.

    The first is the root cause.
    """
    with tempfile.TemporaryDirectory(prefix="reviewmesh-vllm-") as folder:
        file = Path(folder) / "causes.jsonl"
        file.touch()
        os.environ[_WHERE] = str(file)
        try:
            yield lambda: [Cause(**json.loads(line)) for line in file.open(encoding="utf-8")]
        finally:
            os.environ.pop(_WHERE, None)


def tell() -> None:
    """In a process of vLLM: report its exceptions to the worker from now on, while it loads."""
    if where := os.environ.get(_WHERE):
        logging.getLogger("vllm").addHandler(_Teller(Path(where)))


class _Teller(logging.Handler):
    def __init__(self, file: Path) -> None:
        super().__init__(logging.ERROR)
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return
        cause = Cause(type(error).__name__, str(error))
        # Once the model is loaded, the file is removed.
        with suppress(OSError), self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(cause)) + "\n")
