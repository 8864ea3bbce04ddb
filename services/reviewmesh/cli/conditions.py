"""Conditions on enriched reviews, as words of a command."""

from __future__ import annotations

import typer

from reviewmesh.clock import milliseconds, wall_clock
from reviewmesh.query.where.errors import BadCondition
from reviewmesh.query.where.expression import Expression
from reviewmesh.query.where.reading import read_condition


def condition_of(where: str, task: str) -> Expression:
    """Fields of a lineage that name no task are of this one.

    Printed again, relative times in it are absolute. Raises BadParameter.
    """
    try:
        return read_condition(where, task, milliseconds(wall_clock()))
    except BadCondition as error:
        raise typer.BadParameter(str(error)) from None
