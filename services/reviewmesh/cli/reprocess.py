"""`reviewmesh reprocess`: answers of one task done again, seen and steered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from reviewmesh.cli.completing import among
from reviewmesh.cli.conditions import condition_of
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.tables import Column, FittingTable, right
from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.query.campaigns import (
    ChosenReviews,
    Status,
    begin,
    campaign_named,
    campaigns,
    choose_reviews,
    statuses,
    unfinished,
)
from reviewmesh.query.connection import connect
from reviewmesh.query.steering import (
    CANCEL,
    PAUSE,
    RESUME,
    refuse_beside_others,
    send_rest,
    steer,
)
from reviewmesh.query.values import iso
from reviewmesh.query.where.matching import matcher
from reviewmesh_kit.printable import plain
from reviewmesh_schemas.names import TASKS

app = typer.Typer(help="Do answers of one task again, found by their lineage.")

Name = Annotated[str, typer.Argument(metavar="CAMPAIGN", show_default=False)]


@app.callback(invoke_without_command=True)
def reprocess(
    context: typer.Context,
    task: Annotated[
        str, typer.Option(help=f"The task: {', '.join(TASKS)}.", autocompletion=among(TASKS))
    ] = "",
    where: Annotated[
        str, typer.Option(help="Which answers, such as 'model_version < 3 and language = \"da\"'.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done again.")
    ] = False,
) -> None:
    """Send the answers that match to the task's workers again; the reviews come out once more."""
    if context.invoked_subcommand is not None:
        return
    if task not in TASKS or not where:
        raise typer.BadParameter(
            f"expected --task, one of {', '.join(TASKS)}, and --where; see docs/reprocess.md"
        )
    condition = condition_of(where, task)
    matches = matcher(condition)
    connection = connect()
    if not dry_run and (other := unfinished(connection, task)) is not None:
        raise CommandFailed(
            f"campaign {other.id} of the same task is not over: wait for it, or cancel it with "
            f"`reviewmesh reprocess cancel {other.id}`"
        )
    if not dry_run:
        refuse_beside_others(connection, task)
    chosen = choose_reviews(connection, task, matches)
    err.print(_described(chosen))
    if dry_run or not len(chosen):
        return
    # Its name first: who is interrupted while requests are sent needs it for `resume`.
    campaign = begin(connection, task, str(condition), chosen, lambda begun: out.print(begun.id))
    err.print(f"see `reviewmesh reprocess status {campaign.id}`")


@app.command("status")
def status_(
    name: Annotated[str | None, typer.Argument(metavar="[CAMPAIGN]", show_default=False)] = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a campaign.")] = False,
) -> None:
    """How far a campaign came; without a name, each that is remembered."""
    connection = connect()
    chosen = [campaign_named(connection, name)] if name else campaigns(connection)
    found = statuses(connection, chosen)
    if as_lines:
        for item in found:
            print(json_text(_as_json(item)))
        return
    out.print(table_of(found) if found else "no campaigns")


def table_of(found: Sequence[Status]) -> FittingTable:
    table = FittingTable(
        *(Column("campaign", wraps=True), "state"),
        *right("requests", "sent", "answered", "published", "dropped"),
    )
    for item in found:
        counts = (item.campaign.requests, item.sent, item.answered, item.published, item.dropped)
        table.add_row(plain(item.campaign.id), item.state, *map(str, counts))
    return table


@app.command()
def pause(name: Name) -> None:
    """Stop after what is with the workers now."""
    _steer(name, PAUSE)


@app.command()
def resume(name: Name) -> None:
    """Go on with a paused campaign, and send what an interrupted `reprocess` left unsent."""
    connection = connect()
    campaign = steer(connection, name, RESUME)
    sent = send_rest(connection, campaign)
    err.print(f"{name}: {campaign.state.lower()}, {sent} requests sent that were missing")


@app.command()
def cancel(name: Name) -> None:
    """End a campaign; what came out of it stays."""
    _steer(name, CANCEL)


def _steer(name: str, command: str) -> None:
    campaign = steer(connect(), name, command)
    err.print(f"{name}: {campaign.state.lower()}")


def _described(chosen: ChosenReviews) -> str:
    words = f"{len(chosen):,} of {chosen.read:,} reviews match"
    if chosen.oldest_ms is not None:
        words += f"; the oldest that is kept was published {iso(chosen.oldest_ms)}"
    if chosen.inference_ms:
        words += (
            f"; their answers took {chosen.inference_ms / 1000:,.0f} s of inference in all the "
            f"last time, {chosen.inference_ms / len(chosen):,.0f} ms each"
        )
    if chosen.cost_micros is not None:
        words += f", and cost {chosen.cost_micros / 1e6:,.2f}"
    return words


def _as_json(item: Status) -> dict[str, object]:
    campaign = item.campaign
    return {
        "campaign": campaign.id,
        "task": campaign.task,
        "where": campaign.where,
        "state": item.state,
        "created_at": iso(campaign.created_ms),
        "requests": campaign.requests,
        "sent": item.sent,
        "answered": item.answered,
        "published": item.published,
        "dropped": item.dropped,
    }
