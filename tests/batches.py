"""Batches that no client of ours writes: made by hand, compressed as they grow, and produced."""

from __future__ import annotations

import gzip
import io
import socket
import struct
import time
from collections.abc import Iterable

GZIP, ZSTD = 1, 4
CHUNK = 1 << 20
TIMEOUT_S = 60


def zeros(sizes: Iterable[int]) -> tuple[bytes, int]:
    """Records whose values are so many zeros, gzipped, and their number. Little memory is used."""
    out, count = io.BytesIO(), 0
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as packed:
        for size in sizes:
            head = b"\0" + _varint(0) + _varint(count) + _varint(-1) + _varint(size)
            packed.write(_varint(len(head) + size + 1) + head)
            for start in range(0, size, CHUNK):
                packed.write(bytes(min(CHUNK, size - start)))
            packed.write(_varint(0))
            count += 1
    return out.getvalue(), count


def produce(
    servers: str, topic: str, partition: int, payload: bytes, count: int, codec: int = GZIP
) -> int:
    """Write one batch of compressed records; gives its first offset."""
    now = int(time.time() * 1000)
    body = struct.pack(">hiqqqhii", codec, count - 1, now, now, -1, -1, -1, count) + payload
    batch = struct.pack(">qiibI", 0, len(body) + 9, -1, 2, _crc32c(body)) + body
    name = topic.encode()
    request = (
        struct.pack(">hhih4s", 0, 7, 1, 4, b"test")
        + struct.pack(">hhi", -1, -1, TIMEOUT_S * 1000)
        + struct.pack(f">ih{len(name)}sii", 1, len(name), name, 1, partition)
        + struct.pack(">i", len(batch))
        + batch
    )
    host, _, port = servers.split(",")[0].rpartition(":")
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        [size] = struct.unpack(">i", answer.read(4))
        # Behind the correlation id, one topic's name and one partition's number.
        found = answer.read(size)[4 + 4 + 2 + len(name) + 4 + 4 :]
    error, first = struct.unpack_from(">hq", found)
    assert error == 0, f"the broker refuses the batch: error {error}"
    return int(first)


def _varint(number: int) -> bytes:
    rest, out = (number << 1) ^ (number >> 63), bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
