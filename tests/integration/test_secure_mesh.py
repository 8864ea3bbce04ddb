"""`reviewmesh up --secure`, and everybody who should not get in: on every hop, each of them tries.

The mesh is the whole one, with a real broker, registry and worker. Beside its topics there are
those of another prefix, with the same rights, on which nobody works: there every principal tries
everything.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from grpc_health.v1 import health_pb2, health_pb2_grpc

from reviewmesh.avro import topics
from reviewmesh.avro.acls import CLUSTER, Grant, grants, named
from reviewmesh.avro.granting import ClusterAcls
from reviewmesh.avro.registry import registry_of
from reviewmesh.local.authority import Authority
from reviewmesh.local.ports import HOST
from reviewmesh.local.processes import marked_processes
from reviewmesh.local.secure import ADMIN, CALLERS, OPERATOR, Identities
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.local.state import StackInfo
from reviewmesh_schemas.names import PRINCIPALS
from tests.broker import wait_until

REVIEWMESH = Path(sys.executable).with_name("reviewmesh")
UP_TIMEOUT_S = 280
COMMAND_TIMEOUT_S = 120
CALL_TIMEOUT_S = 30.0
PREFIX = "tried."
TOPICS = [topic.name for topic in topics.load_topics().topics]
WANTED = grants(PREFIX)
PRINCIPAL_OF = named("User:reviewmesh-{service}")
GROUPS = sorted({g.name for g in WANTED if g.kind == "group" and g.pattern == "literal"})
IDS = sorted({g.name for g in WANTED if g.kind == "transactionalId"})
# As long as the shortest secret, or longer.
WORDS = re.compile(r"[A-Za-z0-9+/]{48,}")
# What the broker's authorizer logs.
DENIED = re.compile(r"Principal = (\S+) is Denied .* on resource = \w+:LITERAL:(\S+) ")
# Of the controller, at least.
ANSWER_BYTES = 14
NO_ACCESS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """A whole secure mesh: the one of REVIEWMESH_TEST_STACK if it is one, or its own."""
    if lent := os.environ.get("REVIEWMESH_TEST_STACK"):
        running = EmbeddedStack(Path(lent))
        info = running.info()
        if info is not None and info.is_secure and info.mesh:
            yield running
            return
    own = EmbeddedStack(tmp_path_factory.mktemp("secure") / "state")
    try:
        up = run(own, "up", "-d", "--secure", timeout_s=UP_TIMEOUT_S)
        assert up.returncode == 0, up.stderr
        assert "reviewmesh env producer" in up.stderr
        yield own
    finally:
        own.down(purge=True)


@pytest.fixture(scope="module")
def info(stack: EmbeddedStack) -> StackInfo:
    info = stack.info()
    assert info is not None
    return info


@pytest.fixture(scope="module")
def identities(info: StackInfo) -> Identities:
    assert info.identities is not None
    return info.identities


@pytest.fixture(scope="module")
def tried(info: StackInfo) -> None:
    """Topics with another prefix, and everybody's rights on them."""
    admin = info.kafka(ADMIN)
    topics.apply(admin, registry_of(info.registry(), CALL_TIMEOUT_S), PREFIX, 24 * 3600)
    ClusterAcls(admin).add(WANTED)


