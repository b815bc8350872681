"""The subsets of one rank where they do not fit into the memory that it may use: read in every round, by blocks.

The first blocks stay in memory. The others are read into two buffers in turn, one while the other is computed, and go
on being read, for the next round, while the server aggregates. The bits are those of ``Shards``, which computes.
"""

from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.shapes import Array, Int
from mpicoded.data.layout import Description, check_rows, row_bytes
from mpicoded.data.readahead import Buffer, Read, ReadAhead
from mpicoded.data.rowfile import RowFile, Run
from mpicoded.data.shards import Shards, Work, padded, weighing
from mpicoded.errors import InputError

_BLOCK = 8 << 20  # bytes of a block where subsets are small: still in the cache, for the most part, when it is computed
_BUFFERS = 2
_CPU = Processor()


class Division(NamedTuple):
    """Which subsets of a rank stay in memory, and how the others are read."""

    edges: Int[Array, " blocks+1"]  # places among the rank's subsets where blocks begin, and where the last one ends
    kept: int  # so many of the blocks, the first ones, stay
    kept_rows: int
    block_rows: int  # of a buffer
    read_rows: int
    row: int  # bytes of a sample and its target

    @property
    def nbytes(self) -> int:
        """What is in memory."""
        return (self.kept_rows + _BUFFERS * self.block_rows) * self.row

    @property
    def read_bytes(self) -> int:
        """What is brought into memory again in a round that wants all subsets."""
        return self.read_rows * self.row


def least_budget(description: Description, subsets: Int[Array, " held"], dtype: Any, beside: int = 0) -> int:
    """What a rank needs to read these subsets by blocks: two buffers, and a padded copy where one is needed."""
    sizes, row = np.diff(description.offsets)[subsets], row_bytes(description, dtype)
    _, exact = weighing(description)
    copied = 0 if exact else int(padded(sizes).max(initial=0))
    return (_BUFFERS * int(sizes.max(initial=0)) + copied) * row + beside


