"""The subsets that one rank holds in memory, handed to the model in batches of equal shape.

Subsets may differ in size. Where a dataset has many sizes, a subset of n samples is worked as a block of
``padded(n)`` rows, a size that depends on n alone. So do the shapes of all products, and with them the bits of its
gradient, whichever subsets are worked beside it and whichever rank does it.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np

from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float, Int, Shaped
from mpicoded.data import layout
from mpicoded.data.layout import Description

_WORKSPACE_BYTES = 32 << 20
_FEW_SIZES = 8  # distinct sizes of subsets that are worked as they are, without padding or copies
_LARGE = 256 << 10  # bytes of subsets side by side from which on a batch more costs less than a copy of them
_TEST_BLOCK = 256  # test samples in one pseudo-subset
_CPU = Processor()


class Batch(NamedTuple):
    """Some subsets of equal padded size."""

    slots: slice  # where they stand in the order of the work
    x: Float[Array, "subsets samples features"]
    y: Shaped[Array, "subsets samples"]
    weights: Float[Array, "subsets samples"]  # of the samples in the subset's loss; zero for padding


class Work(NamedTuple):
    """Subsets to compute, in the order in which the batches fill the rows of a result."""

    subsets: Int[Array, " subsets"]  # their numbers
    places: Int[Array, " subsets"]  # their places among the rank's subsets
    chunks: tuple[tuple[slice, int], ...]  # rows of the result, and the padded size that they share


def padded(sizes: Int[Array, " subsets"]) -> Int[Array, " subsets"]:
    """Sizes rounded up to four significant bits: at most 1/8 larger, and few distinct ones."""
    sizes = np.asarray(sizes, np.int64)
    bits = np.frexp(np.maximum(sizes, 1))[1].astype(np.int64)
    step = 1 << np.maximum(bits - 4, 0)
    return np.asarray(-(-sizes // step) * step)


def test_rows(description: Description, part: int, parts: int) -> Int[Array, " edges"]:
    """Where the pseudo-subsets of one rank's part of the test split start, and where the last one ends."""
    blocks = -(-description.test_samples // _TEST_BLOCK)
    edges = np.arange(part * blocks // parts, (part + 1) * blocks // parts + 1)
    return np.minimum(edges * _TEST_BLOCK, description.test_samples)


def runs_of(
    description: Description, subsets: Int[Array, " subsets"], first: int = 0, stop: int | None = None
) -> list[tuple[int, int]]:
    """Where these subsets (ascending) are in the file, as runs of rows; neighbours are one run.

    ``first`` and ``stop``: only these of their rows, as they come one after another.
    """
    offsets, groups = description.offsets, np.split(subsets, np.flatnonzero(np.diff(subsets) != 1) + 1)
    runs = [(int(offsets[run[0]]), int(offsets[run[-1] + 1])) for run in groups if len(run)]
    if stop is None:
        return runs
    starts = np.cumsum([0, *(end - begin for begin, end in runs)])
    cut = [(max(b, b + first - at), min(e, b + stop - at)) for (b, e), at in zip(runs, starts.tolist(), strict=False)]
    return [(begin, end) for begin, end in cut if begin < end]


class Shards:
    """Some subsets of a dataset, in the memory of a processor, ascending by number. Plans are NumPy's.

    ``starts``: where they begin in x and y, if these hold others, too.
    """

    def __init__(
        self,
        subsets: Int[Array, " held"],
        sizes: Int[Array, " held"],
        x: Float[Array, "rows features"],
        y: Shaped[Array, " rows"],
        scale: float,
        exact: bool = False,
        processor: Processor = _CPU,
        starts: Int[Array, " held"] | None = None,
    ) -> None:
        self.subsets = subsets
        self.sizes = sizes
        self.starts = np.cumsum(sizes) - sizes if starts is None else starts
        self.processor = processor
        self.x, self.y = processor.put(x), processor.put(y)
        self.scale = scale
        self._weight = processor.xp.asarray(scale, dtype=x.dtype)  # the same, as one of x's numbers
        self._padded = np.asarray(sizes) if exact else padded(sizes)
        self._workspace = processor.xp.empty(0, dtype=x.dtype)

    @classmethod
    def read(
        cls, description: Description, subsets: Int[Array, " held"], dtype: Any, processor: Processor = _CPU
    ) -> Self:
        """Read the given subsets (ascending) of the training split; neighbours in the file come in one read.

        A sample weighs subsets/samples, so that the mean over subsets is the average over all samples.
        """
        x, y = layout.read_rows(description, "", runs_of(description, subsets), dtype)
        return cls.among(description, subsets, subsets, x, y, processor)

    @classmethod
    def among(
        cls,
        description: Description,
        subsets: Int[Array, " held"],
        read: Int[Array, " read"],
        x: Float[Array, "rows features"],
        y: Shaped[Array, " rows"],
        processor: Processor = _CPU,
    ) -> Self:
        """Some of the subsets that x and y hold, one after another: those that were ``read``, ascending."""
        sizes = np.diff(description.offsets)
        # The dataset decides, not what this rank holds: products must have the same shapes on any number of ranks.
        exact, scale = len(np.unique(sizes)) <= _FEW_SIZES, description.subsets / description.samples
        starts = (np.cumsum(sizes[read]) - sizes[read])[np.searchsorted(read, subsets)]
        return cls(subsets, sizes[subsets], x, y, scale, exact, processor, starts)

    @classmethod
    def read_test(
        cls, description: Description, part: int, parts: int, dtype: Any, processor: Processor = _CPU
    ) -> Self:
        """Read one rank's part of the test split, cut into pseudo-subsets of fixed size."""
        edges = test_rows(description, part, parts)
        runs = [(int(edges[0]), int(edges[-1]))] if len(edges) > 1 else []
        x, y = layout.read_rows(description, "test/", runs, dtype)
        return cls(edges[:-1] // _TEST_BLOCK, np.diff(edges), x, y, 1.0, processor=processor)

    @property
    def nbytes(self) -> int:
        """Bytes of x and y."""
        return int(self.x.nbytes + self.y.nbytes)

    def work(self, subsets: Int[Array, " wanted"], batch_size: int | None = None) -> Work:
        """Plan the computation of some of the held subsets: by padded size, the empty ones last."""
        places: Array = np.minimum(np.searchsorted(self.subsets, subsets), max(len(self.subsets) - 1, 0))
        if (self.subsets[places] != subsets).any():
            raise ValueError(f"not all of the subsets {subsets} are held")
        size = self._padded[places] if batch_size is None else np.where(self.sizes[places] > 0, batch_size, 0)
        order = np.argsort(np.where(size > 0, size, np.iinfo(np.int64).max), kind="stable")
        places, size = places[order], size[order]
        edges = np.concatenate([[0], np.flatnonzero(np.diff(size)) + 1, [len(size)]])
        chunks: list[tuple[slice, int]] = []
        for start, stop in pairwise(edges.tolist()):
            if start == stop or size[start] == 0:
                continue
            row_bytes = int(size[start]) * self.x.shape[1] * self.x.itemsize
            most = max(1, _WORKSPACE_BYTES // row_bytes)
            gaps = self._gaps(places[start:stop])
            in_place = (stop - start) * row_bytes >= (len(gaps) + 1) * _LARGE
            if not in_place or batch_size is not None or not isinstance(self.x, np.ndarray):
                gaps = []
            for first, end in pairwise([start, *(start + gap for gap in gaps), stop]):
                chunks += [(slice(a, min(a + most, end)), int(size[start])) for a in range(first, end, most)]
        return Work(self.subsets[places], places, tuple(chunks))

    def batches(self, work: Work, streams: Streams | None = None) -> Iterator[Batch]:
        """The batches of a plan: whole subsets, or with ``streams`` mini-batches of the plan's batch size.

        A mini-batch is drawn with replacement, from a stream of the subset's own. A batch may lie in a workspace that
        the next one overwrites.
        """
        xp, put = self.processor.xp, self.processor.put
        for slots, samples in work.chunks:
            places = work.places[slots]
            if streams is not None:
                draws = streams.of(self.subsets[places]).uniform("mini_batch", samples)
                offsets = (draws * self.sizes[places, None]).astype(np.int64)
                weights = ((self.scale / samples) * self.sizes[places, None]).astype(self.x.dtype)
                yield Batch(slots, *self._gather(places, put(offsets)), xp.broadcast_to(put(weights), offsets.shape))
            else:
                yield Batch(slots, *self._whole(places, samples))

    def _gaps(self, places: Array) -> list[int]:
        """Which of these subsets do not begin where the one before them ends."""
        return list((np.flatnonzero(self.starts[places[1:]] != (self.starts + self.sizes)[places[:-1]]) + 1).tolist())

    def _whole(self, places: Array, samples: int) -> tuple[Array, Array, Array]:
        count, features, xp = len(places), self.x.shape[1], self.processor.xp
        sizes, first = self.sizes[places], int(self.starts[places[0]])
        if (sizes == samples).all() and not self._gaps(places):  # they lie side by side: no copy
            rows = slice(first, first + count * samples)
            x, y = self.x[rows].reshape(count, samples, features), self.y[rows].reshape(count, samples)
            return x, y, xp.broadcast_to(self._weight, (count, samples))
        column, lengths = xp.arange(samples), self.processor.put(sizes[:, None])
        x, y = self._gather(places, xp.minimum(column, lengths - 1))
        return x, y, (self.scale * (column < lengths)).astype(self.x.dtype)

    def _gather(self, places: Array, offsets: Array) -> tuple[Array, Array]:
        """Copy rows (by their offset in each subset) into the workspace."""
        rows = (self.processor.put(self.starts[places, None]) + offsets).ravel()
        features = self.x.shape[1]
        if self._workspace.size < rows.size * features:
            self._workspace = self.processor.xp.empty(rows.size * features, dtype=self.x.dtype)
        x = self._workspace[: rows.size * features].reshape(rows.size, features)
        self.processor.take(self.x, rows, x)
        return x.reshape(*offsets.shape, features), self.y[rows].reshape(offsets.shape)
