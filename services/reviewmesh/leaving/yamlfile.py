"""YAML files that people write: each problem with the line of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from reviewmesh_kit.yamltext import only_yaml_errors

NUMBER = "expected a number, without quotes and commas"
HINTS = {
    "float_type": NUMBER,
    "int_from_float": "expected a whole number",
    "int_type": NUMBER,
    "list_type": "expected a list, such as [a, b]",
    "dict_type": "expected an entry for each business",
    "extra_forbidden": "there is no such setting",
    "missing": "expected it, got nothing",
    "string_type": "expected text: put it in quotes",
    "too_short": "expected at least one",
}

TEXT = "tag:yaml.org,2002:str"

Parsed = TypeVar("Parsed")
Form = TypeVar("Form", bound=BaseModel)


class FileProblem(ValueError):
    """The file cannot be used; says where and why."""


class Document:
    """A file's nodes, which know their lines."""

    def __init__(self, text: str, expected: str) -> None:
        """`expected`: what it has to hold at least. Raises FileProblem."""
        node, self._content = _load(text)
        if not isinstance(node, yaml.MappingNode):
            raise FileProblem(f"1: expected {expected}")
        if odd := [
            f"{line}: {name or 'the file'}: expected text before the colon, got {key}: put it in "
            "quotes where it is a name; numbers have no commas"
            for name, key, line in _odd_names(node)
        ]:
            raise FileProblem("\n".join(odd))
        if repeated := [f"{line}: {name} is given twice" for name, line in _repeated(node)]:
            raise FileProblem("\n".join(repeated))
        self._root = node

    def as_form(self, form: type[Form], union: str = "", expected_union: str = "") -> Form:
        """Raises FileProblem.

        `union`: a model of the form that may be replaced by a word; `expected_union` says so.
        """
        try:
            return form.model_validate(self._content)
        except ValidationError as error:
            raise FileProblem(self._told(error, union, expected_union)) from error

    def line(self, *path: int | str) -> int:
        """From 1; of the deepest entry on the path that the file has."""
        return int(_find(self._root, path)[0].start_mark.line) + 1

    def _told(self, error: ValidationError, union: str, expected_union: str) -> str:
        """One line per invalid place, in the order of the file."""
        told: dict[tuple[int, str], str] = {}
        for problem in error.errors(include_input=False, include_url=False):
            # Pydantic names the members of a union, and keys, as if they were part of the path.
            path = [part for part in problem["loc"] if part != "[key]" and not _member(part, union)]
            at, value = _find(self._root, path)
            name = ".".join(map(str, path)) or "the file"
            last = problem["loc"][-1]
            if _is_word(last) and isinstance(value, yaml.MappingNode):
                continue
            if _member(last, union):
                reason = expected_union
            elif problem["type"] in HINTS:
                reason = HINTS[problem["type"]]
            else:
                reason = problem["msg"].removeprefix("Value error, ")
            told.setdefault((int(at.start_mark.line) + 1, name), reason)
        return "\n".join(
            f"{line}: {name}: {reason}" for (line, name), reason in sorted(told.items())
        )


def read_file(path: Path, parse: Callable[[str], Parsed]) -> Parsed:
    """Raises FileProblem, each of its lines with the file's name."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileProblem(f"{path}: {error}") from error
    try:
        return parse(text)
    except FileProblem as error:
        lines = [f"{path}:{line}" for line in str(error).splitlines()]
        raise FileProblem("\n".join(lines)) from error


def _member(part: object, union: str) -> bool:
    return bool(union) and (part == union or _is_word(part))


def _is_word(part: object) -> bool:
    return str(part).startswith("literal[")


def _load(text: str) -> tuple[yaml.Node | None, Any]:
    try:
        with only_yaml_errors():
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            return node, None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise FileProblem(f"{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise FileProblem(f"1: {' '.join(str(error).split())}") from error


def _find(root: yaml.Node, path: Sequence[int | str]) -> tuple[yaml.Node, yaml.Node]:
    """The deepest node on the path that the file has, and its value."""
    at, value = root, root
    for part in path:
        if isinstance(value, yaml.MappingNode):
            entry = next((e for e in value.value if e[0].value == str(part)), None)
            if entry is None:
                break
            at, value = entry
        elif isinstance(value, yaml.SequenceNode) and isinstance(part, int):
            at = value = value.value[part]
        else:
            break
    return at, value


def _odd_names(node: yaml.Node, path: str = "") -> Iterator[tuple[str, str, int]]:
    """Where, which and in which line: names that YAML reads as something else, such as no or 17."""
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            yield from _odd_names(inner, path)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != TEXT:
                yield path, str(key.value), int(key.start_mark.line) + 1
            yield from _odd_names(value, f"{path}.{key.value}".lstrip("."))


def _repeated(node: yaml.Node) -> Iterator[tuple[str, int]]:
    """Of two entries with the same name, YAML silently takes the last."""
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            yield from _repeated(inner)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield str(key.value), int(key.start_mark.line) + 1
            seen.add(key.value)
            yield from _repeated(value)
