"""The tasks by their names on the wire: `task` of a call, and part of the mesh's topic names."""

from __future__ import annotations

from typing import Final

NER: Final = "ner"
TOPIC: Final = "topic"
SENTIMENT: Final = "sentiment"
TASKS: Final = (NER, TOPIC, SENTIMENT)
