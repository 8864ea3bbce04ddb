"""Kafka's own side: client options, records, what a log holds and where it ends, transactions."""
