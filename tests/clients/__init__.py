"""Programs as other people write them, in Java, Node and Python, and what runs them.

`docs/clients.md` shows parts of these programs; the tests run them on a mesh.
"""
