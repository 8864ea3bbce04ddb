"""Pure tests."""
