"""Which column of a file is which field of a review."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from reviewmesh.cli.sources.errors import FileRefused, NoReview, shown
from reviewmesh.cli.sources.review import FIELDS, TakenAs

ATTRIBUTE = "attributes."
SECONDS = "created_at:s"
REFUSED_BY = "refused"
"""What the file of refused rows adds to each; published again, it is left out."""
SHOWN_NAMES = 12
REST = ("refuse", "attributes", "drop")


def target_named(name: str) -> str:
    """A field, an attribute, seconds as created_at, or nothing. Raises FileRefused."""
    if name in FIELDS or name in ("", SECONDS):
        return name
    if name.startswith(ATTRIBUTE) and name != ATTRIBUTE:
        return name
    raise FileRefused(
        f"--map: expected COLUMN=FIELD with one of {', '.join(FIELDS)}, attributes.NAME, {SECONDS} "
        f"or nothing to leave it out, got {name!r}"
    )


@dataclass(frozen=True)
class Columns:
    """How a row becomes fields: by names that are fields, and by what was said about others."""

    mapping: Mapping[str, str] = field(default_factory=dict)
    rest: str = "refuse"
    constants: Mapping[str, str] = field(default_factory=dict)
    id_from: Sequence[str] = ()
    """Columns that together identify a review, for a file without ids."""

    @classmethod
    def of(
        cls,
        mapping: Iterable[str] = (),
        rest: str = "refuse",
        constants: Iterable[str] = (),
        id_from: str | None = None,
    ) -> Columns:
        """From the options of a command. Raises FileRefused."""
        pairs = {}
        for item in mapping:
            # Names of columns may hold an equals sign, fields do not.
            column, equals, target = item.rpartition("=")
            if not equals or not column:
                raise FileRefused(f"--map: expected COLUMN=FIELD, got {item!r}")
            pairs[column] = target_named(target)
        fixed = {}
        for item in constants:
            name, equals, value = item.partition("=")
            if not equals or name not in FIELDS or name in ("review_id", "attributes"):
                raise FileRefused(
                    f"--set: expected FIELD=VALUE with a field other than review_id, got {item!r}"
                )
            fixed[name] = value
        names = tuple(filter(None, map(str.strip, (id_from or "").split(","))))
        return cls(pairs, rest, fixed, names)

    def knows(self, name: str) -> bool:
        """Whether a column of this name is something of a review, or was spoken of."""
        return self._target(name) is not None or _as_field(name) in FIELDS

    def of_table(self, header: Sequence[str], notes: TakenAs) -> Columns:
        """For a table with this header. Raises FileRefused where no row could be a review."""
        names = [name for name in header if name]
        for wanted in (*self.mapping, *self.id_from):
            if wanted not in names:
                raise FileRefused(
                    f"expected a column {wanted!r}, got {listed(names)}; see --map and --id-from"
                )
        mapping = dict(self.mapping)
        for name in names:
            field_name = _as_field(name)
            if name not in mapping and name != field_name and field_name in FIELDS:
                notes.of_file.append(f"the column {name!r} is taken as {field_name}")
                mapping[name] = field_name
        resolved = Columns(mapping, self.rest, self.constants, self.id_from)
        unknown = [name for name in names if resolved._target(name) is None]
        of_target: dict[str, list[str]] = {}
        for name in names:
            of_target.setdefault((resolved._target(name) or "").removesuffix(":s"), []).append(name)
        for target in FIELDS:
            if len(of_target.get(target, ())) > 1:
                raise FileRefused(f"{target}: expected one column, got {listed(of_target[target])}")
        if "text" not in of_target:
            raise FileRefused(
                f"expected a column with the review's text, got {listed(names)}; name it in the "
                "first line or map it: --map COLUMN=text"
            )
        if unknown and self.rest == "refuse":
            raise FileRefused(
                f"{listed(unknown)}: expected fields of a review ({', '.join(FIELDS)}); map them "
                "with --map COLUMN=FIELD, keep them with --rest attributes, or leave them out "
                "with --rest drop"
            )
        return resolved

    def fields_of(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Raises NoReview."""
        fields: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        from_columns: dict[str, str] = {}
        for name, value in content.items():
            # Parts of it are mapped.
            if name in self._taken_apart and name not in self.mapping:
                continue
            target = self._target(name)
            if target is None:
                self._rest(name, value, attributes)
            else:
                _put(fields, attributes, from_columns, name, target, value)
        for name, target in self.mapping.items():
            if name not in content and (value := found(content, name)) is not None:
                _put(fields, attributes, from_columns, name, target, value)
        if attributes:
            given = fields.get("attributes") or {}
            fields["attributes"] = {**attributes, **given} if isinstance(given, Mapping) else given
        if self.id_from:
            fields["review_id"] = self._joined_id(content)
        for name, value in self.constants.items():
            fields[name] = value
        return fields

    def _target(self, name: str) -> str | None:
        """None for a name that nothing is known of."""
        known = self.mapping.get(name)
        if known is not None:
            return known
        if name in FIELDS or (name.startswith(ATTRIBUTE) and name != ATTRIBUTE):
            return name
        if name == REFUSED_BY or name in self.id_from:
            return ""
        return None

    @cached_property
    def _taken_apart(self) -> frozenset[str]:
        """Names whose parts are mapped."""
        names = (*self.mapping, *self.id_from)
        return frozenset(name.partition(".")[0] for name in names if "." in name)

    def _rest(self, name: str, value: Any, attributes: dict[str, Any]) -> None:
        if self.rest == "attributes":
            attributes[name] = value
        elif self.rest == "refuse":
            raise NoReview(
                f"expected the fields {', '.join(FIELDS)}, got {name!r:.60}; map it with "
                f"--map COLUMN=FIELD, or see --rest"
            )

    def _joined_id(self, content: Mapping[str, Any]) -> str:
        parts = []
        for name in self.id_from:
            part = found(content, name)
            if not isinstance(part, str | int) or part == "":
                raise NoReview(
                    f"--id-from: expected text or a number in {name!r}, got {part!r:.60}"
                )
            parts.append(str(part))
        return "-".join(parts)


def found(content: Mapping[str, Any], name: str) -> Any:
    """The value under a name, or under names within each other that points separate."""
    if name in content:
        return content[name]
    value: Any = content
    for part in name.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return None
    return value


def listed(names: Sequence[str]) -> str:
    """Names for a message."""
    words = ", ".join(shown(name) for name in names[:SHOWN_NAMES])
    more = len(names) - SHOWN_NAMES
    return words + (f" and {more} more" if more > 0 else "") if words else "none"


def _as_field(name: str) -> str:
    return "_".join(name.casefold().replace("-", " ").split())


def _put(
    fields: dict[str, Any],
    attributes: dict[str, Any],
    from_columns: dict[str, str],
    name: str,
    target: str,
    value: Any,
) -> None:
    if target == "":
        return
    if target.startswith(ATTRIBUTE):
        attributes[target.removeprefix(ATTRIBUTE)] = value
        return
    if target == SECONDS:
        target, value = "created_at", _milliseconds(value)
    if target in from_columns:
        raise NoReview(
            f"{target}: expected one column, got {from_columns[target]!r:.40} and {name!r:.40}"
        )
    from_columns[target] = name
    fields[target] = value


def _milliseconds(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else value
    try:
        if isinstance(text, str | int) and not isinstance(text, bool):
            return int(text) * 1000
    except ValueError:
        pass
    raise NoReview(f"created_at: expected seconds since 1970 as a whole number, got {shown(value)}")
