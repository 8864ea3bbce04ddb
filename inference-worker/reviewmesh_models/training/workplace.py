"""The working folder of a training, beside its output."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_WHAT_FILE: Final = "training.json"


class OutputError(ValueError):
    """The output folder or the working folder has unexpected content."""


class Workplace:
    """`OUTPUT.training`: checkpoints and the unfinished package; removed at the end.

    The same command resumes from it. `what` is everything that determines a training: with other
    content the folder is not resumed from. Raises OutputError.
    """

    def __init__(self, output: Path, what: Mapping[str, Any]) -> None:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise OutputError(
                f"expected an empty folder or none at {output}, found something in it; name "
                "another folder: a package is never written over"
            )
        self._output = output
        self._folder = output.absolute().with_name(f"{output.absolute().name}.training")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._claim(json.loads(json.dumps(what)))
        self.package = self._folder / "package"
        """Where the package's files are written."""
        shutil.rmtree(self.package, ignore_errors=True)
        self.package.mkdir()

    @property
    def checkpoints(self) -> Path:
        return self._folder

    def finish(self) -> None:
        """Move the finished package to its place; remove the checkpoints."""
        for file in self.package.rglob("*"):
            # Some libraries write files for this user only; a worker may run as another.
            file.chmod(0o755 if file.is_dir() else 0o644)
        if self._output.is_dir():
            self._output.rmdir()
        os.replace(self.package, self._output)
        shutil.rmtree(self._folder)

    def _claim(self, what: Mapping[str, Any]) -> None:
        file = self._folder / _WHAT_FILE
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            if found != what:
                differing = ", ".join(
                    sorted(k for k in {*found, *what} if found.get(k) != what.get(k))
                )
                raise OutputError(
                    f"{self._folder} holds a training that was stopped, of another {differing}; "
                    "remove that folder, or name another output"
                )
            return
        written = file.with_suffix(".new")
        written.write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")
        os.replace(written, file)
