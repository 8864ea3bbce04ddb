"""A base in Hugging Face form, made of a GGUF file: what llama.cpp runs, for training and vLLM."""
