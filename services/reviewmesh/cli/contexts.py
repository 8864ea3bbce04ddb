"""`reviewmesh context`: meshes by name, and which of them commands go to.

A context is a handful of settings, as the environment would have them. Secrets stay in files of
their own, which the settings …_FILE name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from reviewmesh.cli.errors import CommandFailed
from reviewmesh_kit.environment import SECRET_WORDS, unknown_settings

app = typer.Typer(help="Meshes by name: list, set, use, delete.", no_args_is_help=True)

BOOTSTRAP = "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS"
REGISTRY = "REVIEWMESH_REGISTRY__URL"
PREFIX = "REVIEWMESH_PREFIX"
OF_A_MESH = ("REVIEWMESH_KAFKA__", "REVIEWMESH_REGISTRY__", PREFIX)
LOCAL = "local"
"""The mesh of the state folder: always there, and current where no other is."""


@dataclass
class Contexts:
    """The user's file of them."""

    current: str = LOCAL
    by_name: dict[str, dict[str, str]] = field(default_factory=dict)

    @staticmethod
    def file() -> Path:
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(home) / "reviewmesh" / "contexts.json"

    @classmethod
    def read(cls) -> Contexts:
        """Raises CommandFailed."""
        try:
            content = json.loads(cls.file().read_text("utf-8"))
            by_name = {
                str(name): {str(key): str(value) for key, value in settings.items()}
                for name, settings in content["contexts"].items()
            }
            return cls(str(content["current"]), by_name)
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CommandFailed(
                f"{cls.file()} is not what `reviewmesh context` writes ({error}); mend or remove it"
            ) from None

    def write(self) -> None:
        """In one step; for this user's eyes."""
        path = self.file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        content = {"current": self.current, "contexts": self.by_name}
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(json.dumps(content, indent=2) + "\n")
        draft.replace(path)

    def named(self, name: str) -> dict[str, str]:
        """Its settings; none of the local mesh. Raises BadParameter."""
        if name != LOCAL and name not in self.by_name:
            known = ", ".join((LOCAL, *self.by_name))
            raise typer.BadParameter(f"expected one of {known}, got {name!r:.80}")
        return self.by_name.get(name, {})


def apply(context: str | None, bootstrap_server: str | None, registry: str | None) -> None:
    """Set the environment of this process for the mesh that was chosen.

    Options come first, then a context that was named, the environment, the current context.
    """
    if context is not None:
        chosen = Contexts.read().named(context)
        for name in [name for name in os.environ if name.upper().startswith(OF_A_MESH)]:
            del os.environ[name]
        os.environ.update(chosen)
    elif bootstrap_server is None and not os.environ.get(BOOTSTRAP):
        contexts = Contexts.read()
        os.environ.update(contexts.named(contexts.current))
    if bootstrap_server is not None:
        os.environ[BOOTSTRAP] = bootstrap_server
    if registry is not None:
        if not os.environ.get(BOOTSTRAP):
            raise typer.BadParameter(
                "expected --bootstrap-server as well: the local mesh has its own registry",
                param_hint="--registry",
            )
        os.environ[REGISTRY] = registry


def names(incomplete: str) -> list[str]:
    """For completion in a shell."""
    return [name for name in (LOCAL, *Contexts.read().by_name) if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="The name of a context.", autocompletion=names)]


@app.command("list")
def list_(
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a context.")] = False,
) -> None:
    """List the contexts; * is the one that commands go to."""
    from reviewmesh.cli.terminal import json_text, out

    contexts = Contexts.read()
    everything = {LOCAL: {}, **contexts.by_name}
    if as_lines:
        for name, settings in everything.items():
            told: dict[str, Any] = {"context": name, "current": name == contexts.current}
            print(json_text({**told, "settings": settings}))
    else:
        out.print(table_of(everything, contexts.current))


def table_of(everything: Mapping[str, Mapping[str, str]], current: str) -> Any:
    from reviewmesh.cli.tables import Column, FittingTable

    table = FittingTable(
        "context", "", *(Column(name, wraps=True) for name in ("broker", "others"))
    )
    for name, settings in everything.items():
        others = [f"{key}={value}" for key, value in settings.items() if key != BOOTSTRAP]
        broker = settings.get(BOOTSTRAP, "of the state folder" if name == LOCAL else "-")
        table.add_row(name, "*" if name == current else "", broker, " ".join(others))
    return table


@app.command("set")
def set_(
    name: Name,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTING=VALUE]...",
            help="Others, such as REVIEWMESH_KAFKA__SASL_PASSWORD_FILE=/run/secrets/kafka; an "
            "empty value takes one out.",
            show_default=False,
        ),
    ] = None,
    bootstrap_server: Annotated[
        str | None, typer.Option("--bootstrap-server", help="Brokers, as host:port.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option("--registry", help="URL of the schema registry.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Prefix of topics and groups.")] = None,
) -> None:
    """Add a context or change it; secrets are refused, the files that hold them are not."""
    if name == LOCAL:
        raise typer.BadParameter(f"{LOCAL} is the mesh of the state folder; take another name")
    given: dict[str, str] = {}
    for text in settings or ():
        setting, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected SETTING=VALUE, got {setting!r:.80}")
        given[setting] = value
    for setting, option in ((BOOTSTRAP, bootstrap_server), (REGISTRY, registry), (PREFIX, prefix)):
        if option is not None:
            given[setting] = option
    for setting, value in given.items():
        if problem := problem_of(setting, value):
            raise typer.BadParameter(problem)
    contexts = Contexts.read()
    changed = {**contexts.by_name.get(name, {}), **given}
    contexts.by_name[name] = {setting: value for setting, value in changed.items() if value}
    if BOOTSTRAP not in contexts.by_name[name]:
        raise typer.BadParameter("expected --bootstrap-server: without it no mesh is named")
    contexts.write()


def problem_of(setting: str, value: str) -> str:
    """Why a context cannot hold a setting; empty when it can. Holds no value."""
    if unknown := unknown_settings([setting]):
        return unknown[0]
    if not setting.startswith(OF_A_MESH):
        return f"expected a setting of {', '.join(OF_A_MESH)}, got {setting}"
    own = setting.lower()
    if any(word in own for word in SECRET_WORDS) and not own.endswith(("_file", "_location")):
        return f"{setting} is a secret: put it into a file and give {setting}_FILE=PATH"
    if "://" in value and urlsplit(value).password is not None:
        return (
            f"{setting} has a password in it: give REVIEWMESH_REGISTRY__USERNAME and "
            "REVIEWMESH_REGISTRY__PASSWORD_FILE instead"
        )
    return ""


@app.command()
def use(name: Name) -> None:
    """Have commands go to this mesh from now on, where the environment names no other."""
    contexts = Contexts.read()
    contexts.named(name)
    contexts.current = name
    contexts.write()


@app.command()
def delete(name: Name) -> None:
    """Forget a context; the local mesh is current then, if it was."""
    contexts = Contexts.read()
    if not contexts.named(name):
        raise typer.BadParameter(f"{LOCAL} is always there")
    del contexts.by_name[name]
    if contexts.current == name:
        contexts.current = LOCAL
    contexts.write()
