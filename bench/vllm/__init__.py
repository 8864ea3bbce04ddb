"""The gRPC worker on vLLM against vLLM alone: what the way through the worker costs."""
