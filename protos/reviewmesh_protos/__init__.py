"""The gRPC contract between mesh and workers, with the code generated from it."""
