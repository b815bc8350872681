"""Which values are compared, and in which order, so that ranks of every column come to stand in known rows.

A sorting network compares fixed pairs of rows, whatever they hold, so that many columns go through it side by side.
Here groups of up to 32 rows are sorted, then Batcher's odd-even merges (1968; Knuth, volume 3, 5.3.4) double them, in
place. Each *step* makes one group, or one run of two. Its comparisons are written as minima and maxima of values that
never change, so that those which no wanted rank depends on can be left out one by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, reduce

_GROUP = 32  # rows that are sorted in one step: about as many as there are registers


@dataclass(frozen=True)
class Network:
    """Values 0, 1, …: the rows that go in; then, for each operation, the lesser or greater of two values before it."""

    inputs: tuple[int, ...]  # rows, in ascending order
    operations: tuple[tuple[bool, int, int], ...]  # whether the greater one is taken, and of which two values
    results: tuple[tuple[int, int], ...]  # rows, and the values that they become


@dataclass(frozen=True)
class Step:
    """A network that works on the rows from ``first`` on."""

    first: int
    reads_votes: bool  # else what earlier steps left
    network: Network


class _Draft:
    """A network while it is written."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.operations: list[tuple[bool, int, int]] = []

    def _value(self, greater: bool, a: int, b: int) -> int:
        self.operations.append((greater, a, b))
        return self.rows + len(self.operations) - 1

    def both(self, a: int, b: int) -> tuple[int, int]:
        return self._value(False, a, b), self._value(True, a, b)

    def sort(self, values: Sequence[int]) -> list[int]:
        """The values in ascending order."""
        if len(values) < 2:
            return list(values)
        half = len(values) // 2
        return self.merge(self.sort(values[:half]), self.sort(values[half:]))

    def merge(self, a: Sequence[int], b: Sequence[int]) -> list[int]:
        """The values of two ascending lists in ascending order."""
        if not a or not b:
            return [*a, *b]
        if len(a) == len(b) == 1:
            return list(self.both(a[0], b[0]))
        even, odd = self.merge(a[::2], b[::2]), self.merge(a[1::2], b[1::2])
        pairs = min(len(odd), len(even) - 1)
        merged = even[:1]
        for low, high in zip(odd, even[1:], strict=False):
            merged += self.both(low, high)
        return merged + odd[pairs:] + even[1 + pairs :]

    def rank(self, a: Sequence[int], b: Sequence[int], rank: int) -> int:
        """One rank of two ascending lists.

        The k + 1 smallest values of both are min(a_i, b_(k - i)) for i = 0 … k, and the largest of these is the rank k.
        Counted from the other end for the upper ranks.
        """
        upper = 2 * rank >= len(a) + len(b)
        if upper:
            a, b, rank = a[::-1], b[::-1], len(a) + len(b) - 1 - rank
        found: list[int] = []
        for i in range(max(0, rank - len(b)), min(rank, len(a)) + 1):
            pair = [values[k] for values, k in ((a, i), (b, rank - i)) if k < len(values)]
            found.append(self._value(upper, pair[0], pair[1]) if len(pair) == 2 else pair[0])
        return reduce(partial(self._value, not upper), found)

    def finish(self, results: dict[int, int]) -> Network:
        """What the results depend on."""
        needed = set(results.values())
        for number in range(len(self.operations) - 1, -1, -1):
            if self.rows + number in needed:
                needed.update(self.operations[number][1:])
        kept = sorted(needed)
        name = {value: number for number, value in enumerate(kept)}
        operations = [self.operations[value - self.rows] for value in kept if value >= self.rows]
        return Network(
            tuple(value for value in kept if value < self.rows),
            tuple((greater, name[a], name[b]) for greater, a, b in operations),
            tuple((row, name[value]) for row, value in sorted(results.items())),
        )


@lru_cache(64)
def steps(votes: int, wanted: frozenset[int]) -> tuple[Step, ...]:
    """Steps that leave each wanted rank in the row of its number; what the other rows then hold is not said."""
    return tuple(_steps(0, votes, wanted))


def _steps(first: int, rows: int, wanted: Iterable[int]) -> list[Step]:
    ranks = frozenset(wanted)
    if rows <= _GROUP:
        return [Step(first, True, _group(rows, ranks))]
    half = (rows + 1) // 2
    network = _run(half, rows - half, ranks)
    lower = _steps(first, half, (row for row in network.inputs if row < half))
    upper = _steps(first + half, rows - half, (row - half for row in network.inputs if row >= half))
    return [*lower, *upper, Step(first, False, network)]


@lru_cache(256)
def _group(rows: int, wanted: frozenset[int]) -> Network:
    draft = _Draft(rows)
    ordered = draft.sort(range(rows))
    return draft.finish({rank: ordered[rank] for rank in wanted})


@lru_cache(256)
def _run(lower: int, upper: int, wanted: frozenset[int]) -> Network:
    """Of two sorted runs, one behind the other, the wanted ranks: by a whole merge, or those at the ends and others
    apart, whichever compares less."""
    rows = lower + upper
    whole = _Draft(rows)
    merged = whole.merge(range(lower), range(lower, rows))
    below = next(rank for rank in range(rows + 1) if rank not in wanted)
    above = next(rank for rank in range(rows + 1) if rows - 1 - rank not in wanted)
    apart = _Draft(rows)
    a, b = range(lower), range(lower, rows)
    found = dict(enumerate(apart.merge(a[:below], b[:below])[:below]))
    top = apart.merge(a[max(0, lower - above) :], b[max(0, upper - above) :])
    found.update({rows - 1 - k: top[-1 - k] for k in range(above)})
    found.update({rank: apart.rank(a, b, rank) for rank in wanted - found.keys()})
    drafts = whole.finish({rank: merged[rank] for rank in wanted}), apart.finish(found)
    return min(drafts, key=lambda network: len(network.operations))
