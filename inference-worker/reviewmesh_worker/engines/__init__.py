"""Engines turn texts into task outputs; `interface` is what a server needs to know of them."""
