"""How an enriched review looks on one line of a terminal."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from reviewmesh.cli.terminal import shortened
from reviewmesh.query.values import failed_tasks
from reviewmesh_kit.printable import plain

MOOD_STYLES = {"positive": "green", "negative": "red", "mixed": "yellow"}


def enriched_line(record: dict[str, Any]) -> Text:
    """One enriched review in one line: mood, topics, entities, the beginning of its text."""
    mood = plain(record["sentiment"]["label"]) if record["sentiment"] else "-"
    line = Text(f"{mood:<9}", style=MOOD_STYLES.get(mood, ""))
    line.append(shortened(record["text"] or ""), style="default")
    for topic in record["topics"]:
        line.append(f"  #{plain(topic['id'].rpartition('.')[2])}", style="cyan")
    for entity in record["entities"]:
        found = f"{shortened(entity['text'], 24)}/{plain(entity['label'])}"
        line.append(f"  {found}", style="magenta")
    if not record["complete"]:
        line.append("  incomplete: " + plain(", ".join(failed_tasks(record))), style="red")
    return line
