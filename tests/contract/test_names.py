"""A public class name has one meaning in its package: it is defined in one module."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["services", "inference-worker"])
def test_a_public_class_is_defined_in_one_module(folder: str) -> None:
    modules = defaultdict(set)
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].add(str(path.relative_to(ROOT)))
    twice = {name: sorted(paths) for name, paths in modules.items() if len(paths) > 1}
    assert len(modules) > 100
    assert not twice, "rename all but one, so that a reader knows which is meant"
