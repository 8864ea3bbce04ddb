"""Headers whose names are not UTF-8, which confluent-kafka's own producer does not write."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka

PRODUCER = 0
TOPIC, VALUE, KEY, PARTITION, HEADERS, END = 1, 4, 5, 3, 10, 0


def produce(
    bootstrap_servers: str, topic: str, partition: int, key: bytes, value: bytes, header: bytes
) -> None:
    """One record with a header of that name, through the same librdkafka."""
    kafka = _librdkafka()
    conf = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    error = ctypes.create_string_buffer(512)
    for name, setting in ((b"bootstrap.servers", bootstrap_servers.encode()),):
        assert kafka.rd_kafka_conf_set(conf, name, setting, error, len(error)) == 0, error.value
    producer = ctypes.c_void_p(kafka.rd_kafka_new(PRODUCER, conf, error, len(error)))
    assert producer, error.value
    headers = ctypes.c_void_p(kafka.rd_kafka_headers_new(1))
    kafka.rd_kafka_header_add(
        headers, header, ctypes.c_ssize_t(len(header)), b"x", ctypes.c_ssize_t(1)
    )
    failed = kafka.rd_kafka_producev(
        producer,
        TOPIC, topic.encode(),
        PARTITION, ctypes.c_int32(partition),
        VALUE, value, ctypes.c_size_t(len(value)),
        KEY, key, ctypes.c_size_t(len(key)),
        HEADERS, headers,
        END,
    )  # fmt: skip
    assert failed == 0, failed
    assert kafka.rd_kafka_flush(producer, 15_000) == 0
    kafka.rd_kafka_destroy(producer)


def _librdkafka() -> ctypes.CDLL:
    """The library that confluent-kafka brings, or is linked with."""
    beside = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    bundled = sorted(beside.glob("librdkafka*.so*"))
    library = ctypes.CDLL(str(bundled[0]) if bundled else "librdkafka.so.1")
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(library, name).restype = ctypes.c_void_p
    return library
