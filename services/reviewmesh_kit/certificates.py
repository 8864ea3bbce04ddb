"""This process's certificate for mutual TLS: read from PEM files, checked, and read again.

gRPC reads certificates once, so the process watches the files for it
(https://github.com/grpc/grpc/issues/41779).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from reviewmesh_kit.settings import TlsSettings

LOOK_EVERY_S = 1.0
LARGEST_FILE = 1024 * 1024


class CertificateProblem(Exception):
    """The files hold no usable certificate. The message says which file, and what was expected."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM bytes that fit together, and the times between which the leaf is valid (UTC)."""

    ca: bytes
    chain: bytes
    key: bytes
    not_before: datetime
    not_after: datetime

    def __repr__(self) -> str:
        return f"Certificate(not_after={self.not_after:%Y-%m-%dT%H:%M:%SZ})"


def read_certificate(ca: Path, certificate: Path, key: Path) -> Certificate:
    """Raises CertificateProblem."""
    authorities, chain, secret = _bytes(ca), _bytes(certificate), _bytes(key)
    _certificates(ca, authorities)
    leaf = _certificates(certificate, chain)[0]
    try:
        private = load_pem_private_key(secret, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateProblem(
            f"{key}: expected a private key in PEM, without a password"
        ) from error
    shape = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*shape) != leaf.public_key().public_bytes(*shape):
        raise CertificateProblem(f"{key}: expected the key of {certificate}, got another one")
    return Certificate(
        authorities, chain, secret, leaf.not_valid_before_utc, leaf.not_valid_after_utc
    )


class CertificateFiles:
    """The certificate as the files hold it now. May be used by several threads.

    Files that are being replaced do not fit together for a moment, and a wrong file may stay: the
    last certificate that was good is used meanwhile.
    """

    def __init__(
        self,
        settings: TlsSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises CertificateProblem."""
        assert settings.ca is not None
        assert settings.certificate is not None
        assert settings.key is not None
        self._paths = (settings.ca, settings.certificate, settings.key)
        self._clock = clock
        self._lock = threading.Lock()
        self._current = read_certificate(*self._paths)
        self._looked_at = clock()
        self._bad_looks = 0
        self._log = structlog.get_logger()
        if self._current.not_after <= datetime.now(UTC):
            raise CertificateProblem(
                f"{settings.certificate}: expected a certificate that is valid, got one that "
                f"expired at {self._current.not_after:%Y-%m-%dT%H:%M:%SZ}"
            )

    def current(self) -> Certificate:
        """The same object for as long as the files hold the same. Looks every LOOK_EVERY_S."""
        with self._lock:
            if self._clock() - self._looked_at >= LOOK_EVERY_S:
                self._look()
            return self._current

    def not_before(self) -> float:
        """Seconds since 1970."""
        return self.current().not_before.timestamp()

    def not_after(self) -> float:
        """Seconds since 1970."""
        return self.current().not_after.timestamp()

    def _look(self) -> None:
        self._looked_at = self._clock()
        try:
            found = read_certificate(*self._paths)
        except CertificateProblem as problem:
            self._bad_looks += 1
            # A single look may fall between the replacements of two files.
            if self._bad_looks == 2:
                self._log.warning("certificate not renewed", reason=str(problem))
            return
        self._bad_looks = 0
        if found != self._current:
            self._current = found
            self._log.info("certificate renewed", valid_until=found.not_after.isoformat())


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise CertificateProblem(f"{path}: expected a PEM file: {error.strerror}") from error
    if len(content) > LARGEST_FILE:
        raise CertificateProblem(f"{path}: expected a PEM file of at most {LARGEST_FILE} bytes")
    return content


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    """At least one."""
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise CertificateProblem(f"{path}: expected certificates in PEM, got none") from error
