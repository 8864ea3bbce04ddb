"""Engines turn texts into task outputs; `interface` is all that the server needs to know of them."""
