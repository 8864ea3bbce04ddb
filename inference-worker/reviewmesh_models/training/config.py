"""The config of a training: one YAML file for every kind of model, checked first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from reviewmesh_kit.yamltext import load_yaml

CONFIGS: Final = Path(__file__).parent / "configs"
"""Configs that come with the project."""

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,79}$")]
_Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]
_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Rate = Annotated[float, Field(gt=0, lt=1)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1)]


class ConfigError(ValueError):
    """An invalid config; the message says what is wrong."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataLicenses(_Part):
    """Under what the labelled rows may be used, for the package's manifest."""

    reviews: str | None = None
    entities: str | None = None
    translated_reviews: str | None = None
    translated_entities: str | None = None
    written: str | None = None


class _Training(_Part):
    name: _Name
    """The package's name."""
    version: _Version
    license: _Words
    """Licence of the trained weights, as the base and the data allow."""
    data_licenses: DataLicenses = DataLicenses()
    seed: int = 7
    epochs: _Count
    checkpoint_steps: _Count = 200
    """Optimizer steps between two checkpoints, which an interruption may lose."""


class PackedFile(_Part):
    """A file inside of a package from a registry, which is a zip archive."""

    file: Path
    """The package; relative to where one works."""
    sha256: _Sha256
    """Of the package."""
    member: _Words


class E5Base(_Part):
    """multilingual-e5-small, whose weights and tokenizer are in packages."""

    weights: PackedFile
    tokenizer: PackedFile
    layers: list[Annotated[int, Field(ge=0, le=11)]] = Field(min_length=1)
    """Of the twelve, those that are kept."""
    distillation_epochs: _Count
    """How often all texts are read to teach the kept layers the work of those that are left out;
    see `encoder.distillation`."""
    first_pieces: Annotated[int, Field(ge=4)]
    """So many are kept of the most frequent pieces, besides those that the rows use."""
    name: _Words
    source: _Words
    license: _Words


class Languages(_Part):
    """Rows in other languages; see `training.languages`."""

    written: Path
    """A folder of rows that were written for this project; see `training.written_rows`."""
    teacher: Path
    """The package whose answer to an English sentence teaches the topics of its translations."""
    reviews_share: _Share
    """Of the translated reviews, how many an epoch sees."""
    entities_share: _Share
    """Of the entity rows in other languages, how many an epoch sees."""
    neutral_share: _Share
    """Of the translated reviews without an opinion, how many are learned from."""
    lowered_share: _Share
    """Of all entity rows, how many are learned from in lower case as well."""


class EncoderConfig(_Training):
    """The encoder with a head per task, which serves all tasks in one pass."""

    kind: Literal["encoder"]
    batch_size: _Count
    """Rows per step."""
    learning_rate: _Rate
    """Peak, of the pretrained encoder."""
    head_learning_rate: _Rate
    """Peak, of what is new."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the encoder's matrix products; bfloat16 halves the time where a processor has
    instructions for it (AVX512-BF16), and takes longer elsewhere."""
    base: E5Base | None = None
    """None for MiniLM-L6, from the package that is installed with the training."""
    languages: Languages | None = None


class GgufSource(_Part):
    """A chat model as a GGUF file, alone or inside of a package from a registry."""

    file: Path
    """Of the model or of the package, which is a zip archive; relative to where one works."""
    sha256: _Sha256
    """Of `file`."""
    member: _Words | None = None
    """The model's path inside of the package; None where `file` is the model."""


class BaseWeights(_Part):
    """What a model is fine-tuned from."""

    folder: Path
    """In Hugging Face form, with its tokenizer and chat template; relative to where one works."""
    name: _Words
    source: _Words
    license: _Words
    gguf: GgufSource | None = None
    """What `reviewmesh-models convert` makes the folder of; None where it comes from elsewhere."""


