"""Writes docs/reference from the code: `python -m tests.contract.reference`, or `make reference`.

Settings, metrics and topics are read from where they are declared. What no declaration says (which
process reads a section, what an exit code means) stands here, and raises an error when it does not
fit the code any more.
"""

from __future__ import annotations

import inspect
import socket
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from reviewmesh import metrics as service_metrics
from reviewmesh import settings as service_settings
from reviewmesh.avro.topics import load_topics
from reviewmesh.cli import __main__ as cli_main
from reviewmesh.lag import metrics as lag_metrics
from reviewmesh_kit import exit_codes
from reviewmesh_kit.environment import NAMES, PREFIX
from reviewmesh_models.cli import command_line as models_cli
from reviewmesh_worker.serving import metrics as worker_metrics
from reviewmesh_worker.serving import settings as worker_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/reference"
MIB = 1024 * 1024

READ_BY = {
    "kafka": "every service and the command line",
    "registry": "every service but lag, and the command line",
    "log": "every service and worker",
    "http": "every service and worker",
    "tls": "the enrichers, the judge and the inference workers",
    "workers": "the enrichers and the judge",
    "candidates": "the enrichers and the judge",
    "fallbacks": "the enrichers",
    "intake": "intake",
    "join": "the joiner",
    "reprocess": "the enrichers",
    "lag": "the lag service and `reviewmesh lag`",
    "insights": "insights",
    "traces": "the tracer",
    "console": "the console",
    "signin": "the console",
    "worker": "the inference workers",
    "vllm": "inference workers with the engine vllm",
    "openai": "inference workers with the engine openai",
}
AFTER_SECTION = {
    "kafka": "Any other option of librdkafka is `REVIEWMESH_KAFKA__<option with _ for .>`, for "
    "example `REVIEWMESH_KAFKA__SECURITY_PROTOCOL`. Their values are never logged. The mesh sets "
    "these itself, because exactly-once needs them, and refuses them here: "
    + ", ".join(f"`{name}`" for name in sorted(service_settings.SET_BY_THE_MESH))
    + ".",
    "openai": "See [models of a provider](../openai-engine.md).",
    "vllm": "A setting without a default takes that of the device: "
    "`inference-worker/reviewmesh_worker/engines/vllm/arguments.py`.",
}
OTHER_NAMES = {
    "STATE_DIR": ("`.reviewmesh`", "Folder of the mesh that `reviewmesh up` runs."),
    "CACHE_DIR": ("the user's cache folder", "Folder of downloads and of models for vLLM."),
    "INSIGHTS_PYTHON": (
        "`.venv-insights/bin/python`",
        "Python of the environment in which `reviewmesh up` runs insights.",
    ),
    "LOCAL_STACK": ("", "Set by `reviewmesh up`: marks the processes of one mesh."),
    "VLLM_CAUSES": ("", "Set by a worker: where vLLM's processes report why they failed."),
    "TEST_SECURE": ("", "Tests: 1 for a mesh in which everybody has to show who they are."),
    "TEST_STACK": ("", "Tests: state folder of a running mesh to use, in place of a new one."),
    "FAULT_SEEDS": ("1", "Tests: how many random schedules `tests/faults` runs."),
    "FUZZ_RECORDS": ("2000", "Tests: how many records `tests/e2e/test_fuzz.py` writes."),
    "BENCH_REVIEWS": ("", "Benchmark: file of reviews to use, JSON lines with `text`."),
}
DEFAULT_OF_FACTORY: Mapping[Any, str] = {socket.gethostname: "the host's name"}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


def pages() -> dict[str, str]:
    """Every page by its file name."""
    return {
        "settings.md": _settings_page(),
        "metrics.md": _metrics_page(),
        "topics.md": _topics_page(),
        "exit-codes.md": _exit_codes_page(),
        "dead-letters.md": _dead_letters_page(),
    }


# -- settings --------------------------------------------------------------------------------


