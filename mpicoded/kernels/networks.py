"""Which rows are compared, and in which order, so that ranks of every column come to stand in known rows.

A sorting network (Batcher 1968) compares fixed pairs of rows, whatever they hold, so that many columns go through it
side by side. Here 16 rows at a time are sorted, then bitonic merges double that. Comparisons are grouped into *steps*
of up to 16 rows that stay in registers; each step is one of the ``PATTERNS``. What no wanted rank depends on is left
out.
"""

import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Pairs = list[tuple[int, int]]
Step = tuple[int, tuple[int, ...]]  # a pattern's number, and the rows that it works on

_GROUP = 16  # rows that are sorted in one step


def odd_even(count: int) -> Pairs:
    """Batcher's odd-even merge sort of ``count`` rows: (i, j) puts the smaller into i, the larger into j."""
    pairs = []
    merged = 1
    while merged < count:
        gap = merged
        while gap:
            for first in range(gap % merged, count - gap, 2 * gap):
                places = range(first, min(first + gap, count - gap))
                pairs += [(i, i + gap) for i in places if i // (2 * merged) == (i + gap) // (2 * merged)]
            gap //= 2
        merged *= 2
    return pairs


def halving(count: int) -> Pairs:
    """Sort ``count`` bitonic rows, a power of two: rows half as many apart, a quarter, …, side by side."""
    gaps = [count >> level for level in range(1, count.bit_length())]
    return [(i, i + gap) for gap in gaps for i in range(count) if not i & gap]


def _one_of(larger: bool) -> Pairs:
    """Row 8 becomes the largest of itself and the smaller ones of four pairs of rows; or the other way round."""
    pairs = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (4, 6), (2, 6), (6, 8)]
    return pairs if larger else [(j, i) for i, j in pairs]


# Number of rows, and pairs. The first four read the votes, all others what stands in the tile; the last two write
# their ninth row alone, into a tenth one.
PATTERNS: tuple[tuple[int, Pairs], ...] = (
    *((count, odd_even(count)) for count in (16, 8, 4, 2)),
    (8, [(0, 7), (1, 6), (2, 5), (3, 4), *((i + half, j + half) for i, j in halving(4) for half in (0, 4))]),
    *((count, halving(count)) for count in (8, 4, 2)),
    (9, _one_of(larger=True)),
    (9, _one_of(larger=False)),
)
SORTS = {16: 0, 8: 1, 4: 2, 2: 3}
MERGE, LARGEST, SMALLEST = 4, 8, 9
HALVES = {8: 5, 4: 6, 2: 7}
# The same in smaller steps: cheaper where few of the rows matter.
_PARTS: dict[int, list[Step]] = {
    MERGE: [*((HALVES[2], (i, 7 - i)) for i in range(4)), (HALVES[4], (0, 1, 2, 3)), (HALVES[4], (4, 5, 6, 7))],
    HALVES[8]: [*((HALVES[2], (i, i + 4)) for i in range(4)), (HALVES[4], (0, 1, 2, 3)), (HALVES[4], (4, 5, 6, 7))],
    HALVES[4]: [(HALVES[2], pair) for pair in halving(4)],
}
_COST = (26.0, 8.0, 3.0, 1.2, 6.5, 6.0, 2.4, 1.2, 3.0, 3.0)  # ns for 8 float32 columns, about


@dataclass(frozen=True)
class Program:
    """Steps, and where the wanted ranks then stand: the rows of the votes, then of +inf, of -inf and of results."""

    patterns: Any  # (steps,) numbers of patterns
    starts: Any  # (steps,) where a step's rows begin
    rows: Any  # rows of all steps
    low: int  # the row of the first wanted rank
    high: int  # the row of the last one


