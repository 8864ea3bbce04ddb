"""What a command raises, as a message and an exit code."""

from __future__ import annotations

from typing import NamedTuple

from confluent_kafka import KafkaException
from pydantic import ValidationError
from pydantic_settings import SettingsError

from reviewmesh.avro.codec import DecodeError
from reviewmesh.avro.registry import RegistryUnavailable, SubjectMissing
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.kafka.clients import BadOption
from reviewmesh.local.errors import LocalStackError, UnreachableError
from reviewmesh.query.errors import CannotReach, NotCarriedOut, NotFound
from reviewmesh_kit.exit_codes import FAILED, UNREACHABLE, USAGE
from reviewmesh_kit.settings import problems


class Failure(NamedTuple):
    message: str
    code: int


def told(error: Exception) -> Failure | None:
    """None: nobody expected this error, which is a defect."""
    match error:
        case ValidationError() | SettingsError():
            return Failure("\n".join(problems(error)), USAGE)
        case BadOption():
            return Failure(str(error), USAGE)
        case UnreachableError() | CannotReach() | RegistryUnavailable():
            return Failure(str(error), UNREACHABLE)
        case CommandFailed() | NotCarriedOut() | NotFound() | LocalStackError():
            return Failure(str(error), FAILED)
        case SubjectMissing() | DecodeError():
            return Failure(str(error), FAILED)
        case KafkaException():
            return Failure(f"the broker: {error.args[0].str()}; see `reviewmesh ps`", UNREACHABLE)
        case OSError():
            at = f"{error.filename}: " if error.filename else ""
            return Failure(f"{at}{error.strerror or error}", FAILED)
    return None
