"""Tasks as data: what a worker is asked, which answers it may give, and how answers are read.

A task is a folder: `task.yaml` (version, labels, kind of answer), `prompt.txt`, `golden.jsonl`. One
definition serves training, evaluation and serving. `definition` reads the folder, `prompt` writes
what a model is shown, `answers` is the form of what it says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

NER: Final = "ner"
TOPIC: Final = "topic"
SENTIMENT: Final = "sentiment"
TASKS: Final = (NER, TOPIC, SENTIMENT)

BUNDLED_TASKS: Final = Path(__file__).parent / "bundled"
"""The tasks that come with the project, a folder each."""
