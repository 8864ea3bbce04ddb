"""The loss of a training, step by step, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOSS_FILE: Final = "loss.png"


@dataclass(frozen=True, slots=True)
class Curves:
    points: Mapping[str, Sequence[tuple[int, float]]]
    """Per curve: step and loss."""


def plot_curves(curves: Curves, title: str, file: Path) -> None:
    # Imported here, since the import takes a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, points in curves.points.items():
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, label=name, marker="o" if len(points) < 20 else None)
    axes.set(title=title, xlabel="optimizer step", ylabel="loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120, metadata={"Software": None})
