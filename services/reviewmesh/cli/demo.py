"""`reviewmesh demo`: runs the whole mesh on sample reviews and prints a summary."""

from __future__ import annotations

import io
import json
import time
import uuid
from importlib import resources
from typing import Annotated

import typer

from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.interrupting import interrupted_by_sigterm
from reviewmesh.cli.publishing import Publishing
from reviewmesh.cli.render import enriched_line
from reviewmesh.cli.sources.reading import Options, Source
from reviewmesh.cli.stack import start_with_progress
from reviewmesh.cli.summary import closing_table
from reviewmesh.cli.tail import decoded_records
from reviewmesh.cli.terminal import err, out
from reviewmesh.local.paths import default_state_dir
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.query.connection import Connection, connect_embedded
from reviewmesh.query.reading import EndReached, Reader, offsets, partitions_of, reader
from reviewmesh.query.reconciliation import Reconciliation
from reviewmesh_schemas.names import ENRICHED

DEADLINE_S = 240.0
PROGRESS_EVERY_S = 0.5


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End when every review is accounted for.")
    ] = False,
    secure: Annotated[
        bool | None,
        typer.Option("--secure/--no-secure", help="As of `up`; of a mesh that runs, as it is."),
    ] = None,
) -> None:
    """Run the mesh on sample reviews: start it, publish, show what comes out, add it up."""
    began = time.monotonic()
    stack = EmbeddedStack(default_state_dir())
    with interrupted_by_sigterm():
        info = stack.info()
        started_here = info is None
        if not started_here:
            err.print(f"the mesh in {stack.paths.state_dir} runs: the sample reviews go into it")
        try:
            info = info or start_with_progress(stack, secure=secure)
            connection = connect_embedded(info)
            _run_samples(connection, began)
            if not once:
                _stay(connection, info.console_url)
        except KeyboardInterrupt:
            err.print("interrupted")
            if once:
                raise typer.Exit(1) from None
        finally:
            if started_here:
                err.print("stopping the mesh; its data stays")
                stack.down()


def sample_lines() -> list[str]:
    """The sample reviews, with ids of this run, so that a second run has no duplicates."""
    text = resources.files("reviewmesh.local").joinpath("samples/reviews.jsonl").read_text("utf-8")
    run = uuid.uuid4().hex[:8]
    reviews = [json.loads(line) for line in text.split("\n") if line]
    return [
        json.dumps(review | {"review_id": f"{review['review_id']}.{run}"}) for review in reviews
    ]


def _run_samples(connection: Connection, began: float) -> None:
    watched = partitions_of(connection, *Reconciliation.TOPICS)
    reconciliation = Reconciliation(connection)
    with reader(connection) as opened:
        opened.assign(offsets(connection, watched))
        lines = sample_lines()
        places: list[tuple[int, int]] = []
        source = Source(io.BytesIO("\n".join(lines).encode()), Options())
        publishing = Publishing(on_place=places.append)
        publishing.publish(source, connection)
        if publishing.published < len(lines):
            raise CommandFailed(
                f"{publishing.published} of {len(lines)} samples were published: "
                f"{publishing.failure or 'the others are no reviews'}"
            )
        out.print(f"{len(lines)} reviews published; what comes out:")
        reconciliation.expect(places)
        _watch(opened, reconciliation, began)
    out.print(closing_table(reconciliation))


def _watch(opened: Reader, reconciliation: Reconciliation, began: float) -> None:
    """Print enriched reviews until all are accounted for."""
    deadline = time.monotonic() + DEADLINE_S
    checked, first = time.monotonic(), True
    while not reconciliation.is_settled():
        for item in opened.poll():
            if isinstance(item, EndReached):
                reconciliation.reached(item)
                continue
            enriched = reconciliation.take(item)
            if enriched is None:
                continue
            if first:
                first = False
                out.print(
                    f"first enriched review {time.monotonic() - began:.1f} s after the start",
                    style="bold",
                )
            out.print(enriched_line(enriched))
        if time.monotonic() - checked > PROGRESS_EVERY_S:
            reconciliation.look_for_duplicates()
            checked = time.monotonic()
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"after {DEADLINE_S:g} s {reconciliation.words()}; see `reviewmesh ps` and the "
                f"logs in {default_state_dir().absolute() / 'logs'}"
            )


def _stay(connection: Connection, console_url: str) -> None:
    """Show what else is published, until Ctrl-C."""
    out.print(
        f"\nthe mesh stays up; its console is {console_url}\nin another terminal try "
        "`reviewmesh publish -`, `reviewmesh lag` or `reviewmesh ps`; Ctrl-C stops it",
    )
    for _record, enriched in decoded_records(connection, ENRICHED, False, None):
        out.print(enriched_line(enriched))