def run(
    stack: EmbeddedStack,
    *words: str,
    stdin: str = "",
    environment: dict[str, str] | None = None,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    """A command as its user gives it: only the state folder tells it which mesh."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("REVIEWMESH_TEST")}
    plain |= {"REVIEWMESH_STATE_DIR": str(stack.paths.state_dir), "COLUMNS": "200"}
    return subprocess.run(
        [str(REVIEWMESH), *words],
        env=plain | (environment or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def settings_of(stack: EmbeddedStack, client: str) -> dict[str, str]:
    """What `reviewmesh env` prints, as a shell takes it."""
    printed = run(stack, "env", client)
    assert printed.returncode == 0, printed.stderr
    lines = [line.removeprefix("export ") for line in printed.stdout.splitlines()]
    return dict(word.split("=", 1) for line in lines for word in shlex.split(line))


# -- it works --------------------------------------------------------------------------------


def test_the_commands_work_as_on_a_plain_mesh(stack: EmbeddedStack) -> None:
    review = {"review_id": "s-1", "text": "Anna at the desk was great."}
    published = run(stack, "publish", "-", stdin=json.dumps(review))
    assert published.returncode == 0, published.stderr
    tail = ("tail", "--json", "--from-beginning", "--max", "1", "--timeout", "100")
    shown = run(stack, *tail)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["review_id"] == "s-1"
    found = run(stack, "find", "s-1")
    assert "revision 1, complete" in found.stdout, found.stderr
    for command in (("ps",), ("lag", "--json"), ("dlq", "list"), ("topics", "list"), ("cost",)):
        done = run(stack, *command)
        assert done.returncode == 0, (command, done.stderr)
    held = run(stack, "forget", "s-1")
    assert "\nenriched " in held.stdout, held.stderr


def test_a_producer_and_a_consumer_of_somebody_s_own(stack: EmbeddedStack) -> None:
    """Each with what `reviewmesh env` tells it, and nothing else."""
    produce = """
from reviewmesh.settings import Settings
from reviewmesh.avro.contracts import Contracts
from confluent_kafka import Producer
settings = Settings()
codec = Contracts(settings).codec("reviews.raw")
producer = Producer(settings.kafka.as_librdkafka() | {"partitioner": "murmur2_random"})
review = {"review_id": "s-2", "text": "Somebody else wrote this.", "attributes": {}}
producer.produce("reviews.raw", key="s-2", value=codec.encode(review))
assert producer.flush(60) == 0
"""
    consume = """
from reviewmesh.settings import Settings
from reviewmesh.avro.contracts import Contracts
from confluent_kafka import Consumer
settings = Settings()
codec = Contracts(settings).codec("reviews.enriched")
consumer = Consumer(settings.kafka.as_librdkafka() | {
    "group.id": "reviewmesh-consumer-test", "isolation.level": "read_committed",
    "auto.offset.reset": "earliest"})
consumer.subscribe(["reviews.enriched"])
found = None
while found is None or found["review_id"] != "s-2":
    message = consumer.poll(1)
    if message is not None and message.error() is None:
        found = codec.decode(message.value())
consumer.close()
"""
    for client, program in (("producer", produce), ("consumer", consume)):
        environment = {**os.environ, **settings_of(stack, client)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr


def test_secrets_are_for_their_owner_and_in_no_log(
    stack: EmbeddedStack, info: StackInfo, identities: Identities
) -> None:
    assert stat.S_IMODE(identities.folder.stat().st_mode) == 0o700
    secrets = {path.read_text().strip() for path in identities.folder.glob("*-password")}
    for key in identities.folder.glob("*.key"):
        lines = key.read_text().splitlines()
        secrets |= {line.strip("=") for line in lines if "-----" not in line}
    assert len(secrets) > 2 * len(PRINCIPALS)
    shown = [path.read_text(errors="replace") for path in stack.paths.logs.iterdir()]
    shown.append(stack.paths.supervisor_config.read_text())
    shown.append(stack.paths.stack_file.read_text())
    for process in marked_processes(info.stack_id):
        shown += [" ".join(process.cmdline()), " ".join(process.environ().values())]
    for text in shown:
        words = set(WORDS.findall(text))
        assert not [word for word in words if any(secret in word for secret in secrets)]


# -- strangers -------------------------------------------------------------------------------


def test_a_client_in_plaintext_gets_no_answer_on_any_hop(info: StackInfo) -> None:
    admin = AdminClient({"bootstrap.servers": info.bootstrap_servers, "log_level": 0})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=5)
    with pytest.raises(httpx.HTTPError):
        httpx.get(info.registry_url.replace("https", "http") + "/subjects", timeout=5)
    with grpc.insecure_channel(worker_address(info)) as channel:
        assert code_of(channel) is grpc.StatusCode.UNAVAILABLE
    with socket.create_connection((HOST, info.ports["broker.controller"]), 5) as plain:
        plain.settimeout(10)
        plain.sendall(describe_acls())
        # A TLS alert, or nothing.
        assert len(received(plain)) < ANSWER_BYTES


def test_a_client_without_a_login_gets_no_answer(info: StackInfo, identities: Identities) -> None:
    bare = {"security.protocol": "SSL", "ssl.ca.location": str(identities.ca)}
    wrong = info.kafka("intake") | {"sasl.password": identities.kafka("lag").password}
    for own in (bare, wrong):
        options: dict[str, Any] = {"bootstrap.servers": info.bootstrap_servers, "log_level": 0}
        admin = AdminClient(options | own)
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=5)
    registry = info.registry()
    for auth in (None, (str(registry.username), "wrong")):
        answer = httpx.get(
            f"{registry.url}/subjects", auth=auth, verify=context_of(identities.ca), timeout=30
        )
        assert answer.status_code == 401
    channel = grpc.secure_channel(
        worker_address(info), grpc.ssl_channel_credentials(identities.ca.read_bytes())
    )
    with channel:
        assert code_of(channel) is grpc.StatusCode.UNAVAILABLE
    with controller(info, context_of(identities.ca)) as connection:
        assert asked(connection) is None


def test_who_trusts_another_authority_does_not_log_in(info: StackInfo, tmp_path: Path) -> None:
    ca = Authority(tmp_path / "stranger").ca
    options: dict[str, Any] = {**info.kafka(OPERATOR), "ssl.ca.location": str(ca), "log_level": 0}
    admin = AdminClient(options)
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=5)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{info.registry_url}/subjects", verify=context_of(ca), timeout=30)


def test_a_certificate_of_another_authority_is_refused(
    info: StackInfo, identities: Identities, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    for name in ("enricher-ner", "broker"):
        paths = stranger.issue(name)
        with grpc.secure_channel(
            worker_address(info),
            grpc.ssl_channel_credentials(
                identities.ca.read_bytes(),
                paths.key.read_bytes(),
                paths.certificate.read_bytes(),
            ),
        ) as channel:
            assert code_of(channel) is grpc.StatusCode.UNAVAILABLE
        context = context_of(identities.ca)
        context.load_cert_chain(paths.certificate, paths.key)
        with controller(info, context) as connection:
            assert asked(connection) is None


def test_another_name_of_the_right_authority_may_not_call_the_worker(
    info: StackInfo, identities: Identities, tmp_path: Path
) -> None:
    for name in (*CALLERS, "registry", "broker", "worker"):
        with grpc.secure_channel(
            worker_address(info),
            grpc.ssl_channel_credentials(
                identities.ca.read_bytes(),
                identities.key(name).read_bytes(),
                identities.certificate(name).read_bytes(),
            ),
        ) as channel:
            expected = grpc.StatusCode.OK if name in CALLERS else grpc.StatusCode.PERMISSION_DENIED
            assert code_of(channel) is expected, name


def test_only_the_broker_may_ask_the_controller(info: StackInfo, identities: Identities) -> None:
    """Its listener is the one that no login guards."""
    answers = {}
    for name in ("broker", "enricher-ner", "worker", "registry"):
        context = context_of(identities.ca)
        context.load_cert_chain(identities.certificate(name), identities.key(name))
        with controller(info, context) as connection:
            answers[name] = asked(connection)
    assert answers.pop("broker") == KafkaError.NO_ERROR
    assert set(answers.values()) == {KafkaError.CLUSTER_AUTHORIZATION_FAILED}


def test_a_server_with_another_name_is_told_nothing(
    stack: EmbeddedStack, info: StackInfo, identities: Identities
) -> None:
    """An enricher that poses as the broker, the registry or a worker, with its own certificate."""
    for client in ("kafka", "registry"):
        with Imposter(identities, "enricher-ner") as imposter:
            if client == "kafka":
                options = info.kafka(OPERATOR) | {"bootstrap.servers": imposter.address}
                with pytest.raises(KafkaException):
                    AdminClient(options | {"log_level": 0}).list_topics(timeout=5)
            else:
                settings = replace_url(info, f"https://{imposter.address}")
                with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
                    registry_of(settings, 5).ping()
            wait_until(lambda: imposter.attempts > 0, 10, "it was tried")
            assert imposter.heard == b""
    with Imposter(identities, "worker") as right:
        options = info.kafka(OPERATOR) | {"bootstrap.servers": right.address}
        with pytest.raises(KafkaException):
            AdminClient(options | {"log_level": 0}).list_topics(timeout=5)
        assert right.heard, "with the right name it is talked to: the test can fail"


# -- everybody's rights ----------------------------------------------------------------------


def wanted(service: str, kind: str, operation: str) -> set[str]:
    return {
        grant.name
        for grant in WANTED
        if (grant.principal, grant.kind, grant.operation)
        == (PRINCIPAL_OF[service], kind, operation)
    }


@pytest.mark.parametrize("service", PRINCIPALS)
def test_foreign_topics_are_refused(info: StackInfo, tried: None, service: str) -> None:
    names = {PREFIX + topic for topic in TOPICS}
    assert written(info, service, names) == wanted(service, "topic", "Write") & names
    assert read(info, service, names) == wanted(service, "topic", "Read") & names


@pytest.mark.parametrize("service", PRINCIPALS)
def test_foreign_groups_are_refused(info: StackInfo, tried: None, service: str) -> None:
    """Asked as an administrator would: a consumer waits for a coordinator that it is not told."""
    options: dict[str, Any] = {**info.kafka(service), "log_level": 0}
    admin: Any = AdminClient(options)
    rights = wanted(service, "topic", "Read") or wanted(service, "topic", "Describe")
    topic = min(rights & {PREFIX + topic for topic in TOPICS})
    seen: set[str] = set()
    moved: set[str] = set()
    for group in GROUPS:
        for call, at, let in (
            (admin.list_consumer_group_offsets, TopicPartition(topic, 0), seen),
            (admin.alter_consumer_group_offsets, TopicPartition(topic, 0, 0), moved),
        ):
            asked_of = ConsumerGroupTopicPartitions(group, [at])
            [future] = call([asked_of], request_timeout=CALL_TIMEOUT_S).values()
            if is_let(partial(future.result, CALL_TIMEOUT_S)):
                let.add(group)
    assert seen == wanted(service, "group", "Describe") & set(GROUPS)
    assert moved == wanted(service, "group", "Read") & set(GROUPS)


@pytest.mark.parametrize("service", PRINCIPALS)
def test_foreign_transactional_ids_are_refused(info: StackInfo, tried: None, service: str) -> None:
    let = set()
    for name in IDS:
        slot = "7" if name.endswith("-") else ""
        producer = Producer(info.kafka(service) | {"transactional.id": name + slot, "log_level": 0})
        if is_let(partial(producer.init_transactions, CALL_TIMEOUT_S)):
            let.add(name)
    assert let == wanted(service, "transactionalId", "Write")


def test_services_read_schemas_and_register_none(info: StackInfo, identities: Identities) -> None:
    verify = context_of(identities.ca)
    body = {"schema": '{"type": "string"}'}
    for service in PRINCIPALS:
        login = identities.registry(service)
        with httpx.Client(
            base_url=info.registry_url,
            auth=(login.user, login.password),
            verify=verify,
            timeout=30,
        ) as client:
            assert client.get("/subjects").status_code == 200
            answer = client.post(f"/subjects/tried-{service}/versions", json=body)
            assert answer.status_code == (200 if service == OPERATOR else 403), service


# -- `topics acls` ---------------------------------------------------------------------------


def test_acls_are_checked_and_applied(stack: EmbeddedStack, info: StackInfo) -> None:
    def acls(*words: str, who: str = OPERATOR) -> subprocess.CompletedProcess[str]:
        options = {
            f"REVIEWMESH_KAFKA__{name.upper().replace('.', '_')}": value
            for name, value in info.kafka(who).items()
        }
        environment = options | {"REVIEWMESH_PREFIX": "checked."}
        return run(stack, "topics", "acls", *words, environment=environment)

    nothing = acls("--check")
    assert nothing.returncode == 1
    assert "User:reviewmesh-intake: Write on topic checked.reviews.accepted" in nothing.stdout
    refused = acls("--apply")
    assert refused.returncode == 1
    assert "to grant Alter" in refused.stderr
    applied = acls("--apply", who=ADMIN)
    assert applied.returncode == 0, applied.stderr
    again = acls("--apply", who=ADMIN)
    assert again.stdout.startswith("0 rights granted"), again.stdout
    # The mesh's own topics, and those that are tried, have other prefixes and the same principals.
    beyond = Grant("User:alice", "topic", "checked.reviews.accepted", "literal", "Read")
    ClusterAcls(info.kafka(ADMIN)).add([beyond])
    checked = acls("--check")
    assert checked.returncode == 1
    assert "User:alice: Read on topic checked.reviews.accepted" in checked.stdout
    assert "missing " not in checked.stdout


def test_the_mesh_did_without_what_it_was_refused(stack: EmbeddedStack, info: StackInfo) -> None:
    """Last: nothing that the services did on their own topics was denied once they had rights.

    Before `up` has granted them, the lag service and the console are refused: they ask before their
    topics are there.
    """
    refusals = DENIED.findall(stack.paths.log_of("broker").read_text())
    assert refusals
    of_mesh = {
        principal
        for principal, name in refusals
        if not name.startswith((PREFIX, "checked.")) and name != CLUSTER
    }
    assert of_mesh & set(PRINCIPAL_OF.values()) <= {PRINCIPAL_OF["lag"], PRINCIPAL_OF["console"]}
    for log in stack.paths.logs.glob("*.log"):
        if log.name != "broker.log":
            assert "AUTHORIZATION_FAILED" not in log.read_text(), log.name


# -- how it is tried -------------------------------------------------------------------------


class Imposter:
    """A TLS server with the certificate of somebody, which keeps what it is told."""

    def __init__(self, identities: Identities, name: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identities.certificate(name), identities.key(name))
        self._listener = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        self.attempts = 0
        self.heard = b""

    def __enter__(self) -> Imposter:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.attempts += 1
            try:
                with self._context.wrap_socket(connection, server_side=True) as client:
                    self.heard += client.recv(1000)
            except OSError:
                continue


def replace_url(info: StackInfo, url: str) -> Any:
    return info.registry().model_copy(update={"url": url})


def context_of(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))


def worker_address(info: StackInfo) -> str:
    return f"{HOST}:{info.ports['worker.grpc']}"


def code_of(channel: grpc.Channel) -> grpc.StatusCode:
    try:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def controller(info: StackInfo, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection((HOST, info.ports["broker.controller"]), 10)
    plain.settimeout(10)
    return context.wrap_socket(plain, server_hostname=HOST)


def describe_acls() -> bytes:
    """A request of Kafka's protocol: every access control, version 1 of API 29."""
    body = struct.pack(">hhih", 29, 1, 7, -1) + struct.pack(">bhbhhbb", 1, -1, 1, -1, -1, 1, 1)
    return struct.pack(">i", len(body)) + body


def received(connection: socket.socket) -> bytes:
    """Empty when the other side hangs up."""
    try:
        return connection.recv(1000)
    except OSError:
        return b""


def asked(connection: ssl.SSLSocket) -> int | None:
    """Kafka's error code; None where it hangs up. With TLS 1.3 it does so after the handshake."""
    try:
        connection.sendall(describe_acls())
    except OSError:
        return None
    answer = received(connection)
    # Size, correlation id, throttle time.
    return struct.unpack_from(">h", answer, 12)[0] if len(answer) >= ANSWER_BYTES else None


def consumer_of(info: StackInfo, service: str) -> Any:
    options = {
        "group.id": f"{PREFIX}reviewmesh-reader",
        "enable.auto.commit": "false",
        "enable.partition.eof": "true",
        "log_level": 0,
    }
    return Consumer(info.kafka(service) | options)


def is_let(call: Callable[[], Any]) -> bool:
    """Whether it is done; anything but a refusal is raised."""
    try:
        answer = call()
    except KafkaException as error:
        if error.args[0].code() in NO_ACCESS:
            return False
        raise
    # Refusals of a group's offsets are told with each partition.
    errors = [at.error for at in getattr(answer, "topic_partitions", ()) if at.error is not None]
    assert all(error.code() in NO_ACCESS for error in errors), errors
    return not errors


def written(info: StackInfo, service: str, names: set[str]) -> set[str]:
    """The topics to which it can write."""
    outcomes: dict[str, Any] = {}

    def delivered(error: Any, message: Any) -> None:
        outcomes[message.topic()] = error

    producer = Producer(
        info.kafka(service) | {"log_level": 0, "message.timeout.ms": 60_000, "acks": "all"}
    )
    for name in names:
        producer.produce(
            name,
            b"tried",
            # Compacted topics want one.
            b"key",
            partition=0,
            on_delivery=delivered,
        )
    assert producer.flush(90) == 0
    errors = {error.code() for error in outcomes.values() if error is not None}
    assert errors <= NO_ACCESS, outcomes
    return {name for name, error in outcomes.items() if error is None}


def read(info: StackInfo, service: str, names: set[str]) -> set[str]:
    """The topics that it can read: to the end of a partition."""
    let: set[str] = set()
    with closing(consumer_of(info, service)) as consumer:
        refused = {name for name in names if is_hidden(consumer, name)}
        consumer.assign([TopicPartition(name, 0, OFFSET_BEGINNING) for name in names - refused])
        deadline = time.monotonic() + 90
        while let | refused != names and time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None:
                continue
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                let.add(message.topic())
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                refused.add(message.topic())
    assert let | refused == names
    assert not let & refused
    return let


def is_hidden(consumer: Any, name: str) -> bool:
    """Whether it is not even told that the topic is there."""
    error = consumer.list_topics(name, timeout=CALL_TIMEOUT_S).topics[name].error
    return error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
