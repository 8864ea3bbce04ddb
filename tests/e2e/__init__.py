"""The whole mesh as a user meets it."""
