"""`python -m bench [PART ...]`: measures the parts that are named, else all but memory."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench import plot
from bench.parts import DEFAULT, PARTS, Bench
from bench.report import FILE, MEMORY_FILE, Report
from tests.broker import running_stack

# What is left of 12 minutes is for ending everything and for the plot.
TIME_LIMIT_S = 690
OUT_OF_TIME = "out of time"


class OutOfTime(BaseException):
    """The time of the whole run is over."""


def main() -> int:
    """0 when nothing failed, 1 when something did or nothing was measured, 2 for no such part.

    On a slow machine the time is over before the last part: the report says which were left out.
    """
    console = Console(highlight=False)
    began = time.monotonic()

    def tell(line: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {line}", markup=False, soft_wrap=True)

    wanted = sys.argv[1:] or list(DEFAULT)
    if unknown := [name for name in wanted if name not in PARTS]:
        tell(f"expected parts of {', '.join(PARTS)}, got {', '.join(unknown)}")
        return 2
    file = MEMORY_FILE if wanted == ["memory"] else FILE
    report = Report(file)
    missing = dict.fromkeys(wanted, OUT_OF_TIME)
    report.content["not_measured"] = missing
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.signal(signal.SIGTERM, _terminated)
    signal.alarm(TIME_LIMIT_S)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="reviewmesh-bench-") as folder,
            running_stack() as stack,
        ):
            bench = Bench(stack, Path(folder), report.content, tell)
            for name in wanted:
                tell(f"{name}: {(PARTS[name].__doc__ or '').splitlines()[0]}")
                try:
                    PARTS[name](bench)
                    del missing[name]
                # One part that does not work must not take the others along.
                except Exception as error:  # noqa: BLE001
                    missing[name] = str(error)
                    tell(f"{name} could not be measured: {error}")
                report.write()
    except OutOfTime:
        tell(f"{TIME_LIMIT_S} s are over, not measured: {', '.join(missing)}")
    report.write()
    tell(f"written to {file}")
    if plot.is_installed():
        tell(f"drawn as {plot.draw(file)}")
    return exit_code(wanted, missing)


def exit_code(wanted: Collection[str], missing: Mapping[str, str]) -> int:
    """Of a run that measured what was wanted but for what is missing, by the reason."""
    failed = any(reason != OUT_OF_TIME for reason in missing.values())
    return 1 if failed or len(missing) == len(wanted) else 0


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise OutOfTime


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
