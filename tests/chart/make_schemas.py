"""Makes tests/chart/schemas, which kubeconform reads: `python -m tests.chart.make_schemas FILE...`.

The files are Kubernetes' swagger.json and the operators' CustomResourceDefinitions, as their Go
modules and Strimzi's generator have them; README.md in the folder tells which. Only the kinds that
the chart makes are kept. Strict: a field that the schema does not name is an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "schemas"
KINDS = {
    "Certificate",
    "ConfigMap",
    "Deployment",
    "Job",
    "KafkaTopic",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PodMonitor",
    "PrometheusRule",
    "ScaledObject",
    "Service",
    "ServiceAccount",
    "StatefulSet",
}
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
Schema = dict[str, Any]
# An unquoted = is a string.
yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", lambda _, node: str(node.value))


def main(files: list[Path]) -> None:
    for file in files:
        found = _of_swagger(file) if file.suffix == ".json" else _of_definitions(file)
        for group, kind, version, schema in found:
            if kind in KINDS:
                # kubeconform takes the version for the group where there is none.
                folder = FOLDER / (group or version)
                folder.mkdir(parents=True, exist_ok=True)
                text = json.dumps(schema, indent=1, sort_keys=True)
                (folder / f"{kind.lower()}_{version}.json").write_text(text + "\n")


def _of_swagger(file: Path) -> Iterator[tuple[str, str, str, Schema]]:
    definitions = json.loads(file.read_text())["definitions"]
    strict = {name: _strict(definition) for name, definition in definitions.items()}
    strict[QUANTITY] = {"type": ["string", "number", "null"]}
    for name, definition in definitions.items():
        kinds = definition.get("x-kubernetes-group-version-kind", [])
        if len(kinds) == 1 and kinds[0]["kind"] in KINDS:
            [of] = kinds
            used = {other: strict[other] for other in sorted(_used(strict, strict[name], set()))}
            yield of["group"], of["kind"], of["version"], {**strict[name], "definitions": used}


def _used(strict: dict[str, Schema], node: Any, seen: set[str]) -> set[str]:
    """The definitions that a schema refers to, directly or not."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(_list(node)):
        if key == "$ref" and isinstance(value, str):
            name = value.rpartition("/")[2]
            if name not in seen:
                seen.add(name)
                _used(strict, strict[name], seen)
        _used(strict, value, seen)
    return seen


def _list(node: Any) -> list[Any]:
    return node if isinstance(node, list) else []


def _of_definitions(file: Path) -> Iterator[tuple[str, str, str, Schema]]:
    for definition in yaml.safe_load_all(file.read_text()):
        if not definition or definition["kind"] != "CustomResourceDefinition":
            continue
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
            }
            yield spec["group"], spec["names"]["kind"], version["name"], schema


def _strict(node: Any, key: str = "") -> Any:
    """Without descriptions and extensions; objects have no other fields, and null is left out."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if key == "properties":
        return {name: _strict(field) for name, field in node.items()}
    if node.get("x-kubernetes-int-or-string") or node.get("format") == "int-or-string":
        return {"type": ["string", "integer", "null"]}
    kept = {
        name: _strict(value, name)
        for name, value in node.items()
        if not name.startswith("x-") and name not in ("description", "format")
    }
    open_ = "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in node and not open_:
        kept["additionalProperties"] = False
    if isinstance(kept.get("type"), str) and "enum" not in kept:
        kept["type"] = [kept["type"], "null"]
    return kept


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
