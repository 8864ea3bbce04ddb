"""What every service of the mesh is made of: loop, ledger, transactions, codecs, settings."""
