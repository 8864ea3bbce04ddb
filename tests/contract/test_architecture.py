"""docs/architecture.md names the rooms that exist, in the layers that import-linter enforces."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
PACKAGES = {
    "reviewmesh": "services/reviewmesh",
    "reviewmesh_worker": "inference-worker/reviewmesh_worker",
    "reviewmesh_models": "inference-worker/reviewmesh_models",
}
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>[^)]+)\)")


def section(title: str) -> str:
    """The text under the heading that begins with the title, up to the next one."""
    parts = re.split(r"^## ", PAGE.read_text(), flags=re.M)
    [found] = [part for part in parts if part.startswith(title)]
    return found


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def levels(folder: str) -> dict[int, set[str]]:
    """By level: the rooms that the page puts there."""
    found: dict[int, set[str]] = {}
    for level, room, _ in rows(section(f"`{folder}`")):
        found.setdefault(int(level), set()).add(room.strip("`"))
    return found


def layers(package: str) -> list[set[str]]:
    """From the lowest: the modules of each layer in pyproject.toml."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    [contract] = [
        contract
        for contract in tool["importlinter"]["contracts"]
        if contract["type"] == "layers" and contract.get("containers") == [package]
    ]
    assert contract["exhaustive"]
    return [set(re.split(r"\s*[|:]\s*", layer)) for layer in reversed(contract["layers"])]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_levels_are_the_layers_that_import_linter_enforces(package: str) -> None:
    named = levels(PACKAGES[package])
    assert [named[level] for level in sorted(named)] == layers(package)
    assert sorted(named) == list(range(1, len(named) + 1))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_is_named_and_every_named_room_exists(package: str) -> None:
    folder = ROOT / PACKAGES[package]
    modules = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert set().union(*levels(PACKAGES[package]).values()) == modules | packages


def test_every_folder_of_the_repository_is_named() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--", "*/*"], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode:
        pytest.skip("this is no clone of the repository")
    files = [Path(line) for line in tracked.stdout.splitlines()]
    named = {row[0].strip("`"): row[1] for row in rows(section("The rest"))}
    assert set(named) == {file.parts[0] for file in files} - {".ci"}
    rooms = {file.parts[1] for file in files if file.parts[0] == "tests" and len(file.parts) > 2}
    assert all(f"`{room}`" in named["tests"] for room in rooms)


def test_what_the_table_says_is_in_a_file_is_there() -> None:
    for _, answer in rows(section("Where is")):
        pieces = LINK.split(answer)
        # The text before the first link, then in turns: a link's text, its target, what follows.
        for before, target, behind in zip(pieces[::3], pieces[2::3], pieces[3::3], strict=False):
            path = (PAGE.parent / target.split("#")[0]).resolve()
            assert path.exists(), target
            if path.suffix != ".py":
                continue
            follows = re.match(r"(?:: |, its |)\s*((?:`\w+`(?:, )?)+)", behind)
            leads = re.search(r"`(\w+)`(?: of| in) $", before)
            names = re.findall(r"`(\w+)`", follows[1]) if follows else []
            for name in names + ([leads[1]] if leads else []):
                assert re.search(rf"\b{name}\b", path.read_text()), f"{name} is not in {target}"
