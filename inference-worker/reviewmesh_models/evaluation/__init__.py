"""How good a package is, measured through the engine that serves it, and whether it may serve.

`run` evaluates labelled rows, hostile texts and golden rows (`predictions`, `attack`, `golden`),
`measures` and `scores` compute the scores, `bootstrap` their intervals. `report` is the result as a
file; `page` and `table` show it. `gate` checks a report against rules, `promotion` is that check in
the form that a registry takes, `compare` compares two packages.
"""
