"""Tests that need torch.

They belong to the training environment (requirements/models.txt, pytest beside it), which is not
the mesh's: there `python -m pytest --noconftest tests/training` runs them; elsewhere there is
nothing here to run.
"""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]
