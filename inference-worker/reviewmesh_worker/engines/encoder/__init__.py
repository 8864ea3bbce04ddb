"""What the engines for encoders share: tokenizing, and decoding of the heads' logits.

`onnx` and `vllm` run the same network; everything before and after it is here.
"""
