"""Prometheus and Alertmanager over a local mesh: what is found, written, kept and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from reviewmesh.local import monitoring
from reviewmesh.local.errors import AlreadyRunningError, LocalStackError
from reviewmesh.local.monitoring import MonitoringFiles, found_programs, held, remove
from reviewmesh.local.paths import StackPaths

SERVERS = {"prometheus": 1, "alertmanager": 2}
MESH = {"broker": 3, "registry": 4, "intake": 5, "worker": 6, "worker.grpc": 7}


def program(folder: Path, name: str) -> str:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


def test_it_says_which_programs_are_missing_and_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    both = "no prometheus and no alertmanager.*install prometheus prometheus-alertmanager"
    with pytest.raises(LocalStackError, match=both):
        found_programs()
    prometheus = program(tmp_path, "prometheus")
    with pytest.raises(LocalStackError, match=r"no alertmanager.*install prometheus-alertmanager;"):
        found_programs()
    debians = program(tmp_path, "prometheus-alertmanager")
    assert found_programs() == {"prometheus": prometheus, "alertmanager": debians}
    own = program(tmp_path, "alertmanager")
    assert found_programs()["alertmanager"] == own


def test_its_configuration_has_the_rules_and_the_processes_of_the_mesh(tmp_path: Path) -> None:
    files = MonitoringFiles(tmp_path)
    files.write(SERVERS, MESH)
    config = yaml.safe_load(files.prometheus_config.read_text())
    assert {Path(file).name for file in config["rule_files"]} == {"alerts.yml", "recording.yml"}
    assert all(Path(file).is_file() for file in config["rule_files"])
    [managers] = config["alerting"]["alertmanagers"]
    assert managers["static_configs"] == [{"targets": ["127.0.0.1:2"]}]
    [scraped] = config["scrape_configs"]
    assert scraped["file_sd_configs"][0]["files"] == [str(files.targets)]
    targets = json.loads(files.targets.read_text())
    assert [target["targets"] for target in targets] == [["127.0.0.1:5"], ["127.0.0.1:6"]]


def test_targets_follow_the_mesh_and_who_is_told_of_alerts_stays_as_it_was_written(
    tmp_path: Path,
) -> None:
    files = MonitoringFiles(tmp_path)
    files.write(SERVERS, MESH)
    files.alertmanager_config.write_text("route: {receiver: me}\nreceivers: [{name: me}]\n")
    files.write_targets(MESH | {"joiner": 8})
    files.write(SERVERS, MESH | {"joiner": 9})
    assert json.loads(files.targets.read_text())[-1]["targets"] == ["127.0.0.1:9"]
    assert "receiver: me" in files.alertmanager_config.read_text()


def test_without_the_rules_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "OBSERVABILITY", tmp_path / "away")
    with pytest.raises(LocalStackError, match=r"expected the rules in .*away"):
        MonitoringFiles(tmp_path).write(SERVERS, MESH)


def test_one_at_a_time_and_what_runs_is_not_removed(tmp_path: Path) -> None:
    paths = StackPaths.at(tmp_path)
    with held(paths):
        with pytest.raises(AlreadyRunningError, match="another `reviewmesh monitor`"), held(paths):
            pass
        remove(paths)
        assert paths.monitoring_dir.exists()
    remove(paths)
    assert not paths.monitoring_dir.exists()
    remove(paths)
    assert not paths.monitoring_dir.exists()
