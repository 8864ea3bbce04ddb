"""The licences of everything that images, the embedded mesh and exports install; offline.

What each wheel says stands in a table that `make licences` writes, and what may be installed in a
list with reasons. What the wheel holds from elsewhere has its notice in it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from license_expression import ExpressionError, Licensing, get_spdx_licensing

from reviewmesh.local.programs import insights_python
from tests.supply.licences import Said, read_table, said
from tests.supply.locks import REQUIREMENTS, ROLES, ROOT, Pin, pins, plain

LIST: dict[str, Any] = tomllib.loads((REQUIREMENTS / "allowed-licences.toml").read_text("utf-8"))
TABLE = read_table()
SPDX: Licensing = get_spdx_licensing()
EXPRESSION = re.compile(r"[\w.+() -]+")
# Those that images are built of have files of their own in deploy/.
IMAGES = ("service", "worker", "worker-vllm", "insights")


@dataclass(frozen=True)
class Exempted:
    """Packages that are installed although the list does not have their licence."""

    packages: str
    """A pattern of names."""
    says: Said
    roles: tuple[str, ...]
    reason: str

    def covers(self, pin: Pin, words: Said, role: str) -> bool:
        named = fnmatchcase(pin.name, self.packages) and self.says == words
        return named and role in self.roles


EXEMPTED = [
    Exempted(e["packages"], e["says"], tuple(e["roles"]), e["reason"])
    for e in LIST.get("exceptions", ())
]


def is_allowed(words: Said) -> bool:
    """Whether every part that must be kept to is on the list; of alternatives, one is enough."""
    parts = [words] if isinstance(words, str) else words
    spelt = [LIST["spellings"].get(part, part) for part in parts]
    if not all(EXPRESSION.fullmatch(part) for part in spelt):
        return False
    try:
        parsed = SPDX.parse(" AND ".join(f"({part})" for part in spelt))
    except ExpressionError:
        return False
    return parsed is not None and _holds(parsed)


def _holds(node: Any) -> bool:
    if isinstance(node, SPDX.AND):
        return all(map(_holds, node.args))
    if isinstance(node, SPDX.OR):
        return any(map(_holds, node.args))
    return node.render() in LIST["allowed"]


def refused(role: str, table: Mapping[Pin, Said]) -> dict[str, Said]:
    return {
        str(pin): table[pin]
        for pin in pins(role)
        if pin in table
        and not is_allowed(table[pin])
        and not any(exempted.covers(pin, table[pin], role) for exempted in EXEMPTED)
    }


@pytest.mark.parametrize("role", ROLES)
def test_the_licences_of_a_role_are_allowed(role: str) -> None:
    missing = sorted(map(str, pins(role).keys() - TABLE.keys()))
    assert not missing, f"no licence is known of these: run `make licences`: {missing}"
    assert not refused(role, TABLE)


def test_the_table_has_nothing_that_no_lock_has() -> None:
    locked = {pin for role in ROLES for pin in pins(role)}
    assert TABLE.keys() <= locked, "run `make licences`"


def test_images_are_built_of_the_locks_that_are_checked() -> None:
    built = {file.stem for file in (ROOT / "deploy").glob("*.Dockerfile")}
    assert built == {*IMAGES} <= {*ROLES}


def test_each_exception_says_why_and_is_needed() -> None:
    for exempted in EXEMPTED:
        assert len(exempted.reason.split()) > 5, exempted
        for role in exempted.roles:
            covered = [pin for pin in pins(role) if exempted.covers(pin, TABLE[pin], role)]
            assert covered and not is_allowed(exempted.says), exempted


def test_no_image_has_what_is_under_the_gpl() -> None:
    """Java, under GPL 2, is run beside the embedded mesh on one machine."""
    for exempted in EXEMPTED:
        is_gpl = re.search(r"\bA?GPL|GNU (Affero )?General", str(exempted.says))
        assert not (is_gpl and {*exempted.roles} & {*IMAGES}), exempted


def installed(python: Path) -> Iterator[tuple[Pin, Said]]:
    [packages] = python.parents[1].glob("lib/python*/site-packages")
    for found in distributions(path=[str(packages)]):
        yield Pin(plain(found.metadata["Name"]), found.version), said_by(found)


def said_by(distribution: Distribution) -> Said:
    metadata: Any = distribution.metadata
    return said(
        metadata.get("License-Expression"),
        metadata.get_all("Classifier") or (),
        metadata.get("License"),
    )


@pytest.mark.parametrize("role", ["mesh", "insights"])
def test_the_table_is_what_the_installed_packages_say(role: str) -> None:
    python = insights_python() if role == "insights" else Path(sys.executable)
    if python is None:
        pytest.skip("the environment of insights is missing: make setup")
    here = dict(installed(python))
    assert pins(role).keys() <= here.keys()
    assert {pin: here[pin] for pin in pins(role)} == {pin: TABLE[pin] for pin in pins(role)}


@pytest.mark.parametrize(
    "words",
    ["GPL-3.0-only", "MIT AND AGPL-3.0-only", "", [], "Proprietary", ["MIT License", "Freeware"]],
)
def test_others_are_refused(words: Said) -> None:
    assert not is_allowed(words)


@pytest.mark.parametrize("words", ["GPL-2.0-only OR MIT", "(MIT OR X) AND ISC", ["BSD License"]])
def test_of_alternatives_one_is_enough(words: Said) -> None:
    assert is_allowed(words)


def test_an_exception_holds_for_its_packages_words_and_roles_alone() -> None:
    own = Exempted("nvidia-*", "NVIDIA", ("worker-vllm",), "")
    pin = Pin("nvidia-cublas", "1")
    assert own.covers(pin, "NVIDIA", "worker-vllm")
    assert not own.covers(pin, "NVIDIA", "worker")
    assert not own.covers(pin, "GPL-3.0-only", "worker-vllm")
    assert not own.covers(Pin("cublas", "1"), "NVIDIA", "worker-vllm")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Each file of the wheel, built as a release is."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = Path(sys.executable).with_name("uv")
    command: list[str | Path] = [
        uv,
        "build",
        "--quiet",
        "--wheel",
        "--offline",
        "--no-build-isolation",
    ]
    command += ["--python", sys.executable, "--out-dir", folder, ROOT]
    subprocess.run(command, check=True, timeout=200)
    [built] = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_carries_its_licence_and_the_notices(wheel: dict[str, bytes]) -> None:
    notices = {
        name.rpartition("/")[2]: text for name, text in wheel.items() if "/licenses/" in name
    }
    assert notices == {name: (ROOT / name).read_bytes() for name in ("LICENSE", "NOTICE")}
    assert b"Apache License" in notices["LICENSE"]


def data_of(wheel: dict[str, bytes]) -> set[str]:
    """The files that are not Python."""
    return {n for n in wheel if not n.endswith((".py", ".pyi")) and ".dist-info/" not in n}


def matching(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """A star is a part of one name, not of a path."""
    return {n for n in names for pattern in patterns if PurePosixPath(n).match(pattern)}


def test_whose_each_file_of_the_wheel_is_is_known(wheel: dict[str, bytes]) -> None:
    data = data_of(wheel)
    own = LIST["own"]["files"]
    assert not [pattern for pattern in own if not matching(data, [pattern])], "not there any more"
    theirs = set().union(*(matching(data, part["files"]) for part in LIST["bundled"]))
    ours = matching(data, own)
    assert not ours & theirs
    assert data == ours | theirs, "say in requirements/allowed-licences.toml whose these are"


def test_what_comes_from_elsewhere_has_its_notice_in_the_wheel(wheel: dict[str, bytes]) -> None:
    """In NOTICE by its name, or as a licence in its own folder."""
    notice = wheel[next(name for name in wheel if name.endswith("/NOTICE"))].decode()
    for part in LIST["bundled"]:
        assert is_allowed(part["licence"]), part
        for name in matching(data_of(wheel), part["files"]):
            folder, _, file = name.rpartition("/")
            named = folder in notice and file in notice
            assert named or f"{folder}/LICENSE" in wheel, f"NOTICE does not name {name}"


def test_no_file_that_is_ours_claims_to_be_somebody_elses(wheel: dict[str, bytes]) -> None:
    claims = (b"copyright (c)", b"@license", b"all rights reserved", b"spdx-license")
    theirs = set().union(*(matching(wheel, part["files"]) for part in LIST["bundled"]))
    ours = {n: text for n, text in wheel.items() if n not in theirs and ".dist-info/" not in n}
    claimed = [n for n, text in ours.items() if any(claim in text.lower() for claim in claims)]
    assert not claimed
