"""The page with its real templates, over a mesh that does not answer, for what is given to it."""

from __future__ import annotations

import html.parser
from pathlib import Path
from typing import Any, TypeVar

import structlog
from starlette.testclient import TestClient

from reviewmesh.console.alerts import Alerts
from reviewmesh.console.audit import Audit
from reviewmesh.console.budgets import kept_spending
from reviewmesh.console.campaigns import kept_campaigns
from reviewmesh.console.indexing import Indexing
from reviewmesh.console.kept import KeptReading
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.packages import kept_registry
from reviewmesh.console.pages import Screens, application
from reviewmesh.console.places import PlaceIndex
from reviewmesh.console.processes import Processes
from reviewmesh.console.redriving import Redriving
from reviewmesh.console.rendering import Rendering
from reviewmesh.console.reviews import Searching
from reviewmesh.console.rollouts import kept_rollouts
from reviewmesh.console.signin import sign_in_of
from reviewmesh.console.story import Storyteller
from reviewmesh.console.tails import Tails
from reviewmesh.console.watch import Watch
from reviewmesh.settings import KafkaSettings, Settings

LOG: Any = structlog.get_logger()
# Nothing listens there.
NOBODY = "127.0.0.1:9"

T = TypeVar("T")


def screens_of(settings: Settings, folder: Path, **given: Any) -> Screens:
    """`given`: fields of Screens."""
    mesh, index = Mesh(settings), PlaceIndex(folder)
    watch = Watch(settings, Processes({}), LOG)
    fields: dict[str, Any] = {
        "mesh": mesh,
        "watch": watch,
        "alerts": Alerts(watch, LOG),
        "index": index,
        "indexing": Indexing(mesh, index, LOG),
        "stories": Storyteller(mesh, index),
        "tails": Tails(mesh),
        "redriving": Redriving(mesh),
        "searching": Searching(mesh),
        "rollouts": kept_rollouts(mesh, LOG),
        "campaigns": kept_campaigns(mesh, LOG),
        "budgets": kept_spending(mesh, LOG),
        "registry": kept_registry(None, LOG),
    }
    return Screens(**(fields | given))


def page(folder: Path, **given: Any) -> TestClient:
    """`given`: fields of Screens."""
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=NOBODY))
    rendering = Rendering(settings.console)
    sign_in = sign_in_of(settings, rendering, LOG)
    screens = screens_of(settings, folder, **given)
    app = application(screens, rendering, sign_in, Audit(LOG), settings.console.url)
    return TestClient(app, base_url="http://localhost")


def kept(value: T) -> KeptReading[T]:
    """As if it was read from the topics."""
    return KeptReading(lambda: value, LOG)


def text_of(page: str) -> str:
    """What people read, in one line."""
    reader = _Text()
    reader.feed(page)
    return " ".join(" ".join(reader.found).split())


class _Text(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)
