"""Training: a config and labelled rows in, a package out. Needs the extra `training`.

`config` is the schema of every training, `rows` reads and checks the data, `train` is the whole of
it; `encoder` and `causal` are the two kinds of models, `fitting` fits what is decided afterwards.
"""
