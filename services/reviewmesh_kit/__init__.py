"""Shared by services and workers: settings from the environment, logs, HTTP endpoints, exit codes.
Independent of Kafka and of models."""