def divide(
    description: Description, subsets: Int[Array, " held"], dtype: Any, budget: int, beside: int = 0
) -> Division:
    """Divide a rank's subsets so that they take no more than a budget, ``beside`` bytes of which are taken.

    Raises InputError where two buffers for its largest subset do not fit, and a padded copy where one is needed.
    """
    sizes, row = np.diff(description.offsets)[subsets], row_bytes(description, dtype)
    largest, least = int(sizes.max(initial=0)), least_budget(description, subsets, dtype, beside)
    beside = least - _BUFFERS * largest * row
    if budget < least:
        raise InputError(
            f"data.memory: the {budget} bytes that a rank may use for samples are too few, since its largest subset, "
            f'of {largest * row}, must fit {_BUFFERS} times beside {beside} others: set memory = "{least} B" or more'
        )
    most = max(largest, min(_BLOCK, (budget - beside) // (4 * _BUFFERS)) // row)
    ends, edges = np.cumsum(sizes), [0]
    while edges[-1] < len(sizes):
        before = int(ends[edges[-1] - 1]) if edges[-1] else 0
        edges.append(int(np.searchsorted(ends, before + most, side="right")))
    begins = np.concatenate([[0], ends])[edges]
    rows = int(np.diff(begins).max(initial=0))
    kept = int(np.searchsorted(begins * row, budget - beside - _BUFFERS * rows * row, side="right")) - 1
    return Division(np.array(edges), kept, int(begins[kept]), rows, int(begins[-1] - begins[kept]), row)


class Streamed(Shards):
    """Some subsets of a dataset, ascending by number, of which no more are in memory than a budget allows.

    Building it reads and checks all of them once. Raises InputError, then and in later rounds, where the file
    cannot be used. ``beside``: bytes of the budget that others take.
    """

    def __init__(
        self,
        description: Description,
        subsets: Int[Array, " held"],
        dtype: Any,
        budget: int,
        processor: Processor = _CPU,
        beside: int = 0,
    ) -> None:
        self.division = division = divide(description, subsets, dtype, budget, beside)
        edges, sizes, file = division.edges, np.diff(description.offsets)[subsets], RowFile(description)
        self._rows = description.offsets[subsets]  # in the file
        self._block = np.searchsorted(edges, np.arange(len(sizes)), side="right") - 1
        starts = np.cumsum(sizes) - sizes
        streamed = self._block >= division.kept
        starts[streamed] -= starts[edges[self._block[streamed]]]
        kept = _room(description, division.kept_rows, dtype)
        for first, stop in pairwise(edges[: division.kept + 1]):
            here, rows = slice(first, stop), slice(starts[first], starts[first] + sizes[first:stop].sum())
            file.read(_runs(self._rows[here], sizes[here], starts[here]), *kept)
            check_rows(description, "", kept.x[rows], kept.y[rows])
        super().__init__(subsets, sizes, *kept, *weighing(description), processor, starts)
        self._stretch = _turns(division.kept, len(edges) - 1)[self._block]
        buffers = [_room(description, division.block_rows, dtype) for _ in range(_BUFFERS)]
        self._ahead = ReadAhead(file.read, buffers)
        self._check(description)

    def others(self, description: Description, subsets: Int[Array, " others"]) -> Shards:
        """Read other subsets of the same dataset in the same way, with little more memory."""
        largest = int(padded(np.diff(description.offsets)[subsets]).max(initial=0))
        budget = 2 * _BUFFERS * max(largest * self.division.row, _BLOCK)
        return Streamed(description, subsets, self.dtype, budget, self.processor)

    @property
    def nbytes(self) -> int:
        """Bytes of x and y that are in memory."""
        return self.division.nbytes

    def _views(self, work: Work) -> None:
        """Blocks come and go."""

    def _check(self, description: Description) -> None:
        """Read once what does not stay, to find values that cannot be used before the first round."""
        edges, kept = self.division.edges, self.division.kept
        places = [np.arange(*edges[block : block + 2]) for block in range(kept, len(edges) - 1)]
        reads = [self._read(kept + number, those) for number, those in enumerate(places)]
        for number, those in enumerate(places):
            buffer, rows = self._ahead.take(reads, number), int(self.sizes[those].sum())
            check_rows(description, "", buffer.x[:rows], buffer.y[:rows])
            self._ahead.give_back(buffer, reads, number)

    def _read(self, block: int, places: Int[Array, " some"]) -> Read:
        return Read(block, places, _runs(self._rows[places], self.sizes[places], self.starts[places]))

    def _found(self, work: Work) -> Iterator[tuple[tuple[slice, int], Array, Array]]:
        """Block by block; those that do not stay in memory are there while their chunks are worked."""
        groups = groupby(work.chunks, lambda chunk: int(self._block[work.places[chunk[0].start]]))
        blocks = [(block, list(chunks)) for block, chunks in groups]
        reads = [
            self._read(block, np.sort(work.places[chunks[0][0].start : chunks[-1][0].stop]))
            for block, chunks in blocks
            if block >= self.division.kept
        ]
        number = 0
        for block, chunks in blocks:
            if block < self.division.kept:
                yield from ((chunk, self.x, self.y) for chunk in chunks)
                continue
            buffer = self._ahead.take(reads, number)
            try:
                x, y = self.processor.put(buffer.x), self.processor.put(buffer.y)
                self.processor.wait()  # a copy to a GPU may still be under way
                yield from ((chunk, x, y) for chunk in chunks)
            finally:
                self._ahead.give_back(buffer, reads, number)
            number += 1


def _room(description: Description, rows: int, dtype: Any) -> Buffer:
    return Buffer(np.empty((rows, description.features), dtype), np.empty(rows, description.target(dtype)))


def _turns(kept: int, blocks: int) -> Int[Array, " blocks"]:
    """When each block is worked: those in memory between the others, so that reading never stops for them."""
    when = [(np.arange(count) + 0.5) / max(count, 1) for count in (kept, blocks - kept)]
    return np.argsort(np.argsort(np.concatenate(when), kind="stable"))


def _runs(rows: Int[Array, " some"], sizes: Int[Array, " some"], starts: Int[Array, " some"]) -> list[Run]:
    """Where subsets are in the file, neighbours as one run, and where they begin in memory."""
    some = sizes > 0
    rows, sizes, starts = rows[some], sizes[some], starts[some]
    ends = rows + sizes
    first = np.flatnonzero(np.concatenate([[True], rows[1:] != ends[:-1]])[: len(rows)])
    last = np.concatenate([first[1:], [len(rows)]])[: len(first)] - 1
    return list(map(Run, rows[first].tolist(), ends[last].tolist(), starts[first].tolist()))
