"""The process that serves: gRPC server, packages in service, admission, health, settings."""
