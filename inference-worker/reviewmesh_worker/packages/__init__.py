"""Model packages: a folder with weights and a manifest, and the registry that says which serves.

`manifest` writes, reads and verifies a package, `registry` keeps packages and the aliases of each
task: serving, candidate and previous. `provider` is for models that a provider runs, which have no
folder.
"""
