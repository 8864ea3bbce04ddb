"""A real Prometheus that scrapes the processes of a mesh under test, with the project's rules."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.broker import wait_until
from tests.mesh import Process, free_port

ROOT = Path(__file__).parents[1]
RULES = sorted((ROOT / "observability/rules").glob("*.yml"))
STARTED_WITHIN_S = 60


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def targets_down(self) -> list[str]:
        return [
            f"{target['scrapeUrl']}: {target['lastError']}"
            for target in self._get("targets")["activeTargets"]
            if target["health"] != "up"
        ]

    def targets_up(self) -> set[str]:
        return {
            target["scrapeUrl"]
            for target in self._get("targets")["activeTargets"]
            if target["health"] == "up"
        }

    def alerts(self) -> set[str]:
        """The names of the alerts that its rules were evaluated for."""
        return {
            rule["name"]
            for group in self._get("rules", type="alert")["groups"]
            for rule in group["rules"]
            if rule["health"] == "ok"
        }

    def alertmanagers(self) -> list[str]:
        return [each["url"] for each in self._get("alertmanagers")["activeAlertmanagers"]]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def _get(self, path: str, **arguments: str) -> Any:
        words = urllib.parse.urlencode(arguments)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{words}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()}") from error


@contextmanager
def prometheus(folder: Path, jobs: dict[str, dict[str, Process]]) -> Iterator[Prometheus]:
    """`jobs`: the processes by job and component, as observability/prometheus.yml names them."""
    binary = shutil.which("prometheus")
    assert binary is not None, "expected prometheus, which comes with Debian's package of that name"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules").mkdir(exist_ok=True)
    for file in RULES:
        (folder / "rules" / file.name).write_text(_at_every_turn(file))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{process.http_port}"],
                        "labels": {"component": component},
                    }
                    for component, process in processes.items()
                ],
            }
            for job, processes in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        server = Prometheus(f"http://{address}")
        wait_until(server.is_ready, STARTED_WITHIN_S, "Prometheus is ready")
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _at_every_turn(file: Path) -> str:
    """The rules, without intervals of their own: a test does not wait for minutes."""
    content = yaml.safe_load(file.read_text())
    for group in content["groups"]:
        group.pop("interval", None)
    return yaml.safe_dump(content)
