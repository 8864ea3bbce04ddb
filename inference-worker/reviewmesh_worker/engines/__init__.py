"""Engines: what turns texts into task outputs; `interface` is what the server knows of them."""
