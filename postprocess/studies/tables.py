"""Tables made of cells that are computed from runs, as Markdown, and compared with those of a page."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from mpicoded.data.results import Results
from postprocess.studies.runs import Fetch, Run

_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
Row = tuple[str, ...]


class Cell(NamedTuple):
    """What is said of some runs; without runs it is computed in another way."""

    runs: tuple[Run, ...]
    text: Callable[[list[Results]], str]

    def show(self, fetch: Fetch) -> str:
        """The text."""
        return self.text([fetch(run) for run in self.runs])


class Table(NamedTuple):
    """Rows of cells and words; the head tells a page's tables apart, a row's first words its rows."""

    head: Row
    rows: list[tuple[str | Cell, ...]]


class Place(NamedTuple):
    """A table's cell, or words, in a row and a column."""

    table: Table
    row: str
    column: int
    cell: str | Cell


class Tolerance(NamedTuple):
    """How far numbers of a page may be from those that are computed: relatively; up to ``floor`` all are equal."""

    relative: float = 0.01
    floor: float = 0.0

    def equal(self, page: str, computed: str) -> bool:
        """Whether the words are the same, and all numbers near enough. The page's bold type is its own."""
        page, computed = page.replace("**", "").strip(), computed.replace("**", "").strip()
        pairs = zip(_NUMBER.findall(page), _NUMBER.findall(computed), strict=False)
        return _NUMBER.sub("0", page) == _NUMBER.sub("0", computed) and all(self._near(*pair) for pair in pairs)

    def _near(self, page: str, computed: str) -> bool:
        one, other = (float(text.replace("−", "-")) for text in (page, computed))
        away, least = abs(one - other), min(abs(one), abs(other))
        if max(abs(one), abs(other)) <= self.floor or away <= self.relative * least:
            return True
        mantissa, _, exponent = page.partition("e")
        _, point, digits = mantissa.partition(".")
        # What is rounded may fall to the other side; counts may not.
        return bool(point) and away <= 1.001 * 10.0 ** (int(exponent or 0) - len(digits))


def places(tables: Sequence[Table], sample: int | None = None) -> list[Place]:
    """All places behind the rows' first words; or so many of the cells, from beginning to end."""
    found = [
        Place(table, str(row[0]), column, cell)
        for table in tables
        for row in table.rows
        for column, cell in enumerate(row[1:], 1)
    ]
    if sample is None:
        return found
    cells = [place for place in found if isinstance(place.cell, Cell)]
    return [cells[(2 * number + 1) * len(cells) // (2 * sample)] for number in range(min(sample, len(cells)))]


def markdown(table: Table, fetch: Fetch) -> Iterator[str]:
    """Its lines."""
    yield f"| {' | '.join(table.head)} |"
    yield "|---" * len(table.head) + "|"
    for row in table.rows:
        yield f"| {' | '.join(cell.show(fetch) if isinstance(cell, Cell) else cell for cell in row)} |"


def parse(page: str) -> list[tuple[Row, list[Row]]]:
    """Heads and rows of a page's tables."""
    found: list[tuple[Row, list[Row]]] = []
    inside = False
    for line in page.splitlines():
        row = tuple(part.strip() for part in line.strip().strip("|").split("|"))
        if not line.startswith("|"):
            inside = False
        elif not inside:
            found.append((row, []))
            inside = True
        elif set(line) - set("|-: "):
            found[-1][1].append(row)
    return found


def differences(chosen: Sequence[Place], page: str, fetch: Fetch, tolerance: Tolerance) -> Iterator[str]:
    """A line for each of these places that the page has otherwise, or not at all."""
    stored = parse(page)
    for table, places_here in groupby(chosen, lambda place: place.table):
        found = [rows for head, rows in stored if head == table.head]
        if len(found) != 1:
            yield f"the page has {len(found)} tables with the head {' | '.join(table.head)}"
            continue
        rows = {row[0]: row for row in found[0]}
        for _, label, column, cell in places_here:
            where = f"{table.head[0]}: {label}: {table.head[column]}"
            if len(rows.get(label, ())) != len(table.head):
                yield f"{where}: the page has no such row, or one of other length"
                continue
            computed = cell.show(fetch) if isinstance(cell, Cell) else cell
            if not tolerance.equal(rows[label][column], computed):
                yield f"{where}: the page has {rows[label][column]}, computed is {computed}"


def strays(tables: Sequence[Table], page: str) -> Iterator[str]:
    """A line for each row of the page's tables that is none of the study's."""
    made = {table.head: {str(row[0]) for row in table.rows} for table in tables}
    for head, rows in parse(page):
        for row in rows if head in made else []:
            if row[0] not in made[head]:
                yield f"{head[0]}: the page has a row {row[0]} that the study does not make"


def last(name: str) -> Callable[[Results], float]:
    """The last value of a history."""
    return lambda found: float(found.history[name][-1])


def after(name: str, rounds: int) -> Callable[[Results], float]:
    """A history's value after so many rounds, where it was evaluated then."""

    def value(found: Results) -> float:
        (place,) = np.flatnonzero(found.history["round"] == rounds)
        return float(found.history[name][place])

    return value


def each(value: Callable[[Results], float], form: str = ".3g") -> Callable[[list[Results]], str]:
    """The values of all runs."""
    return lambda found: ", ".join(f"{value(one):{form}}" for one in found)


def within(name: str, megabytes: float) -> Callable[[Results], float]:
    """A history's value at the last evaluation by which no more than that was sent."""

    def value(found: Results) -> float:
        sent = found.history["bytes_up"] / 1e6
        return float(found.history[name][np.flatnonzero(sent <= megabytes * (1 + 1e-9))[-1]])

    return value


def spread(value: Callable[[Results], float], form: str = "") -> Callable[[list[Results]], str]:
    """Mean ± standard deviation of all runs; or that one of them has come to more than it started with."""

    def text(found: list[Results]) -> str:
        values = np.array([value(one) for one in found])
        starts = [one.history["suboptimality"][0] for one in found if "suboptimality" in one.history]
        if any(not end <= 1.01 * start for end, start in zip(values, starts, strict=False)):
            return "> start"
        mean, deviation = values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0
        return f"{digits(mean, form)} ± {digits(deviation, form)}"

    return text


def digits(value: float, form: str = "") -> str:
    """Three digits, without an exponent where that is not needed."""
    if form:
        return f"{value:{form}}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
