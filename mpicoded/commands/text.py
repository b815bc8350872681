"""Numbers and tables for the terminal."""

from collections.abc import Sequence
from typing import Any

from mpicoded.experiment import Experiment


def resume_command(experiment: Experiment, target: str) -> str:
    """What goes on with a run that has been stopped."""
    return f"mpicoded resume {target}" + (" --trust" if experiment.model.imports else "")


def readable_bytes(count: float) -> str:
    """``12.3 MB``."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.3g} {units[0]}"


def readable_seconds(seconds: float) -> str:
    """``12.3 ms``."""
    number = seconds * 1e6
    for unit, most in (("µs", 1000), ("ms", 1000), ("s", 60), ("min", 60), ("h", 24)):
        if float(f"{number:.3g}") < most:
            return f"{number:.3g} {unit}"
        number /= most
    return f"{number:.3g} days"


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Text in columns; the first row is the heading."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
