"""The embedded engine: one small int8 encoder, every task read from the same pass."""