@functools.lru_cache(64)
def select(votes: int, first: int, last: int) -> Program:
    """The ranks ``first`` and ``last`` of so many votes, in rows of results."""
    halves = {min(votes, -(-((votes + 1) // 2) // _GROUP) * _GROUP), 1 << max(votes - 1, 1).bit_length() - 1, votes}
    plans = [_select(votes, half, first, last) for half in halves if half <= votes]
    return _program(votes, min(plans, key=_cost), votes + 2, votes + 2 + (first != last))


@functools.lru_cache(64)
def order(votes: int, low: int, high: int, ends: int) -> Program:
    """So many ascending ranks at either end, and two between them, each rank in the row of its number."""
    wanted = {*range(ends), *range(votes - ends, votes), low, high}
    return _program(votes, _needed(_sort(0, votes), wanted), low, high)


def _select(votes: int, half: int, first: int, last: int) -> list[Step]:
    """Two sorted parts, and of them the two ranks.

    The k + 1 smallest of two ascending lists a and b are min(a_i, b_(k - i)) for i = 0 … k, and the largest of these
    is the rank k. Counted from the other end for the upper ranks.
    """
    ends: list[Step] = []
    wanted: set[int] = set()
    for rank, result in {first: votes + 2, last: votes + 2 + (first != last)}.items():
        lower = 2 * rank < votes
        outside, neutral = (votes, votes + 1) if lower else (votes + 1, votes)
        pairs = list(_pairs(votes, half, rank if lower else votes - 1 - rank, lower, outside))
        wanted.update(row for pair in pairs for row in pair)
        state = neutral
        for start in range(0, len(pairs), 4):
            four = [row for pair in pairs[start : start + 4] for row in pair]
            four += [neutral] * (8 - len(four))
            ends.append((LARGEST if lower else SMALLEST, (*four, state, result)))
            state = result
    parts = _sort(0, half) + _sort(half, votes - half)
    return _needed(parts, wanted - {votes, votes + 1}) + ends


def _pairs(votes: int, half: int, rank: int, lower: bool, outside: int) -> Iterator[tuple[int, int]]:
    """Rows that are compared for a rank that is counted from the lower or the upper end."""
    for i in range(max(0, rank - (votes - half)), min(rank, half) + 1):
        j = rank - i
        a = outside if i >= half else i if lower else half - 1 - i
        b = outside if j >= votes - half else half + j if lower else votes - 1 - j
        yield a, b


def _sort(first: int, count: int) -> list[Step]:
    """Steps that sort so many rows from ``first`` on, as if infinite ones (-1) followed up to a power of two."""
    steps: list[Step] = []
    for start in range(0, count, _GROUP):
        size = next(size for size in (2, 4, 8, 16) if size >= min(_GROUP, count - start))
        steps.append((SORTS[size], tuple(range(start, start + size))))
    merged = _GROUP
    while merged < count:
        for start in range(0, count - merged, 2 * merged):
            steps += _merge(start, merged)
        merged *= 2
    return [(pattern, tuple(first + row if row < count else -1 for row in rows)) for pattern, rows in steps]


def _merge(start: int, merged: int) -> Iterator[Step]:
    """Two sorted runs side by side: the one backwards after the other is bitonic."""
    gap = merged // 4
    for i in range(start, start + gap):
        rows = [i + place * gap for place in range(4)]
        yield MERGE, (*rows, *(2 * (start + merged) - 1 - row for row in reversed(rows)))
    while gap > 1:
        size = min(gap, 8)
        apart = gap // size
        for base in range(start, start + 2 * merged, gap):
            for i in range(base, base + apart):
                yield HALVES[size], tuple(range(i, i + gap, apart))
        gap = apart


def _needed(steps: Sequence[Step], wanted: Collection[int]) -> list[Step]:
    """The steps that the wanted rows depend on, smaller ones where these are cheaper."""
    matter, kept = set(wanted), []
    for step in reversed(steps):
        part, before = _cheapest(step, frozenset(matter.intersection(step[1])))
        matter |= before
        kept += part
    return kept[::-1]


def _cheapest(step: Step, wanted: frozenset[int]) -> tuple[list[Step], frozenset[int]]:
    """Steps, the last one first, and the rows that are wanted before them."""
    pattern, rows = step
    real = frozenset(rows) - {-1}
    if not wanted & real or (len(real) < 2 and pattern > SORTS[2]):
        return [], wanted
    parts: list[Step] = []
    before = wanted
    for number, places in reversed(_PARTS.get(pattern, [])):
        part, before = _cheapest((number, tuple(rows[place] for place in places)), before)
        parts += part
    if parts and _cost(parts) < _COST[pattern]:
        return parts, before
    return [step], wanted | real


def _cost(steps: Sequence[Step]) -> float:
    return sum(_COST[pattern] for pattern, _ in steps)


def _program(votes: int, steps: Sequence[Step], low: int, high: int) -> Program:
    rows = [votes if row == -1 else row for _, rows in steps for row in rows]
    lengths = [len(rows) for _, rows in steps]
    starts = np.cumsum([0, *lengths])[:-1]
    as_array = functools.partial(np.array, dtype=np.int32)
    return Program(as_array([pattern for pattern, _ in steps]), as_array(starts), as_array(rows), low, high)
