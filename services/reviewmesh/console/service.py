"""The console as a process: the watch, the index, and the page in a thread of its own."""

from __future__ import annotations

import sqlite3
import threading
import time
from types import FrameType

import structlog
import uvicorn

from reviewmesh.console.alerts import Alerts
from reviewmesh.console.audit import Audit
from reviewmesh.console.budgets import kept_spending
from reviewmesh.console.campaigns import kept_campaigns
from reviewmesh.console.indexing import Indexing
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.packages import kept_registry
from reviewmesh.console.pages import Screens, application
from reviewmesh.console.places import PlaceIndex
from reviewmesh.console.processes import Processes, addresses_of
from reviewmesh.console.redriving import Redriving
from reviewmesh.console.rendering import Rendering
from reviewmesh.console.reviews import Searching
from reviewmesh.console.rollouts import kept_rollouts
from reviewmesh.console.signin import sign_in_of
from reviewmesh.console.story import Storyteller
from reviewmesh.console.tails import Tails
from reviewmesh.console.watch import Watch
from reviewmesh.settings import Settings, WrongSetting
from reviewmesh_kit.settings import variable

LOOK_S = 0.5
# Streams of pages that stay open are ended.
CLOSE_WITHIN_S = 5
CONNECTIONS_AT_MOST = 200


class ConsoleService:
    """Runs until it is stopped. It serves pages also while the broker is away, and says so."""

    def __init__(self, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
        """Raises WrongSetting."""
        rendering = Rendering(settings.console)
        sign_in = sign_in_of(settings, rendering, log)
        self._log = log
        self._stop = threading.Event()
        self.heartbeat = time.monotonic()
        self.waiting_for = "the page is not served yet"
        try:
            index = PlaceIndex(settings.console.folder)
        except (OSError, sqlite3.Error) as error:
            raise WrongSetting(
                f"{variable('console', 'folder')}: expected a folder that can be written, got "
                f"{settings.console.folder}: {error}"
            ) from error
        mesh = Mesh(settings)
        self._index = index
        self._processes = Processes(addresses_of(settings.console.processes))
        self._watch = Watch(settings, self._processes, log)
        self._alerts = Alerts(self._watch, log)
        self._indexing = Indexing(mesh, index, log)
        self._stories = Storyteller(mesh, index)
        screens = Screens(
            mesh=mesh,
            watch=self._watch,
            alerts=self._alerts,
            index=index,
            indexing=self._indexing,
            stories=self._stories,
            tails=Tails(mesh),
            redriving=Redriving(mesh),
            searching=Searching(mesh),
            rollouts=kept_rollouts(mesh, log),
            campaigns=kept_campaigns(mesh, log),
            budgets=kept_spending(mesh, log),
            registry=kept_registry(settings.console.model_registry, log),
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                application(screens, rendering, sign_in, Audit(log), settings.console.url),
                host=settings.console.host,
                port=settings.console.port,
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=CONNECTIONS_AT_MOST,
                timeout_graceful_shutdown=CLOSE_WITHIN_S,
            )
        )

    @property
    def held_up_by(self) -> str:
        """Not its own work: the page shows it."""
        return ""

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self._stop.set()

    def close(self) -> None:
        self._processes.close()
        self._index.close()

    def run(self) -> None:
        """Returns after a stop. Raises RuntimeError when the page cannot be served."""
        self._watch.start()
        self._alerts.start()
        self._indexing.start()
        page = threading.Thread(target=self._server.run, name="page", daemon=True)
        page.start()
        try:
            while not self._stop.wait(LOOK_S):
                self.heartbeat = time.monotonic()
                if not page.is_alive():
                    raise RuntimeError(
                        "the page cannot be served; is the port of "
                        f"{variable('console', 'port')} taken?"
                    )
                if self._server.started and self.waiting_for:
                    self.waiting_for = ""
                    self._log.info("serves the page", url=f"http://{self._address()}")
        finally:
            self._watch.stop()
            self._alerts.stop()
            self._server.should_exit = True
            page.join(CLOSE_WITHIN_S + 5)
            self._indexing.stop()
            self._stories.close()
            self.close()

    def _address(self) -> str:
        host, port = self._server.servers[0].sockets[0].getsockname()[:2]
        return f"{host}:{port}"
