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

_WORKSPACE_BYTES = 1 << 20  # of a batch of several subsets: models go over its samples twice, from the cache then
_GPU_BYTES = 32 << 20  # the same on a GPU, for which a call costs more
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


def weighing(description: Description) -> tuple[float, bool]:
    """What a sample weighs, and whether subsets are worked as they are, without padding.

    The dataset decides, not what a rank holds: products must have the same shapes on any number of ranks.
    """
    sizes = np.sort(np.diff(description.offsets))
    distinct = 1 + np.count_nonzero(np.diff(sizes))  # np.unique would load NumPy's masked arrays, in 7 ms
    return description.subsets / description.samples, bool(distinct <= _FEW_SIZES)


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
        self._stretch = np.zeros(len(sizes), np.int64)  # of the work: no batch has subsets of two
        self._workspace = processor.xp.empty(0, dtype=x.dtype)
        self._viewed: tuple[Work | None, list[Batch] | None] = None, None  # a plan and its batches, see _views

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
        starts = (np.cumsum(sizes[read]) - sizes[read])[np.searchsorted(read, subsets)]
        return cls(subsets, sizes[subsets], x, y, *weighing(description), processor, starts)

    @classmethod
    def read_test(
        cls, description: Description, part: int, parts: int, dtype: Any, processor: Processor = _CPU
    ) -> Self:
        """Read one rank's part of the test split, cut into pseudo-subsets of fixed size."""
        edges = test_rows(description, part, parts)
        runs = [(int(edges[0]), int(edges[-1]))] if len(edges) > 1 else []
        x, y = layout.read_rows(description, "test/", runs, dtype)
        return cls(edges[:-1] // _TEST_BLOCK, np.diff(edges), x, y, 1.0, processor=processor)

    def others(self, description: Description, subsets: Int[Array, " others"]) -> "Shards":
        """Read other subsets of the same dataset in the same way."""
        return Shards.read(description, subsets, self.dtype, self.processor)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples."""
        dtype: np.dtype[Any] = self.x.dtype
        return dtype

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
        stretch = np.where(size > 0, self._stretch[places], np.iinfo(np.int64).max)
        order = np.lexsort((size, stretch))
        places, size, stretch = places[order], size[order], stretch[order]
        edges = np.concatenate([[0], np.flatnonzero(np.diff(size) | np.diff(stretch)) + 1, [len(size)]])
        chunks: list[tuple[slice, int]] = []
        on_cpu = self.processor.xp is np
        for start, stop in pairwise(edges.tolist()):
            if start == stop or size[start] == 0:
                continue
            row_bytes = int(size[start]) * self.x.shape[1] * self.x.itemsize
            most = max(1, (_WORKSPACE_BYTES if on_cpu else _GPU_BYTES) // row_bytes)
            gaps = self._gaps(places[start:stop])
            in_place = (stop - start) * row_bytes >= (len(gaps) + 1) * _LARGE
            if not in_place or batch_size is not None or not on_cpu:
                gaps = []
            for first, end in pairwise([start, *(start + gap for gap in gaps), stop]):
                chunks += [(slice(a, min(a + most, end)), int(size[start])) for a in range(first, end, most)]
        return Work(self.subsets[places], places, tuple(chunks))

    def batches(self, work: Work, streams: Streams | None = None) -> Iterator[Batch]:
        """The batches of a plan: whole subsets, or with ``streams`` mini-batches of the plan's batch size.

        A mini-batch is drawn with replacement, from a stream of the subset's own. A batch may lie in a workspace that
        the next one overwrites.
        """
        if streams is not None:
            return self._worked(work, streams)
        if work is not self._viewed[0]:
            self._viewed = work, self._views(work)
        views = self._viewed[1]
        return self._worked(work, None) if views is None else iter(views)

    def _views(self, work: Work) -> list[Batch] | None:
        """The batches of a plan where none is a copy: the same as long as the plan is."""
        in_place = all(self._side_by_side(work.places[slots], samples) for slots, samples in work.chunks)
        return list(self._worked(work, None)) if in_place else None

    def _worked(self, work: Work, streams: Streams | None) -> Iterator[Batch]:
        xp, put = self.processor.xp, self.processor.put
        for (slots, samples), x, y in self._found(work):
            places = work.places[slots]
            if streams is not None:
                draws = streams.of(self.subsets[places]).uniform("mini_batch", samples)
                offsets = (draws * self.sizes[places, None]).astype(np.int64)
                weights = ((self.scale / samples) * self.sizes[places, None]).astype(x.dtype)
                drawn = self._gather(x, y, places, put(offsets))
                yield Batch(slots, *drawn, xp.broadcast_to(put(weights), offsets.shape))
            else:
                yield Batch(slots, *self._whole(x, y, places, samples))

    def _found(self, work: Work) -> Iterator[tuple[tuple[slice, int], Array, Array]]:
        """The chunks of a plan, each with the x and y in which its subsets begin at their ``starts``."""
        return ((chunk, self.x, self.y) for chunk in work.chunks)

    def _side_by_side(self, places: Array, samples: int) -> bool:
        """Whether subsets need no copy."""
        return bool((self.sizes[places] == samples).all()) and not self._gaps(places)

    def _gaps(self, places: Array) -> list[int]:
        """Which of these subsets do not begin where the one before them ends."""
        return list((np.flatnonzero(self.starts[places[1:]] != (self.starts + self.sizes)[places[:-1]]) + 1).tolist())

    def _whole(self, x: Array, y: Array, places: Array, samples: int) -> tuple[Array, Array, Array]:
        count, features, xp = len(places), x.shape[1], self.processor.xp
        sizes, first = self.sizes[places], int(self.starts[places[0]])
        if self._side_by_side(places, samples):
            rows = slice(first, first + count * samples)
            x, y = x[rows].reshape(count, samples, features), y[rows].reshape(count, samples)
            return x, y, xp.broadcast_to(self._weight, (count, samples))
        column, lengths = xp.arange(samples), self.processor.put(sizes[:, None])
        x, y = self._gather(x, y, places, xp.minimum(column, lengths - 1))
        return x, y, (self.scale * (column < lengths)).astype(x.dtype)

    def _gather(self, x: Array, y: Array, places: Array, offsets: Array) -> tuple[Array, Array]:
        """Copy rows (by their offset in each subset) into the workspace."""
        rows = (self.processor.put(self.starts[places, None]) + offsets).ravel()
        features = x.shape[1]
        if self._workspace.size < rows.size * features:
            self._workspace = self.processor.xp.empty(rows.size * features, dtype=x.dtype)
        taken = self._workspace[: rows.size * features].reshape(rows.size, features)
        self.processor.take(x, rows, taken)
        return taken.reshape(*offsets.shape, features), y[rows].reshape(offsets.shape)
