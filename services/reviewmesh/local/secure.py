"""The identities of an embedded mesh in which every hop is somebody: `reviewmesh up --secure`.

An authority of this machine signs a certificate for whoever is connected to, and for whoever calls
a worker. On the broker and in the registry each process has a user and a password of its own. All
of it is in one folder of the state folder, which only its owner can read. What the broker lets a
user do is in its access control list, which `up` writes.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from reviewmesh.avro.acls import DEFAULT_PRINCIPAL, named
from reviewmesh.local.paths import make_private, write_in_one_step
from reviewmesh.local.ports import HOST
from reviewmesh_schemas.names import ENRICHERS, PRINCIPALS

BROKER = "broker"
ADMIN = "admin"
REGISTRY = "registry"
WORKER = "worker"
SERVER_NAMES = ("localhost",)
CALLERS = (*ENRICHERS, "judge")
"""They call workers."""
OPERATOR = "operator"
CLIENTS = (OPERATOR, "producer", "consumer")
"""Whom people connect as."""
AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
READ_SCHEMAS, REGISTER_SCHEMAS = "sr-readonly", "sr-admin"


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the broker or the registry, whose password is in a file."""

    user: str
    password_file: Path

    @property
    def password(self) -> str:
        return self.password_file.read_text("ascii").strip()


class Identities:
    """The files of one folder. What is there is kept, certificates excepted: they are new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"

    def prepare(self) -> None:
        """Draw missing passwords and sign certificates."""
        from reviewmesh.local.authority import Authority

        make_private(self.folder)
        authority = Authority.kept(self.folder)
        for server in (BROKER, REGISTRY, WORKER):
            authority.issue(server, dns=(*SERVER_NAMES, server), addresses=(HOST,))
        for caller in CALLERS:
            authority.issue(caller)
        store = self.key(BROKER).read_bytes() + self.certificate(BROKER).read_bytes()
        write_in_one_step(self._key_store, store)
        for who in (*PRINCIPALS, BROKER, ADMIN):
            self._draw(self.kafka(who))
        for who in PRINCIPALS:
            self._draw(self.registry(who))

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    @property
    def _key_store(self) -> Path:
        """Kafka wants key and certificate in one file."""
        return self.folder / "broker-key-store.pem"

    def kafka(self, who: str) -> Login:
        """How `who` logs in at the broker."""
        return Login(_user(who), self.folder / f"{who}.kafka-password")

    def registry(self, who: str) -> Login:
        """How `who` logs in at the registry."""
        return Login(_user(who), self.folder / f"{who}.registry-password")

    def _draw(self, login: Login) -> None:
        if not login.password_file.exists():
            write_in_one_step(login.password_file, f"{secrets.token_hex(24)}\n".encode())

    # -- settings --------------------------------------------------------------------------------

    def broker_properties(self) -> dict[str, str]:
        """Deny by default; the broker itself, and the user that sets things up, may do all."""
        users = {who: self.kafka(who) for who in (*PRINCIPALS, BROKER, ADMIN)}
        own = users[BROKER]
        known = " ".join(f'user_{login.user}="{login.password}"' for login in users.values())
        return {
            "listener.security.protocol.map": "BROKER:SASL_SSL,CONTROLLER:SSL",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.broker.plain.sasl.jaas.config": (
                f'{LOGIN} required username="{own.user}" password="{own.password}" {known};'
            ),
            "listener.name.controller.ssl.client.auth": "required",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._key_store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
            "authorizer.class.name": AUTHORIZER,
            "allow.everyone.if.no.acl.found": "false",
            # To the controllers the broker shows its certificate.
            "super.users": f"User:{ADMIN};User:{BROKER};User:CN={BROKER}",
        }

    @property
    def registry_properties(self) -> Path:
        """Quarkus's options: services read schemas, the operator registers them."""
        return self.folder / "registry.properties"

    def write_registry_properties(self, port: int) -> None:
        users = {
            self.registry(who): REGISTER_SCHEMAS if who == OPERATOR else READ_SCHEMAS
            for who in PRINCIPALS
        }
        embedded = "quarkus.security.users.embedded"
        lines = [
            "quarkus.http.insecure-requests=disabled",
            f"quarkus.http.ssl-port={port}",
            f"quarkus.http.ssl.certificate.files={self.certificate(REGISTRY)}",
            f"quarkus.http.ssl.certificate.key-files={self.key(REGISTRY)}",
            "quarkus.http.auth.basic=true",
            "apicurio.auth.role-based-authorization=true",
            f"{embedded}.enabled=true",
            # The file is the owner's only, as the passwords are.
            f"{embedded}.plain-text=true",
        ]
        for login, role in users.items():
            lines += [
                f'{embedded}.users."{login.user}"={login.password}',
                f'{embedded}.roles."{login.user}"={role}',
            ]
        write_in_one_step(self.registry_properties, "".join(f"{line}\n" for line in lines).encode())

    def kafka_options(self, who: str) -> dict[str, str]:
        """librdkafka's options."""
        login = self.kafka(who)
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": login.user,
            "sasl.password": login.password,
            "ssl.ca.location": str(self.ca),
        }

    def registry_options(self, who: str) -> dict[str, str]:
        """Fields of the registry's settings, beside the address."""
        login = self.registry(who)
        return {
            "username": login.user,
            "password": login.password,
            "ssl_ca_location": str(self.ca),
        }

    def environment(self, who: str) -> dict[str, str]:
        """The settings of a service or a client, beside the addresses."""
        kafka, registry = self.kafka(who), self.registry(who)
        found = {
            "REVIEWMESH_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "REVIEWMESH_KAFKA__SASL_MECHANISM": "PLAIN",
            "REVIEWMESH_KAFKA__SASL_USERNAME": kafka.user,
            "REVIEWMESH_KAFKA__SASL_PASSWORD_FILE": str(kafka.password_file),
            "REVIEWMESH_KAFKA__SSL_CA_LOCATION": str(self.ca),
            "REVIEWMESH_REGISTRY__USERNAME": registry.user,
            "REVIEWMESH_REGISTRY__PASSWORD_FILE": str(registry.password_file),
            "REVIEWMESH_REGISTRY__SSL_CA_LOCATION": str(self.ca),
        }
        return found | (self._tls(who) if who in CALLERS else {})

    def worker_environment(self) -> dict[str, str]:
        return self._tls(WORKER) | {"REVIEWMESH_WORKER__ALLOWED_CLIENTS": ",".join(CALLERS)}

    def _tls(self, name: str) -> dict[str, str]:
        return {
            "REVIEWMESH_TLS__CA": str(self.ca),
            "REVIEWMESH_TLS__CERTIFICATE": str(self.certificate(name)),
            "REVIEWMESH_TLS__KEY": str(self.key(name)),
        }


def _user(who: str) -> str:
    """The name that the access control list knows."""
    return named(DEFAULT_PRINCIPAL)[who].removeprefix("User:") if who in PRINCIPALS else who
