"""From a config that names a GGUF file to the folder that a training begins with."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from reviewmesh_models.training.config import BaseWeights, GgufSource
from reviewmesh_models.training.gguf_base.form import config_of, read_form
from reviewmesh_models.training.gguf_base.reading import GgufContent, GgufError
from reviewmesh_models.training.gguf_base.tokenizer import read_tokenizer
from reviewmesh_models.training.gguf_base.weights import LAST_LAYER, read_weights
from reviewmesh_models.training.packed import checked_file
from reviewmesh_models.training.workplace import OutputError


def convert_base(base: BaseWeights, source: GgufSource) -> None:
    """Make `base.folder`, whole or not at all. Raises ConfigError, GgufError and OutputError."""
    if base.folder.exists():
        raise OutputError(
            f"expected nothing at {base.folder}, found something; remove it to make it anew"
        )
    unfinished = base.folder.with_name(f"{base.folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with checked_file(source.file, source.sha256, source.member) as file:
            _write(file, unfinished)
        os.replace(unfinished, base.folder)
    except GgufError as error:
        what = source.file if source.member is None else f"{source.member} in {source.file}"
        raise GgufError(
            f"{what}: {error}; take another file of the model, or its own weights in Hugging Face "
            "form"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(file: Path, folder: Path) -> None:
    content = GgufContent(file)
    form = read_form(content)
    chat = read_tokenizer(content)
    weights = read_weights(content, form)
    config = config_of(form, tied=LAST_LAYER not in weights, start=chat.start, end=chat.end)
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer_config.json", chat.settings)
    chat.tokenizer.save(str(folder / "tokenizer.json"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
