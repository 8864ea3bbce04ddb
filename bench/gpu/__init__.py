"""What a GPU does with Gemma-2 9B: vLLM alone against the gRPC worker, in tokens and reviews."""
