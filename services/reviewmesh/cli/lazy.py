"""Commands that are imported once they are called: `--help` of all of them imports none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer import _click
from typer._click.shell_completion import CompletionItem
from typer.core import TyperGroup
from typer.main import get_command


@dataclass(frozen=True)
class Offer:
    """Where a command is, and the line that the help of the program has for it."""

    module: str
    name: str
    """A function of the module, or its `typer.Typer` with subcommands."""
    help: str

    def load(self, called: str) -> _click.Command:
        found: Any = getattr(import_module(self.module), self.name)
        parent = typer.Typer(rich_markup_mode=None)
        # A callback makes it a group even of one command.
        parent.callback()(_nothing)
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=called)
        else:
            parent.command(called)(found)
        group = get_command(parent)
        assert isinstance(group, TyperGroup)
        return group.commands[called]


def _nothing() -> None:
    """Not called: only a subcommand of its group is taken."""


class LazyCommands(MutableMapping[str, _click.Command]):
    """As a group's commands by name; each is imported when it is asked for."""

    def __init__(self, known: Mapping[str, Offer]) -> None:
        self.known = known
        self._loaded: dict[str, _click.Command] = {}

    def __getitem__(self, name: str) -> _click.Command:
        if name not in self._loaded:
            self._loaded[name] = self.known[name].load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: _click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self.known

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


class LazyGroup(TyperGroup):
    """A group that lists and completes its commands without importing them."""

    known: ClassVar[Mapping[str, Offer]]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands(self.known)

    def list_commands(self, ctx: _click.Context) -> list[str]:
        return list(self.known)

    def format_commands(self, ctx: _click.Context, formatter: _click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in self.known.items()])

    def shell_complete(self, ctx: _click.Context, incomplete: str) -> list[CompletionItem]:
        own = [
            CompletionItem(name, help=command.help)
            for name, command in self.known.items()
            if name.startswith(incomplete)
        ]
        return own + _click.Command.shell_complete(self, ctx, incomplete)
