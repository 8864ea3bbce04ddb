"""Labels from teachers: ask several models, weigh what they say, let people decide the rest.

`teachers` reads who is asked, `store` keeps what they said and what it cost, `live`, `batches` and
`local` ask. `consensus` weighs the answers, `agreement` measures how far they agree, and
`adjudication` is the part of a person. `results` writes rows that `reviewmesh-models train` learns
from.
"""
