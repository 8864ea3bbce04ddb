"""What the engines share that serve an encoder: tokens in, and decoding of the heads' logits.

`onnx` and `vllm` run the same network; everything before and after it is here.
"""
