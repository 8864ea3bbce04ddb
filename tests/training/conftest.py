"""Tests that need torch.

They belong to the models' environment, which is not the mesh's: `make test-vllm` runs them there;
elsewhere there is nothing here to run.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]

# Threads that spin while they wait for each other slow tiny models down several times over, on a
# machine that has other work. Read when torch is first imported, here and in what is started.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
