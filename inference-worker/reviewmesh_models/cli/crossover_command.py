"""`reviewmesh-models crossover`."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from reviewmesh_kit.printable import plain
from reviewmesh_models.cli.command_line import FAILED, WRONG_USAGE, ended
from reviewmesh_models.crossover import comparison
from reviewmesh_models.crossover.comparison import Buying, Owning
from reviewmesh_models.crossover.measured import FiguresError, read_rate
from reviewmesh_models.crossover.page import FIGURES, VOLUMES, Figure, as_text, rows, write_page

GIVEN = "given"
LARGEST = 10**12
PLACES = 12
"""Most decimal places of an argument: more add nothing, and exact arithmetic with them is slow."""


def _exact(text: str) -> Fraction:
    """The exact value of a decimal number. Raises BadParameter."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    exponent = value.as_tuple().exponent
    # Infinity and NaN have no exponent.
    if isinstance(exponent, int) and exponent >= -PLACES and 0 <= value <= LARGEST:
        return Fraction(value)
    raise typer.BadParameter(
        f"expected a number from 0 to {LARGEST:,} with at most {PLACES} decimals, got {text!r:.40}"
    )


def crossover(
    gpu_hour: Annotated[
        Fraction, typer.Option(parser=_exact, metavar="USD", help="A GPU for an hour.")
    ],
    utilisation: Annotated[
        Fraction,
        typer.Option(
            parser=_exact, metavar="SHARE", help="Of the month, in which a GPU works; 0 to 1."
        ),
    ],
    staff: Annotated[Fraction, typer.Option(parser=_exact, metavar="USD", help="People, a month.")],
    prompt_tokens: Annotated[
        Fraction,
        typer.Option(parser=_exact, metavar="N", help="Of a review, all tasks together."),
    ],
    completion_tokens: Annotated[
        Fraction, typer.Option(parser=_exact, metavar="N", help="Of a review's answers.")
    ],
    input_price: Annotated[
        Fraction, typer.Option(parser=_exact, metavar="USD", help="A million prompt tokens.")
    ],
    output_price: Annotated[
        Fraction, typer.Option(parser=_exact, metavar="USD", help="A million answer tokens.")
    ],
    cached_tokens: Annotated[
        Fraction | None,
        typer.Option(parser=_exact, metavar="N", help="Of the prompt, billed as cached."),
    ] = None,
    cached_price: Annotated[
        Fraction | None,
        typer.Option(parser=_exact, metavar="USD", help="A million of them; the input's if none."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Report of a benchmark with the rate of one GPU.")
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(help="Path of a rate in it, several times; all tasks.* if none."),
    ] = None,
    rate: Annotated[
        Fraction | None,
        typer.Option(parser=_exact, metavar="N", help="Reviews a second, in place of a report."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The page with the plot.")] = Path("crossover.html"),
) -> None:
    """The volume from which own GPUs cost less than a provider's tokens."""
    if (report is None) == (rate is None) or (figure and report is None):
        raise ended(WRONG_USAGE, "expected --report, with or without --figure, or else --rate")
    try:
        measured = None if report is None else read_rate(report, figure or [])
        if measured is not None:
            rate = measured.rate
        assert rate is not None
        owning = Owning(rate, gpu_hour, utilisation, staff)
        buying = Buying(
            prompt_tokens,
            Fraction(0) if cached_tokens is None else cached_tokens,
            completion_tokens,
            input_price,
            input_price if cached_price is None else cached_price,
            output_price,
        )
    except FiguresError as error:
        raise ended(FAILED, str(error)) from None
    except (OSError, ValueError) as error:
        raise ended(WRONG_USAGE, str(error)) from None
    origin = GIVEN
    if measured is not None:
        device = f" on {plain(measured.device)}" if measured.device else ""
        origin = f"measured{device}: {report}, {', '.join(map(plain, measured.figures))}"
    inputs = [
        Figure("reviews a second of a GPU", f"{float(owning.rate):,.3f}", origin),
        *(
            Figure(name, _shown(value), said_by)
            for name, value, said_by in (
                ("US dollars for a GPU and hour", owning.gpu_hour, GIVEN),
                ("share of the month in which a GPU works", owning.utilisation, GIVEN),
                ("US dollars a month for staff", owning.staff, GIVEN),
                ("prompt tokens of a review", buying.prompt_tokens, GIVEN),
                ("of them billed as cached", buying.cached_tokens, _by(cached_tokens)),
                ("answer tokens of a review", buying.completion_tokens, GIVEN),
                ("US dollars for a million prompt tokens", buying.input_price, GIVEN),
                ("US dollars for a million cached tokens", buying.cached_price, _by(cached_price)),
                ("US dollars for a million answer tokens", buying.output_price, GIVEN),
            )
        ),
    ]
    crossing = comparison.crossover_volume(owning, buying)
    try:
        write_page(output, inputs, owning, buying, crossing)
    except OSError as error:
        raise ended(FAILED, f"{output}: {error.strerror or error}") from None
    _print(inputs, rows(owning, buying, crossing), as_text(crossing), output)


def _by(option: Fraction | None) -> str:
    return "default" if option is None else GIVEN


def _shown(value: Fraction) -> str:
    """As a decimal, which it was in the arguments."""
    shown = f"{Decimal(value.numerator) / Decimal(value.denominator):,f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _print(inputs: list[Figure], compared: list[list[str]], words: str, output: Path) -> None:
    console = Console(markup=False, emoji=False, highlight=False)
    figures = Table(*FIGURES, box=None)
    figures.columns[1].justify = "right"
    for one in inputs:
        figures.add_row(one.name, one.value, one.origin)
    console.print(figures)
    console.print()
    volumes = Table(box=None)
    for name in VOLUMES:
        volumes.add_column(name, justify="right")
    for row in compared:
        volumes.add_row(*row)
    console.print(volumes)
    console.print()
    console.print(words)
    console.print(f"written to {output}", soft_wrap=True)
