"""The documentation: its blocks, commands and links, and its pages pasted into a fresh clone."""
