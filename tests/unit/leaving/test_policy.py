"""Who may leave: what a policy says, and each way to get it wrong with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from reviewmesh.leaving.policy import Policy, Rule, parse_policy, read_policy
from reviewmesh.leaving.yamlfile import FileProblem

POLICY = """\
# Reviews of acme never leave.
all:
  regions: [eu, us]
  mask: [patterns]
businesses:
  acme: nothing
  globex:
    regions: [eu]
    mask: [patterns, names]
"""


def test_a_business_has_its_own_rule_or_that_of_all() -> None:
    policy = parse_policy(POLICY)
    assert policy.rule_of("acme") is None
    assert policy.rule_of("globex") == Rule(("eu",), masks_names=True, line=7)
    assert policy.rule_of("other") == policy.rule_of(None) == Rule(("eu", "us"), False, 2)


def test_nothing_leaves_by_default() -> None:
    assert Policy().rule_of("acme") is None
    some = parse_policy("businesses:\n  globex:\n    regions: [eu]\n    mask: [patterns]\n")
    assert some.rule_of("acme") is None
    assert some.rule_of(None) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1: expected `all` or `businesses`"),
        ("- all", "1: expected `all` or `businesses`"),
        ("all: yes", "1: all: expected nothing, or regions and mask"),
        ("\nal: nothing", "2: al: there is no such setting"),
        ("all: nothing\nall: nothing", "2: all is given twice"),
        ("businesses:\n  a: nothing\n  a: nothing", "3: a is given twice"),
        ("all:\n  regions: [eu]", "1: all.mask: expected it, got nothing"),
        (
            "all:\n  mask: [patterns]\n  regions: []",
            "3: all.regions: expected at least one",
        ),
        (
            "all:\n  regions: [no]\n  mask: [patterns]",
            "2: all.regions.0: expected text: put it in quotes",
        ),
        (
            "all:\n  regions: [eu]\n  mask: [names]",
            "3: all.mask: expected [patterns] or [patterns, names]: patterns are always masked",
        ),
        ("businesses: 3", "1: businesses: expected an entry for each business"),
        (
            "businesses:\n  7: nothing\n  no: nothing",
            "2: businesses: expected text before the colon, got 7: put it in quotes where it is a "
            "name; numbers have no commas\n"
            "3: businesses: expected text before the colon, got no: put it in quotes where it is a "
            "name; numbers have no commas",
        ),
        (
            "all:\n  mask: [patterns]\n  regions: eu",
            "3: all.regions: expected a list, such as [a, b]",
        ),
        ("businesses:\n  b: maybe", "2: businesses.b: expected nothing, or regions and mask"),
        (
            "businesses:\n  b: {regions: [eu], mask: [patterns], to: x}",
            "2: businesses.b.to: there is no such setting",
        ),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line(text: str, told: str) -> None:
    with pytest.raises(FileProblem) as refused:
        parse_policy(text)
    assert str(refused.value) == told


def test_every_problem_is_told() -> None:
    with pytest.raises(FileProblem) as refused:
        parse_policy("all: maybe\nbusinesses:\n  a: nothing\n  b: 3\nother: 1\n")
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == ["1", "4", "5"]


@pytest.mark.parametrize(
    "text",
    [
        "all: [",
        "all: !!python/object:os.system {}",
        "\x00",
        "- - -: [",
        "all: !!bool maybe",
        "all: !!timestamp soon",
        "all: !!int ''",
        "all: 2026-99-99",
        "all: " + "[" * 1_500,
    ],
    ids=range(9),
)
def test_what_is_no_yaml_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(FileProblem, match=r"^1: "):
        parse_policy(text)


def test_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("all: maybe\n")
    with pytest.raises(FileProblem, match=rf"^{path}:1: all: expected nothing"):
        read_policy(path)
    with pytest.raises(FileProblem, match="No such file"):
        read_policy(tmp_path / "none.yaml")
    path.write_text(POLICY)
    assert read_policy(path) == parse_policy(POLICY)
