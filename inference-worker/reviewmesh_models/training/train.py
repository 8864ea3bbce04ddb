"""A whole training: a config and a folder of labelled rows in, a package out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from reviewmesh_models.training.config import (
    CausalConfig,
    EncoderConfig,
    TrainingConfig,
    as_plain,
)
from reviewmesh_models.training.curves import LOSS_FILE, Curves, plot_curves
from reviewmesh_models.training.languages import read_languages
from reviewmesh_models.training.progress import TrainingProgress
from reviewmesh_models.training.rows import (
    LabelledData,
    LabelledFile,
    Rows,
    check_labels,
    read_data,
)
from reviewmesh_models.training.workplace import Workplace
from reviewmesh_models.training.written_rows import read_written
from reviewmesh_worker.packages.manifest import (
    TASKS_FOLDER,
    Base,
    DataSource,
    write_manifest,
)
from reviewmesh_worker.tasks.definition import Task, write_task

_UNSTATED: Final = "not stated"


def train_package(
    config: TrainingConfig, tasks: Mapping[str, Task], data: Path, output: Path, console: Console
) -> None:
    """Make the package, or resume an interrupted training with the same settings.

    Raises ConfigError, DataError, OutputError, ChatError, and FileNotFoundError for a data file.
    """
    _prepare_libraries()
    # First, so that a missing package is known before anything is written.
    run = _run_of(config)
    learned = learned_tasks(config, tasks)
    labelled = _labelled(config, data, learned)
    check_labels(labelled, learned)
    workplace = Workplace(output, _decisive(config, learned, labelled))
    with TrainingProgress(console) as progress:
        _tell_rows(labelled, progress)
        curves = run(config, learned, labelled, workplace.checkpoints, workplace.package, progress)
        title = f"{config.name}, version {config.version}"
        plot_curves(curves, title, workplace.package / LOSS_FILE)
    for name, task in learned.items():
        write_task(task, workplace.package / TASKS_FOLDER / name)
    write_manifest(
        workplace.package,
        name=config.name,
        version=config.version,
        kind=config.kind,
        tasks=learned,
        base=_base(config),
        license=config.license,
        data=_data(config, labelled),
        training={"config": as_plain(config), "rows": _counts(labelled)},
        languages=_languages(labelled),
    )
    workplace.finish()


def learned_tasks(config: TrainingConfig, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Those of the tasks that the package will answer."""
    wanted = config.tasks if isinstance(config, CausalConfig) else tasks
    return {name: tasks[name] for name in wanted}


def _labelled(config: TrainingConfig, folder: Path, tasks: Mapping[str, Task]) -> LabelledData:
    data = read_data(folder, tasks)
    if not isinstance(config, EncoderConfig) or config.languages is None:
        return data
    languages = read_languages(folder, tasks, config.languages.neutral_share)
    written = read_written(config.languages.written, tasks)
    return replace(data, languages=languages, written=written)


def _prepare_libraries() -> None:
    """Settings that they read when they are first imported."""
    # Nothing is downloaded: a name that is no folder is an error.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Spinning threads slow a busy machine down several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _run_of(config: TrainingConfig) -> Callable[..., Curves]:
    # Each kind imports libraries that take seconds and that the other does not need.
    if isinstance(config, CausalConfig):
        from reviewmesh_models.training.causal.run import train_causal

        return train_causal
    from reviewmesh_models.training.encoder.run import train_encoder

    return train_encoder


def _decisive(
    config: TrainingConfig, tasks: Mapping[str, Task], data: LabelledData
) -> dict[str, Any]:
    files = [file for file, _ in _files(config, data)]
    return {
        "config": as_plain(config),
        "tasks": {name: task.digest for name, task in tasks.items()},
        "data": {file.name: file.sha256 for file in files},
        "rows": _counts(data),
    }


def _counts(data: LabelledData) -> dict[str, dict[str, int]]:
    kinds = [
        (name, rows)
        for name, rows, file in (
            ("reviews", data.reviews, data.reviews_file),
            ("entities", data.entities, data.entities_file),
        )
        if file is not None
    ]
    if data.languages is not None:
        kinds += [
            ("translated reviews", data.languages.reviews),
            ("translated entities", data.languages.entities),
        ]
    if data.written is not None:
        kinds += [
            ("written reviews", Rows(data.written.reviews, [], 0)),
            ("written entities", Rows(data.written.entities, [], 0)),
        ]
    return {
        name: {"learned": len(rows.learn), "held_out": len(rows.held_out), "in_dev": rows.in_dev}
        for name, rows in kinds
    }


def _tell_rows(data: LabelledData, progress: TrainingProgress) -> None:
    for name, counts in _counts(data).items():
        progress.say(
            f"{name}: {counts['learned']} rows to learn from, {counts['held_out']} held out"
        )
        if counts["in_dev"]:
            progress.say(
                f"{name}: {counts['in_dev']} rows left out, since the dev file holds their text"
            )


def _languages(data: LabelledData) -> list[str] | None:
    """Those of the translated reviews; None where rows do not say their language."""
    if data.languages is None:
        return None
    return sorted({row["language"] for row in data.languages.reviews.learn})


def _base(config: TrainingConfig) -> Base | None:
    if not isinstance(config, CausalConfig):
        from reviewmesh_models.training.encoder.run import BASE

        if config.base is None:
            return BASE
    if config.base is None:
        return None
    return Base(name=config.base.name, source=config.base.source, licence=config.base.license)


def _data(config: TrainingConfig, data: LabelledData) -> list[DataSource]:
    return [
        DataSource(name=file.name, sha256=file.sha256, rows=file.rows, licence=licence or _UNSTATED)
        for file, licence in _files(config, data)
    ]


def _files(config: TrainingConfig, data: LabelledData) -> list[tuple[LabelledFile, str | None]]:
    """What was learned from, and its licence."""
    licences = config.data_licenses
    pairs = [
        (data.reviews_file, licences.reviews),
        (data.entities_file, licences.entities),
    ]
    if data.languages is not None:
        pairs += [
            (data.languages.reviews_file, licences.translated_reviews),
            (data.languages.entities_file, licences.translated_entities),
        ]
    if data.written is not None:
        pairs.append((data.written.file, licences.written))
    return [(file, licence) for file, licence in pairs if file is not None]
