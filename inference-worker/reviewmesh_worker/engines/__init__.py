"""Engines turn texts into task outputs; `interface` is all that the server knows of them."""
