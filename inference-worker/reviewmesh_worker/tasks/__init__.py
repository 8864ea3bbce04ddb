"""Tasks as data: prompts, labels, and how the model's outputs are parsed.

A task is a folder: `task.yaml` (version, labels, kind of answer), `prompt.txt`, `golden.jsonl`. One
definition serves training, evaluation and serving. `definition` reads the folder, `instructions`
and `chat` render prompts, `answers` defines the structured output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from reviewmesh_protos.tasks import NER as NER
from reviewmesh_protos.tasks import SENTIMENT as SENTIMENT
from reviewmesh_protos.tasks import TASKS as TASKS
from reviewmesh_protos.tasks import TOPIC as TOPIC

BUNDLED_TASKS: Final = Path(__file__).parent / "bundled"
"""The tasks that come with the project, a folder each."""
