"""What a package is worth, through the engine that serves it, and whether it may serve.

`run` asks about labelled rows, hostile texts and golden rows (`asking`, `attack`, `golden`),
`measures` and `scores` count, `bootstrap` says how sure a score is, `report` is what is found, as a
file, a page (`page`) and tables (`table`). `gate` holds a report against rules, `compare` holds two
packages against each other.
"""
