"""Reads what the deployment consists of: compose, .env, Dockerfiles, .dockerignore, locks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
VARIABLE = re.compile(r"\$\{(\w+)\}")


@cache
def text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def dotenv() -> dict[str, str]:
    lines = [line for line in text(".env").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def pins() -> dict[str, str]:
    """The versions of all images, from `.env`."""
    return {name: value for name, value in dotenv().items() if name.endswith("_IMAGE")}


def variables() -> set[str]:
    """What docker-compose.yml takes from `.env`."""
    return set(VARIABLE.findall(text("docker-compose.yml")))


@cache
def compose() -> dict[str, Any]:
    """docker-compose.yml with `.env` filled in; raises KeyError for a name that it lacks."""
    values = dotenv()
    filled = VARIABLE.sub(lambda match: values[match.group(1)], text("docker-compose.yml"))
    return dict(yaml.safe_load(filled))


def services() -> dict[str, dict[str, Any]]:
    return dict(compose()["services"])


def of_image(variable: str) -> dict[str, dict[str, Any]]:
    """The services that run one image."""
    image = pins()[variable]
    return {name: service for name, service in services().items() if service["image"] == image}


def answers_to(name: str) -> set[str]:
    """Every service that other containers reach by a name, its own or an alias."""
    return {
        service
        for service, settings in services().items()
        if name == service
        or name in settings.get("networks", {}).get("default", {}).get("aliases", [])
    }


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)(s|m)", duration)
    assert match, f"expected a duration such as 30s, got {duration}"
    return int(match.group(1)) * {"s": 1, "m": 60}[match.group(2)]


@dataclass(frozen=True)
class Instruction:
    stage: int
    name: str
    arguments: str


def dockerfile(name: str) -> list[Instruction]:
    lines = [line for line in (DEPLOY / name).read_text("utf-8").splitlines() if line]
    joined = re.sub(
        r"\\\n", " ", "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    )
    stage, found = -1, []
    for line in joined.splitlines():
        instruction, arguments = line.strip().split(None, 1)
        stage += instruction == "FROM"
        found.append(Instruction(stage, instruction, " ".join(arguments.split())))
    return found


@cache
def environment(name: str) -> dict[str, str]:
    """ENV of the last stage."""
    instructions = dockerfile(name)
    pairs: dict[str, str] = {}
    for instruction in instructions:
        if instruction.name == "ENV" and instruction.stage == instructions[-1].stage:
            pairs |= dict(pair.split("=", 1) for pair in instruction.arguments.split())
    return pairs


def is_in_context(path: str) -> bool:
    """Whether `.dockerignore` lets a path through: the last line that matches decides."""
    taken = True
    for line in text(".dockerignore").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        if _matches(pattern.removeprefix("!"), path):
            taken = pattern.startswith("!")
    return taken


def _matches(pattern: str, path: str) -> bool:
    """A pattern matches a path and all that lies below it; `**` is any number of folders."""
    parts = [".*" if part == "**" else re.escape(part) for part in pattern.split("/")]
    expression = "/".join(part.replace(r"\*", "[^/]*") for part in parts)
    return bool(re.fullmatch(expression.replace(".*/", "(.*/)?") + "(/.*)?", path))


def locked(name: str) -> dict[str, str]:
    """Package to version of a lock in requirements/."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text(f"requirements/{name}"), re.MULTILINE))