def _settings_page() -> str:
    sections, plain = _settings()
    parts = [
        "Every process reads its settings from environment variables `REVIEWMESH_*` and from "
        "nothing else; `__` separates a section from a name. A wrong or misspelt setting ends the "
        "process with exit code 2 and a message that names it. Several names in one setting are "
        "separated by commas, or given as a JSON list. A secret may lie in a file, as containers "
        "mount it: `REVIEWMESH_KAFKA__SASL_PASSWORD_FILE` names one in place of "
        "`REVIEWMESH_KAFKA__SASL_PASSWORD`, and so for every password, secret, token or PEM text.",
        "## All services",
        _table(("setting", "type", "default", "meaning"), plain),
    ]
    for name, rows in sections.items():
        parts += [f"## {name.upper()}", f"Read by {READ_BY[name]}."]
        parts.append(_table(("setting", "type", "default", "meaning"), rows))
        if name in AFTER_SECTION:
            parts.append(AFTER_SECTION[name])
    others = {f"{PREFIX}{name}" for name in NAMES} - {row[0].strip("`") for row in plain}
    _same(others, {f"{PREFIX}{name}" for name in OTHER_NAMES}, "OTHER_NAMES")
    parts += [
        "## Other variables",
        _table(
            ("variable", "default", "meaning"),
            [(f"`{PREFIX}{name}`", *row) for name, row in OTHER_NAMES.items()],
        ),
    ]
    return _page("Settings", *parts)


def _settings() -> tuple[dict[str, list[tuple[str, ...]]], list[tuple[str, ...]]]:
    """The rows of each section, and of the settings in none."""
    sections: dict[str, list[tuple[str, ...]]] = {}
    plain: list[tuple[str, ...]] = []
    for model in (service_settings.Settings, worker_settings.Settings):
        for name, field in model.model_fields.items():
            section = field.annotation
            if not inspect.isclass(section) or not issubclass(section, BaseModel):
                plain.append(_setting((name,), field))
                continue
            rows = [_setting((name, own), inner) for own, inner in section.model_fields.items()]
            if sections.setdefault(name, rows) != rows:
                raise ValueError(f"services and workers read section {name} differently")
    _same(set(sections), set(READ_BY), "READ_BY")
    return sections, plain


def _setting(path: tuple[str, ...], field: FieldInfo) -> tuple[str, ...]:
    name = PREFIX + "__".join(path).upper()
    if not field.description:
        raise ValueError(f"{name} has no description: give its Field one")
    return f"`{name}`", _type(field), _default(field), field.description


def _type(field: FieldInfo) -> str:
    kind = _kind(field.annotation)
    limits = {type(item): item for item in field.metadata}
    if isinstance(least := limits.get(Ge), Ge) and isinstance(most := limits.get(Le), Le):
        return f"{kind}, {least.ge} to {most.le}"
    if isinstance(above := limits.get(Gt), Gt):
        kind += f", above {above.gt}"
    if isinstance(most := limits.get(Le), Le):
        kind += f", at most {most.le}"
    return kind


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        kinds = [_kind(one) for one in get_args(annotation) if one is not type(None)]
        return ", ".join(kinds)
    if origin is tuple:
        return "names"
    if issubclass(annotation, Path):
        return "path"
    return {bool: "true or false", int: "integer", float: "number", SecretStr: "secret"}.get(
        annotation, "text"
    )


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return DEFAULT_OF_FACTORY[field.default_factory]
    value = field.default
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, tuple):
        value = ",".join(value)
    if isinstance(value, Path) and value.is_absolute():
        value = value.relative_to(ROOT / "inference-worker")
    if isinstance(value, float):
        value = f"{value:g}"
    return "" if value in (None, "") else f"`{value}`"


# -- metrics ---------------------------------------------------------------------------------


def _metrics_page() -> str:
    header = ("metric", "type", "labels", "meaning")
    insights = [row for row in _declared(service_metrics) if "reviewmesh_insights_" in row[0]]
    services = [row for row in _declared(service_metrics) if row not in insights]
    lag = [
        (f"`{gauge.name}`", "gauge", _labels(gauge.labels), gauge.meaning)
        for gauge in lag_metrics.ALL
    ]
    return _page(
        "Metrics",
        "Every process serves its metrics at `/metrics`. A histogram has the series `_bucket`, "
        "`_sum` and `_count`. How they fit together: [lag](../lag.md).",
        "## Intake, enrichers, joiner",
        _table(header, services),
        "## Lag service",
        _table(header, lag),
        "## Insights",
        _table(header, insights),
        "## Inference workers",
        "A worker with the engine vllm also shows vLLM's own metrics, `vllm:*`, each with the "
        "labels of its engine.",
        _table(header, _declared(worker_metrics)),
    )


def _declared(module: types.ModuleType) -> Iterator[tuple[str, ...]]:
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            name = family.name + ("_total" if isinstance(metric, Counter) else "")
            yield f"`{name}`", family.type, _labels(metric._labelnames), family.documentation


