"""What a training config may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from reviewmesh_models.training.config import (
    CONFIGS,
    CausalConfig,
    ConfigError,
    EncoderConfig,
    as_plain,
    read_training_config,
)

_BUNDLED = {path.name: path for path in CONFIGS.glob("*.yaml")}


def _changed(folder: Path, **changes: Any) -> Path:
    content = yaml.safe_load(_BUNDLED["tiny-gemma-2.yaml"].read_text(encoding="utf-8"))
    content = {k: v for k, v in {**content, **changes}.items() if v is not None}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def test_one_schema_reads_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gemma-2-9b-it", "SmolLM2-135M-Instruct"):
        base = tmp_path / "models" / name
        base.mkdir(parents=True)
        (base / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    read = {name: read_training_config(file) for name, file in _BUNDLED.items()}
    assert {name: type(config) for name, config in read.items()} == {
        "encoder.yaml": EncoderConfig,
        "gemma-2-9b-lora.yaml": CausalConfig,
        "multilingual.yaml": EncoderConfig,
        "smollm2.yaml": CausalConfig,
        "tiny-gemma-2.yaml": CausalConfig,
    }
    for name, config in read.items():
        written = yaml.safe_load(_BUNDLED[name].read_text(encoding="utf-8"))
        assert as_plain(config).items() >= written.items()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "forest"}, "'encoder', 'causal'"),
        ({"kind": None}, "kind"),
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1"),
        ({"epoch": 3}, "epoch: Extra inputs are not permitted"),
        ({"learning_rate": 2.0}, "learning_rate: Input should be less than 1"),
        ({"tasks": ["mood"]}, "'ner', 'topic' or 'sentiment'"),
        ({"tasks": ["ner", "ner"]}, "expected each task once"),
        ({"scratch": None}, "expected either base or scratch"),
        ({"method": "lora"}, "a model from scratch is trained whole"),
        ({"name": "Not A Name"}, "name: String should match"),
        (
            {"lora": {"rank": 4, "alpha": 4, "dropout": 0, "targets": ["q_proj"]}},
            "expected lora, with rank, alpha, dropout and targets, for method lora",
        ),
        (
            {
                "scratch": None,
                "method": "full",
                "base": {"folder": "nowhere", "name": "b", "source": "s", "license": "l"},
            },
            "nothing is downloaded",
        ),
    ],
)
def test_what_cannot_be_trained_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml") as caught:
        read_training_config(_changed(tmp_path, **changes))
    assert said in str(caught.value)


def test_heads_that_cannot_share_keys_are_refused(tmp_path: Path) -> None:
    numbers = yaml.safe_load(_BUNDLED["tiny-gemma-2.yaml"].read_text(encoding="utf-8"))["scratch"]
    with pytest.raises(ConfigError, match="a multiple of key_value_heads"):
        read_training_config(
            _changed(tmp_path, scratch={**numbers, "heads": 3, "key_value_heads": 2})
        )


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a training config"):
        read_training_config(tmp_path / "nothing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("kind: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected YAML"):
        read_training_config(broken)
