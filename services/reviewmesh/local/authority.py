"""A certificate authority for one machine: `reviewmesh up --secure` signs every process's
certificate with it.

Its key lies in the state folder, readable by its owner only. A company uses its own authority.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reviewmesh.local.paths import write_in_one_step

NAME = "reviewmesh local authority"
CERTIFICATE, KEY = "ca.pem", "ca.key"
YEARS = 10
# Clocks of the machines that check it may be behind.
BACKDATED = timedelta(minutes=5)
PUBLIC = 0o644


@dataclass(frozen=True, slots=True)
class CertificatePaths:
    """Three PEM files."""

    ca: Path
    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own files are `ca.pem` and `ca.key` in the folder given."""

    def __init__(self, folder: Path, name: str = NAME) -> None:
        """A new one; `kept` gives the one that is there."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + timedelta(days=365 * YEARS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_in_one_step(folder / KEY, secret)
        # Last: an authority whose certificate is there is whole.
        write_in_one_step(folder / CERTIFICATE, certificate.public_bytes(Encoding.PEM), PUBLIC)
        self._take(folder, key, certificate)

    @classmethod
    def kept(cls, folder: Path) -> Self:
        """The authority whose files are in the folder; a new one if there is none."""
        if not (folder / CERTIFICATE).exists():
            return cls(folder)
        key = load_pem_private_key((folder / KEY).read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
        authority = cls.__new__(cls)
        authority._take(folder, key, certificate)
        return authority

    def _take(
        self, folder: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> None:
        self.folder = folder
        self.ca = folder / CERTIFICATE
        self.certificate = certificate
        self._key = key
        self._name = certificate.subject

    def issue(
        self,
        name: str,
        *,
        dns: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
        uris: tuple[str, ...] = (),
        valid: timedelta = timedelta(days=365),
    ) -> CertificatePaths:
        """A certificate for a process, as `NAME.pem` and `NAME.key`; replaces earlier ones.

        `name` is its common name and, without others, its DNS name. It may serve and call.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(each) for each in dns or (name,)]
        names += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
        names += [x509.UniformResourceIdentifier(each) for each in uris]
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + valid)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        paths = CertificatePaths(self.ca, self.folder / f"{name}.pem", self.folder / f"{name}.key")
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_in_one_step(paths.key, secret)
        write_in_one_step(paths.certificate, certificate.public_bytes(Encoding.PEM), PUBLIC)
        return paths


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