class Scratch(_Part):
    """Numbers of a Gemma-2 that begins with random weights."""

    vocabulary: Annotated[int, Field(ge=512, le=262_144)]
    hidden: _Count
    layers: _Count
    heads: _Count
    key_value_heads: _Count
    head: Annotated[int, Field(ge=2, multiple_of=2)]
    """Features of one head."""
    inner: _Count
    initializer: _Rate
    """Standard deviation of the random weights. Gemma's own, 0.02, is for models far wider: with it
    a narrow one takes long to learn more than the most common answer."""
    copying_steps: Annotated[int, Field(ge=0)]
    """Steps that teach to copy random tokens, before any labelled row; see `causal.copying`."""

    @model_validator(mode="after")
    def _whole_groups(self) -> Scratch:
        if self.heads % self.key_value_heads:
            raise ValueError("heads must be a multiple of key_value_heads")
        return self


class Lora(_Part):
    """The low-rank adapter that is trained and then merged into the base."""

    rank: _Count
    alpha: _Count
    dropout: float = Field(ge=0, lt=1)
    targets: list[str] = Field(min_length=1)
    """Names of the linear layers that are adapted."""


class CausalConfig(_Training):
    """A chat model: a base in Hugging Face form, or one from scratch."""

    kind: Literal["causal"]
    tasks: list[Literal["ner", "topic", "sentiment"]] = Field(min_length=1)
    base: BaseWeights | None = None
    scratch: Scratch | None = None
    method: Literal["lora", "full"]
    lora: Lora | None = None
    context: Annotated[int, Field(ge=64)]
    """Tokens of a pack of reviews, and so of the longest prompt with its answer."""
    packs_per_step: _Count
    learning_rate: _Rate
    """Peak; linear warm-up, then cosine decay to zero."""
    dtype: Literal["float32", "bfloat16"]
    gradient_checkpointing: bool = False
    """Gradient checkpointing: activations are recomputed in the backward pass. Slower, less
    memory."""

    @model_validator(mode="after")
    def _one_beginning(self) -> CausalConfig:
        if (self.base is None) == (self.scratch is None):
            raise ValueError("expected either base or scratch")
        if self.scratch is not None and self.method != "full":
            raise ValueError("a model from scratch is trained whole: expected method full")
        if (self.method == "lora") != (self.lora is not None):
            raise ValueError(
                "expected lora, with rank, alpha, dropout and targets, for method lora"
            )
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("expected each task once")
        return self


TrainingConfig = EncoderConfig | CausalConfig
_SCHEMA: Final[TypeAdapter[TrainingConfig]] = TypeAdapter(
    Annotated[TrainingConfig, Field(discriminator="kind")]
)


def read_training_config(file: Path) -> TrainingConfig:
    """With its base in place. Raises ConfigError."""
    config = _read(file)
    if isinstance(config, CausalConfig) and config.base is not None:
        _check_base(file, config.base)
    return config


def read_gguf_base(file: Path) -> tuple[BaseWeights, GgufSource]:
    """The base that a config names, and what it is made of. Raises ConfigError."""
    config = _read(file)
    base = config.base if isinstance(config, CausalConfig) else None
    if base is None or base.gguf is None:
        raise ConfigError(
            f"{file}: expected a chat model's config with base.gguf, the file to convert; see "
            f"smollm2.yaml in {CONFIGS}"
        )
    return base, base.gguf


def _read(file: Path) -> TrainingConfig:
    try:
        content = load_yaml(file.read_text(encoding="utf-8"))
        return _SCHEMA.validate_python(content)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"expected a training config at {file}, {error}; see those in {CONFIGS}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: expected YAML, {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{file}: {_problems(error)}") from error


def _check_base(file: Path, base: BaseWeights) -> None:
    if not (base.folder / "config.json").is_file():
        ways = "put the model's files there"
        if base.gguf is not None:
            ways = f"make it with `reviewmesh-models convert {file}`"
        raise ConfigError(
            f"{file}: expected a model in Hugging Face form at base, found no config.json in "
            f"{base.folder.absolute()}; nothing is downloaded: {ways}"
        )


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc']) or 'config'}: {one['msg']}"
        for one in error.errors()
    )


def as_plain(config: TrainingConfig) -> dict[str, Any]:
    """For a manifest: what was set, in the words of the file."""
    plain: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    return plain