def _labels(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# -- topics ----------------------------------------------------------------------------------


def _topics_page() -> str:
    rows = [
        (
            f"`{topic.name}`",
            f"[{topic.schema}](../../schemas/reviewmesh_schemas/{topic.schema}.avsc)",
            f"{topic.partitions}{' or more' if topic.more_partitions else ''}",
            topic.cleanup_policy.replace(",", ", "),
            f"{topic.retention_hours} h" if "delete" in topic.cleanup_policy else "for ever",
            f"{topic.max_message_bytes // MIB} MiB",
            ", ".join(topic.producers),
            ", ".join(topic.consumers),
        )
        for topic in load_topics().topics
    ]
    [compatibility] = {topic.compatibility for topic in load_topics().topics}
    [timestamps] = {topic.timestamp_type for topic in load_topics().topics}
    [isolation] = {topic.isolation for topic in load_topics().topics}
    return _page(
        "Topics",
        "The contract is `schemas/reviewmesh_schemas/topics.yaml`; `reviewmesh topics apply` "
        "brings a cluster and a registry to it. `REVIEWMESH_PREFIX` stands before each name. "
        f"Subjects are `<topic>-value` with compatibility {compatibility}. Timestamps are "
        f"{timestamps}. Read with isolation level `{isolation}`: without it, records of aborted "
        "transactions show up.",
        _table(
            (
                *("topic", "schema", "partitions", "cleanup", "retention"),
                *("largest batch", "producers", "consumers"),
            ),
            rows,
        ),
    )


# -- exit codes and dead letters -------------------------------------------------------------


def _exit_codes_page() -> str:
    header = ("code", "meaning")
    return _page(
        "Exit codes",
        "## Services",
        _table(
            header,
            [
                ("0", "Stopped after SIGTERM or SIGINT."),
                ("1", "Failed. The log says why; a supervisor should start the process again."),
                ("2", "A setting is wrong. The message names it."),
                (
                    str(exit_codes.STANDS_STILL),
                    "No progress: a partition was reopened and still makes none, or the polling "
                    "thread hangs; insights: no partitions, state or writes within a minute. A "
                    "supervisor should start the process again.",
                ),
            ],
        ),
        "## Inference workers",
        _table(
            header,
            [
                ("0", "Stopped after draining."),
                ("1", "Nothing can be served: the package does not load, or the engine died."),
                ("2", "A setting is wrong. The message names it."),
            ],
        ),
        "## `reviewmesh`",
        _table(
            header,
            [
                ("0", "Done."),
                (
                    str(exit_codes.FAILED),
                    "Failed, or the answer is no: `ps` when a process is not ready, `find` and "
                    "`forget` when there is no such review, `topics list` when a topic is "
                    "missing, `tail` when fewer records came than `--max`, `publish` and "
                    "`dlq replay` when a record was not sent.",
                ),
                (str(exit_codes.USAGE), "Wrong usage or a wrong setting."),
                (
                    str(exit_codes.UNREACHABLE),
                    "The broker, the registry or a download cannot be reached.",
                ),
                (str(cli_main.INTERRUPTED), "Interrupted with Ctrl-C."),
            ],
        ),
        "## `reviewmesh-models`",
        _table(
            header,
            [
                ("0", "Done."),
                (
                    str(models_cli.FAILED),
                    "Failed, or the answer is no: `gate` when the package does not pass, "
                    "`promote` when the gate refuses it.",
                ),
                (
                    str(models_cli.WRONG_USAGE),
                    "Wrong usage, or a registry, package or task is not as expected.",
                ),
            ],
        ),
    )


def _dead_letters_page() -> str:
    causes = service_metrics.DEAD_LETTER_CAUSES
    return _page(
        "Causes of dead letters",
        "The field `cause` of a record on `reviews.dead-letter`, and the label `cause` of "
        "`reviewmesh_dead_letters_total`. The field `message` says what was expected, what came "
        "and what to do; `reviewmesh dlq show` prints it.",
        _table(("cause", "meaning"), [(f"`{cause}`", text) for cause, text in causes.items()]),
    )


# -- markdown --------------------------------------------------------------------------------


def _page(title: str, *parts: str) -> str:
    note = "<!-- Made from the code by `make reference`. Changes here are lost. -->"
    return "\n\n".join((f"# {title}", note, *parts)) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _same(found: set[str], described: set[str], where: str) -> None:
    if found != described:
        raise ValueError(f"{where} and the code differ in {sorted(found ^ described)}")


if __name__ == "__main__":
    main()
