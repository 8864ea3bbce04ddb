"""The encoder with a head per task: rows in, the model that `onnx` and `vllm` serve out.

`dataset` makes examples of rows, `loop` trains the network, `calibration` fits what is decided
afterwards, `export` writes the int8 model.
"""
