"""What every process of the project is built with, services and workers alike: settings from the
environment, logs, HTTP endpoints, exit codes. It knows nothing of Kafka and nothing of models."""
