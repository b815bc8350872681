"""Final values as a table: mean and standard deviation over seeds; text, CSV, LaTeX or Markdown."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mpicoded.data.compare import Group
from mpicoded.data.naming import COLUMNS
from mpicoded.errors import InputError

_MEGA = 1e6  # bytes are shown as MB
QUANTITIES = ("suboptimality", "accuracy", "test_loss", "loss", "gradient_norm", "bytes_up", "seconds")
BESTS = ("last", "best")


class Cell(NamedTuple):
    """Mean and standard deviation over seeds; of one seed no deviation."""

    mean: float
    deviation: float | None

    def scaled(self, unit: float) -> "Cell":
        """The same in another unit."""
        return Cell(self.mean / unit, None if self.deviation is None else self.deviation / unit)

    def text(self, digits: int, between: str = " ± ") -> str:
        """Rounded so that the mean has so many digits, and the deviation as many decimals."""
        if not np.isfinite(self.mean):
            return str(self.mean)
        if self.deviation == 0:
            return Cell(self.mean, None).text(digits)
        size = max(abs(self.mean), abs(self.deviation or 0.0))
        if size >= 10**6 or 0 < size < 1e-4:
            deviation = "" if self.deviation is None else f"{between}{self.deviation:.1e}"
            return f"{self.mean:.{digits - 1}e}{deviation}"
        decimals = max(0, digits - 1 - (int(np.floor(np.log10(size))) if size > 0 else 0))
        deviation = "" if self.deviation is None else f"{between}{self.deviation:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{deviation}"


class Table(NamedTuple):
    """Rows of settings and cells."""

    settings: list[str]  # headings of what differs
    quantities: list[str]
    rows: list[tuple[list[str], int, list[Cell | None]]]  # values of the settings, seeds, cells


def make(groups: Sequence[Group], quantities: Sequence[str] | None = None, which: str = "last") -> Table:
    """The last values of the histories, or the best: least, or of accuracy most. Raises InputError."""
    histories = [result.history for group in groups for result in group.results]
    known = [name for name in COLUMNS if any(name in history for history in histories)]
    for name in quantities or ():
        if name not in known:
            raise InputError(f"no file has the history {name!r}; there are: {', '.join(known)}")
    usual = [name for name in QUANTITIES if name in known and not (name == "loss" and "suboptimality" in known)]
    chosen = list(quantities or usual)
    settings = list(groups[0].settings) or ["experiment"]
    uneven = any(len({int(one.history["round"][-1]) for one in group.results}) > 1 for group in groups)
    settings += ["rounds done"] if uneven else []  # where some are not finished, means say little
    rows = []
    for group in groups:
        values = list(group.settings.values()) or [group.label]
        values += [_span([int(one.history["round"][-1]) for one in group.results])] if uneven else []
        rows.append((values, len(group.results), [_cell(group, name, which) for name in chosen]))
    return Table(settings, chosen, rows)


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _cell(group: Group, name: str, which: str) -> Cell | None:
    columns = [result.history.get(name, np.empty(0)) for result in group.results]
    if not all(len(column) for column in columns):
        return None
    pick: Callable[[np.ndarray], float] = lambda column: column[-1]  # noqa: E731
    if which == "best" and name in ("loss", "suboptimality", "test_loss", "gradient_norm"):
        pick = np.nanmin
    elif which == "best" and name == "accuracy":
        pick = np.nanmax
    values = np.array([pick(column) for column in columns], float)
    with np.errstate(invalid="ignore", over="ignore"):
        return Cell(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def headings(table: Table) -> list[str]:
    """Of the columns: settings, seeds, quantities."""
    units = {name: COLUMNS[name][0] for name in table.quantities}
    shown = {"byte": ", MB", "1": ""}
    named = [name.replace("_", " ") + shown.get(unit, f", {unit}") for name, unit in units.items()]
    return [*table.settings, "seeds", *named]


def texts(table: Table, digits: int = 3, between: str = " ± ") -> list[list[str]]:
    """The rows as texts."""
    scales = [_MEGA if COLUMNS[name][0] == "byte" else 1.0 for name in table.quantities]
    return [
        [
            *values,
            str(seeds),
            *(
                "–" if cell is None else cell.scaled(scale).text(digits, between)
                for cell, scale in zip(cells, scales, strict=True)
            ),
        ]
        for values, seeds, cells in table.rows
    ]


def as_text(table: Table, digits: int = 3) -> str:
    """Columns for a terminal."""
    rows = [headings(table), *texts(table, digits, " ± ")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], ""])


def as_markdown(table: Table, digits: int = 3) -> str:
    """A pipe table."""
    rows = [headings(table), ["---"] * len(headings(table)), *texts(table, digits, " ± ")]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def as_latex(table: Table, digits: int = 3) -> str:
    """A tabular of the package booktabs."""
    columns = "l" * len(table.settings) + "r" * (1 + len(table.quantities))
    lines = [" & ".join(map(_escaped, headings(table)))]
    lines += [
        " & ".join([*map(_escaped, row[: len(table.settings)]), *(_maths(cell) for cell in row[len(table.settings) :])])
        for row in texts(table, digits, r" \pm ")
    ]
    head, *body = (f"  {line} \\\\\n" for line in lines)
    rules = "\\begin{tabular}{%s}\n  \\toprule\n%s  \\midrule\n%s  \\bottomrule\n\\end{tabular}\n"
    return rules % (columns, head, "".join(body))


def as_csv(table: Table, digits: int = 3) -> str:
    """Means and deviations in columns of their own, at full precision; ``digits`` is of no matter."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow([*table.settings, "seeds", *(part for name in table.quantities for part in (name, f"{name}_std"))])
    for values, seeds, cells in table.rows:
        numbers = [("", "") if c is None else (repr(c.mean), "" if c.deviation is None else c.deviation) for c in cells]
        out.writerow([*values, seeds, *(part for pair in numbers for part in pair)])
    return text.getvalue()


FORMATS = {"text": as_text, "markdown": as_markdown, "latex": as_latex, "csv": as_csv}
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "±": r"$\pm$"}
_SPECIAL |= {letter: f"\\{letter}" for letter in "&%$#_{}"}


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _maths(text: str) -> str:
    text = re.sub(r"e([+-]?)0*(\d+)", lambda found: rf" \cdot 10^{{{found[1].strip('+')}{found[2]}}}", text)
    text = text.replace("inf", r"\infty").replace("nan", r"\mathrm{nan}")
    return "--" if text == "–" else f"${text}$"
