"""`reviewmesh-models crossover`: what it prints and draws, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from reviewmesh_models.cli.__main__ import app

OPTIONS = {
    "--gpu-hour": "1",
    "--utilisation": "0.5",
    "--staff": "1000",
    "--prompt-tokens": "1000",
    "--completion-tokens": "0",
    "--input-price": "1",
    "--output-price": "4",
}


def run(folder: Path, code: int = 0, **changed: str) -> str:
    options = OPTIONS | {f"--{name.replace('_', '-')}": text for name, text in changed.items()}
    words = [word for option in options.items() for word in option]
    arguments = ["crossover", *words, "--output", str(folder / "page.html")]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert done.exit_code == code, done.output
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "written to" not in line)
    return done.output


def test_a_given_rate(tmp_path: Path) -> None:
    said = run(tmp_path, rate="2")
    assert "measured" not in said
    assert "Both cost the same at 1,730,000 reviews a month; above, owning" in said
    assert "default" in said
    page = (tmp_path / "page.html").read_text()
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    drawn = ElementTree.fromstring(svg)
    assert [node.get("class") for node in drawn.iter() if node.tag.endswith("polyline")] == [
        "line-0",
        "line-1",
    ]
    assert "1,730,000 reviews a month" in svg


def test_a_measured_rate_names_its_report(tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    report.write_text(
        json.dumps({"device": "<b>\x1b[2J", "tasks": {"ner": {"worker_reviews_per_s": 2}}})
    )
    said = run(tmp_path, report=str(report))
    assert "measured on" in said and "\x1b" not in said
    page = (tmp_path / "page.html").read_text()
    assert "measured on &lt;b&gt;" in page and "tasks.ner.worker_reviews_per_s" in page


def test_owning_that_never_pays_is_said(tmp_path: Path) -> None:
    assert "Owning is cheaper at no volume" in run(tmp_path, rate="0.1")


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({}, 2, "expected --report"),
        ({"rate": "1", "report": "x.json"}, 2, "expected --report"),
        ({"rate": "1", "figure": "a"}, 2, "expected --report"),
        ({"report": "missing.json"}, 2, "missing.json"),
        ({"rate": "0"}, 2, "above 0"),
        ({"rate": "1", "utilisation": "40"}, 2, "at most 1"),
        ({"rate": "1", "cached_tokens": "2000"}, 2, "cached tokens"),
        *(({"rate": number}, 2, "expected a number") for number in ("NaN", "inf", "-1", "1e-13")),
        *(({"rate": number}, 2, "expected a number") for number in ("1e13", "fast", "", "sNaN")),
    ],
)
def test_what_is_wrong_is_refused(
    changed: dict[str, str], code: int, said: str, tmp_path: Path
) -> None:
    assert said in " ".join(run(tmp_path, code, **changed).split())
    assert not (tmp_path / "page.html").exists()
