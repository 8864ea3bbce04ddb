"""The identities of an embedded mesh: what is kept between starts, and who can read it."""

from __future__ import annotations

import stat
from pathlib import Path

from cryptography import x509

from reviewmesh.local.secure import ADMIN, BROKER, Identities
from reviewmesh_schemas.names import PRINCIPALS


def test_secrets_are_the_owner_s_alone_and_no_two_are_the_same(tmp_path: Path) -> None:
    identities = Identities(tmp_path / "secure")
    identities.prepare()
    identities.write_registry_properties(8443)
    assert stat.S_IMODE(identities.folder.stat().st_mode) == 0o700
    secret = [path for path in identities.folder.iterdir() if path.suffix != ".pem"]
    secret.append(identities.folder / "broker-key-store.pem")
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    logins = [identities.kafka(who) for who in (*PRINCIPALS, BROKER, ADMIN)]
    logins += [identities.registry(who) for who in PRINCIPALS]
    passwords = [login.password for login in logins]
    assert len(set(passwords)) == len(passwords)
    assert min(map(len, passwords)) >= 32


def test_a_second_start_keeps_the_authority_and_the_passwords(tmp_path: Path) -> None:
    identities = Identities(tmp_path / "secure")
    identities.prepare()
    ca, passwords = identities.ca.read_bytes(), identities.broker_properties()
    first = identities.certificate("worker").read_bytes()
    identities.prepare()
    assert (identities.ca.read_bytes(), identities.broker_properties()) == (ca, passwords)
    renewed = x509.load_pem_x509_certificate(identities.certificate("worker").read_bytes())
    assert identities.certificate("worker").read_bytes() != first
    renewed.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))


def test_settings_name_files_and_hold_no_secret(tmp_path: Path) -> None:
    identities = Identities(tmp_path / "secure")
    identities.prepare()
    for who in PRINCIPALS:
        settings = {**identities.environment(who), **identities.worker_environment()}
        shown = " ".join(settings.values())
        assert identities.kafka(who).password not in shown
        assert identities.registry(who).password not in shown
