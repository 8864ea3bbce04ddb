"""`python -m reviewmesh_worker`: serves a package, or what a registry's aliases name."""

from __future__ import annotations

import asyncio
import os
import sys

from pydantic import ValidationError
from pydantic_settings import SettingsError

from reviewmesh_kit import logs
from reviewmesh_kit.certificates import CertificateProblem
from reviewmesh_kit.exit_codes import DONE, FAILED, USAGE
from reviewmesh_kit.settings import problems
from reviewmesh_worker.engines.factory import open_engine
from reviewmesh_worker.engines.interface import EngineDead, EngineLoadError
from reviewmesh_worker.serving.deployment import Deployment
from reviewmesh_worker.serving.package_selection import selection_of
from reviewmesh_worker.serving.server import serve
from reviewmesh_worker.serving.settings import Settings


def main() -> int:
    """Returns 0 after a drain, 1 when nothing can be served, 2 on a wrong setting."""
    try:
        settings = Settings()
    except (ValidationError, SettingsError) as error:
        print("\n".join(problems(error)), file=sys.stderr)
        return USAGE
    log = logs.configure(settings.log, "worker")
    try:
        deployment = Deployment(
            selection_of(settings),
            lambda package, tasks: open_engine(package, tasks, settings.engines),
            log,
            drain=settings.worker.swap == "drain",
            grace_s=settings.worker.grace_s,
        )
    except EngineLoadError as error:
        log.error("cannot serve", reason=str(error))
        return FAILED
    code = DONE
    try:
        asyncio.run(serve(deployment, settings, log))
    except EngineDead as error:
        log.error("cannot serve", reason=str(error))
        deployment.stuck = True
    except (CertificateProblem, EngineLoadError, OSError, RuntimeError) as error:
        log.error("cannot serve", reason=str(error))
        code = FAILED
    if deployment.stuck:
        # A thread of its engine may never return, and would keep the process for ever.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(FAILED)
    return code


if __name__ == "__main__":
    sys.exit(main())
