"""Fine-tuning of the embedded encoder: labelled rows in, a served model folder out.

`dataset` reads rows, `network` is the encoder with its heads, `loop` trains it, `calibration` fits
what is decided after training, `export` writes the int8 model. Needs the extra `training`.
"""
