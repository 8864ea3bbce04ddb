"""The certificates of this process: read from PEM files, checked, and read again when replaced.

gRPC's and Kafka's clients read them once, so the process watches the files for them
(https://github.com/grpc/grpc/issues/41779, https://github.com/confluentinc/librdkafka/issues/2868).
"""

from __future__ import annotations

import math
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    # Most commands have no certificate to check.
    from cryptography import x509

LOOK_EVERY_S = 1.0
LARGEST_FILE = 1024 * 1024
# A single look may fall between the replacements of two files.
BAD_LOOKS = 2


class CertificateProblem(Exception):
    """The files hold no usable certificate. The message says which file, and what was expected."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM bytes that fit together, and the times between which the leaf is valid (UTC)."""

    ca: bytes = b""
    chain: bytes = b""
    key: bytes = field(default=b"", repr=False)
    not_before: datetime | None = None
    not_after: datetime | None = None


NONE = Certificate()
"""As long as no file has been read that could be used."""


@dataclass(frozen=True, slots=True)
class PemFiles:
    """Where a process's certificate is; each part may be missing."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    """None: in the file of the certificate."""
    password: str | None = field(default=None, repr=False)

    def read(self) -> Certificate:
        """Raises CertificateProblem."""
        authorities = b"" if self.ca is None else _bytes(self.ca)
        if self.ca is not None:
            _certificates(self.ca, authorities)
        if self.certificate is None:
            return Certificate(authorities)
        key_path = self.key or self.certificate
        chain, key = _bytes(self.certificate), _bytes(key_path)
        leaf = _certificates(self.certificate, chain)[0]
        self._check_key(leaf, key_path, key)
        valid = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        return Certificate(authorities, chain, key, *valid)

    def _check_key(self, leaf: x509.Certificate, path: Path, key: bytes) -> None:
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_private_key,
        )

        password = None if self.password is None else self.password.encode()
        try:
            private = load_pem_private_key(key, password)
        except (ValueError, TypeError) as error:
            expected = "without a password" if password is None else "with the password given"
            raise CertificateProblem(
                f"{path}: expected a private key in PEM, {expected}"
            ) from error
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
            raise CertificateProblem(f"{path}: expected the key of {self.certificate}, not another")


class CertificateFiles:
    """The certificate as the files hold it now. May be used by several threads.

    Files that are being replaced do not fit together for a moment, and a wrong file may stay: the
    last certificate that was good is used meanwhile.
    """

    def __init__(
        self, files: PemFiles, hop: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`hop`: as log and metrics name it."""
        self._files = files
        self._hop = hop
        self._clock = clock
        self._lock = threading.Lock()
        self._bad_looks = 0
        self._current = NONE
        self._look(clock())

    def checked(self) -> Self:
        """Raises CertificateProblem where a client could not be made of the files now."""
        found = self._files.read()
        if found.not_after is not None and found.not_after <= datetime.now(UTC):
            raise CertificateProblem(
                f"{self._files.certificate}: expected a certificate that is valid, got one that "
                f"expired at {found.not_after:%Y-%m-%dT%H:%M:%SZ}"
            )
        return self

    def current(self) -> Certificate:
        """The same object for as long as the files hold the same. Looks every LOOK_EVERY_S."""
        with self._lock:
            now = self._clock()
            if now - self._looked_at >= LOOK_EVERY_S:
                self._look(now)
            return self._current

    def changes(self) -> CertificateChanges:
        """For one holder of clients, each of which keeps what it was made with."""
        return CertificateChanges(self)

    def not_before(self) -> float:
        """Seconds since 1970; NaN without a certificate."""
        at = self.current().not_before
        return math.nan if at is None else at.timestamp()

    def not_after(self) -> float:
        """Seconds since 1970; NaN without a certificate."""
        at = self.current().not_after
        return math.nan if at is None else at.timestamp()

    def _look(self, now: float) -> None:
        self._looked_at = now
        # Takes a tenth of what a short command may take, and those follow no certificate.
        import structlog

        log = structlog.get_logger(hop=self._hop)
        try:
            found = self._files.read()
        except CertificateProblem as problem:
            self._bad_looks += 1
            if self._bad_looks == BAD_LOOKS:
                log.warning("certificate not renewed", reason=str(problem))
            return
        self._bad_looks = 0
        if found == self._current:
            return
        if self._current is not NONE:
            log.info("certificate renewed", valid_until=str(found.not_after or ""))
        self._current = found


class CertificateChanges:
    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._known = files.current()

    def found(self) -> bool:
        """Whether the certificate was replaced since the last call, or since this was made."""
        known, self._known = self._known, self._files.current()
        return self._known is not known


class RenewedContext:
    """An SSL context that reads its files again when they were replaced.

    Connections that are open keep what they were made with. Authorities are added, never removed.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        files: CertificateFiles,
        load: Callable[[ssl.SSLContext], None],
    ) -> None:
        """`load` raises OSError."""
        self.context = context
        self._files = files
        self._load = load
        self._certificate = files.current()

    def renew(self) -> None:
        """Cheap enough for every request."""
        certificate = self._files.current()
        if certificate is self._certificate:
            return
        try:
            self._load(self.context)
        except OSError:
            # The files have been replaced once more: `current` will say so.
            return
        self._certificate = certificate


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
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise CertificateProblem(f"{path}: expected certificates in PEM, got none") from error
