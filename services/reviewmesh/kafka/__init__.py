"""Kafka clients: options, records, offsets, reading partitions, transactions."""
