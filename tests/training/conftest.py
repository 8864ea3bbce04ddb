"""Tests that need torch.

They belong to the models' environment, which is not the mesh's: `make test-vllm` runs them there;
elsewhere there is nothing here to run.
"""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]
