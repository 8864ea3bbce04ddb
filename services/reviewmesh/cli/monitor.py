"""`reviewmesh monitor`: Prometheus and Alertmanager over the embedded mesh."""

from __future__ import annotations

import time

import typer

from reviewmesh.cli.interrupting import interrupted_by_sigterm
from reviewmesh.cli.terminal import err
from reviewmesh.local.monitoring import ALERTMANAGER, PROMETHEUS, monitoring
from reviewmesh.local.paths import default_state_dir
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh_kit.exit_codes import FAILED

CHECK_EVERY_S = 1.0


def monitor() -> None:
    """Run Prometheus and Alertmanager over the mesh of this state folder, until Ctrl-C.

    They must be installed, as Debian's prometheus and prometheus-alertmanager. They get the rules
    and alerts of this project, listen on loopback, and keep what they know between runs.
    """
    stack = EmbeddedStack(default_state_dir())
    info = stack.info()
    if info is None:
        err.print(f"no mesh runs from {stack.paths.state_dir}")
        raise typer.Exit(FAILED)
    try:
        with interrupted_by_sigterm(), monitoring(stack.paths, info.ports) as servers:
            err.print(f"prometheus   {servers.url(PROMETHEUS)}")
            err.print(f"alerts       {servers.url(PROMETHEUS)}/alerts")
            err.print(f"alertmanager {servers.url(ALERTMANAGER)}")
            err.print(f"state        {stack.paths.monitoring_dir}")
            while True:
                time.sleep(CHECK_EVERY_S)
                servers.check()
                # A mesh that is down stays a target: that is what alerts are for.
                if (now := stack.info()) is not None:
                    servers.follow(now.ports)
    except KeyboardInterrupt:
        err.print("stopped; what they know is kept")
