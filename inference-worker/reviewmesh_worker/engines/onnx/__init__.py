"""The embedded engine: one small int8 encoder that answers every task in one forward pass."""
