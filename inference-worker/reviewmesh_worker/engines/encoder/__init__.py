"""The bundled encoder, whatever runs it: what it reads, what its heads say, how that is judged.

`onnx` and `vllm` compute the same network; everything before and after it is shared here.
"""
