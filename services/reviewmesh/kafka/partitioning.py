"""Java's default partitioner, which librdkafka's default is not: murmur2 of the key."""

from __future__ import annotations

MASK = 0xFFFFFFFF
SEED = 0x9747B28C
M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """MurmurHash2 as in org.apache.kafka.common.utils.Utils.murmur2, unsigned."""
    length = len(data)
    h = (SEED ^ length) & MASK
    tail = length & ~3
    for index in range(0, tail, 4):
        k = int.from_bytes(data[index : index + 4], "little") * M & MASK
        k = (k ^ k >> 24) * M & MASK
        h = (h * M & MASK) ^ k
    if length & 3:
        h = (h ^ int.from_bytes(data[tail:], "little")) * M & MASK
    h = (h ^ h >> 13) * M & MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Java's producer picks for `key`."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
