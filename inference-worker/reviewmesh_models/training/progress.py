"""The progress of a training: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """Steps of a training's parts. A context manager: the bar ends with it, whatever happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps  loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = TaskID(0)
        self._name = ""
        self._total = 0

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False)

    def begin(self, name: str, total: int, done: int) -> None:
        """A part of the training; `done` of its steps were made before an interruption."""
        self._name, self._total = name, total
        self._task = self._bar.add_task(name, total=total, completed=done, loss=float("nan"))
        if done:
            self.say(f"going on after step {done} of {total}")

    def step(self, done: int, loss: float) -> None:
        """After optimizer step `done`; `loss` is the latest mean that is known."""
        self._bar.update(self._task, completed=done, loss=loss)
        tenth = max(self._total // 10, 1)
        if not self._console.is_terminal and (done % tenth == 0 or done == self._total):
            self.say(f"{self._name}: step {done} of {self._total}  loss {loss:.3f}")
