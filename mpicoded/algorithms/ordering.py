"""The votes of each coordinate in ascending order, and means of a part of them.

Coordinate j of a mean depends on coordinate j of the votes alone, bit for bit: wherever it stands, and whether NumPy
or a compiled loop works on it, so that slices of the coordinates may be worked anywhere. (Of votes that are finite, and
whose differences and sums are: others the server clears when it receives them.)
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from mpicoded.algorithms.arrays import STRETCH, as_floats, namespace, store
from mpicoded.algorithms.shapes import Array, Float

_BLOCK_BYTES = 1 << 19  # a block of columns stays in the caches; calls take long enough to be worth their overhead
_WORTH_COMPILING = 1 << 18  # coordinates in all: NumPy takes about as long for them as compiling the loop does
_COMPILED = {np.dtype(kind).str for kind in (np.float32, np.float64)}
_ordered: dict[Any, int] = {}  # coordinates so far, by what a compiled loop is made for
_expected: dict[int, int] = {}  # coordinates to come, by how many votes there are


def per_coordinate(
    votes: Float[Array, "votes dim"],
    reduce: Callable[[Any, Array], Array],
    out: Float[Array, " dim"] | None = None,
) -> Float[Array, " dim"]:
    """Apply ``reduce`` to each coordinate's votes in ascending order.

    ``reduce(xp, ordered)`` takes (coordinates, votes), sorted along the last axis, and returns one number
    for each coordinate. On the CPU the coordinates are worked in blocks that fit the cache.
    """
    votes, xp = as_floats(votes), namespace(votes)
    if not isinstance(votes, np.ndarray):
        return store(reduce(xp, xp.sort(xp.matrix_transpose(votes), axis=-1)), out)
    if out is None:
        out = np.empty(votes.shape[1], votes.dtype)
    for columns, ordered in _blocks(votes):
        out[columns] = reduce(xp, ordered)
    return out


def middle_mean(
    votes: Float[Array, "votes dim"], first: int, last: int, out: Float[Array, " dim"] | None = None
) -> Float[Array, " dim"]:
    """For each coordinate the mean of the ranks ``first`` to ``last``, counted from zero."""
    return _mean(votes, first, last, None, out)


def nearest_mean(
    votes: Float[Array, "votes dim"], first: int, last: int, kept: int, out: Float[Array, " dim"] | None = None
) -> Float[Array, " dim"]:
    """For each coordinate the mean of the ``kept`` values nearest to what ``middle_mean`` gives.

    Of two values equally near, the smaller.
    """
    return _mean(votes, first, last, kept, out)


def expect(votes: int, coordinates: int) -> None:
    """So many votes will be ordered, for so many coordinates in all: a loop for them may be compiled with the first."""
    _expected[votes] = coordinates


def _mean(votes: Array, first: int, last: int, kept: int | None, out: Array | None) -> Array:
    votes, xp = as_floats(votes), namespace(votes)
    if not isinstance(votes, np.ndarray):
        return _elsewhere(xp, votes, first, last, kept, out)
    votes = _rows_contiguous(votes)
    if out is None:
        out = np.empty(votes.shape[1], votes.dtype)
    loop = _loop(votes, first, last, kept or 0)
    if loop is None:
        for columns, ordered in _blocks(votes):
            out[columns] = _of_sorted(xp, votes[:, columns], ordered, first, last, kept)
    elif _takes_results(out, votes):
        loop(votes, out)
    else:
        out[...] = _mean(votes, first, last, kept, None)
    return out


def _takes_results(out: Array, votes: Array) -> bool:
    """Whether a loop that checks nothing may write there."""
    fits = out.shape == votes.shape[1:] and out.dtype == votes.dtype and out.flags.c_contiguous and out.flags.writeable
    return fits and not np.may_share_memory(out, votes)


def _loop(votes: Array, first: int, last: int, kept: int) -> Callable[[Array, Array], None] | None:
    """A compiled loop for votes like these, where it is worth it."""
    of = len(votes), first, last, kept, votes.dtype.str
    coordinates = _ordered[of] = _ordered.get(of, 0) + votes.shape[1]
    if coordinates + _expected.get(of[0], 0) < _WORTH_COMPILING or of[-1] not in _COMPILED:
        return None
    middle = _compiled()
    return None if middle is None else middle(*of)


def _elsewhere(xp: Any, votes: Array, first: int, last: int, kept: int | None, out: Array | None) -> Array:
    """The same of another library's arrays: on a GPU by a compiled loop, where there is one for so many votes."""
    from mpicoded.kernels import cuda

    if cuda.takes(votes):
        return cast("Array", cuda.middle(votes, first, last, kept or 0, out))

    def of(part: Array) -> Array:
        ordered = xp.sort(xp.matrix_transpose(part), axis=-1)
        return _of_sorted(xp, part, ordered, first, last, kept)

    dim = votes.shape[1]
    found = [of(votes[:, start : min(start + STRETCH, dim)]) for start in range(0, dim, STRETCH)]
    return store(found[0] if len(found) == 1 else xp.concat(found), out)


def _blocks(votes: Float[Array, "votes dim"]) -> Iterator[tuple[slice, Float[Array, "columns votes"]]]:
    """Columns, and their votes in ascending order."""
    count, dim = votes.shape
    width = max(16, _BLOCK_BYTES // (count * votes.itemsize))
    block = np.empty((min(width, dim), count), votes.dtype)
    for start in range(0, dim, width):
        columns = slice(start, min(start + width, dim))
        ordered = block[: columns.stop - start]
        np.copyto(ordered, votes[:, columns].T)
        ordered.sort(axis=-1)
        yield columns, ordered


def _of_sorted(xp: Any, votes: Array, ordered: Array, first: int, last: int, kept: int | None) -> Array:
    """What the compiled loop computes, in the same order."""
    count = votes.shape[0]
    low, high = ordered[:, first], ordered[:, last]
    if last - first < 2:
        result = low / 2 + high / 2 + 0.0  # never a negative zero, whichever of two zeros was sorted first
    else:
        result = _mean_between(xp, votes, low, high, count - 1 - last, last - first + 1)
    if kept is None:
        return result
    too_low = result[:, None] - ordered[:, : count - kept] > ordered[:, kept:] - result[:, None]
    start = xp.sum(xp.astype(too_low, xp.int64), axis=-1, keepdims=True)
    low, high = (xp.take_along_axis(ordered, start + place, axis=-1)[:, 0] for place in (0, kept - 1))
    return _mean_between(xp, votes, low, high, xp.astype(count - kept - start[:, 0], votes.dtype), kept)


def _mean_between(xp: Any, votes: Array, low: Array, high: Array, above: Any, kept: int) -> Array:
    """The mean of the ``kept`` values from ``low`` to ``high``, of which ``above`` others are no smaller than the last.

    low + (sum of min(max(x - low, 0), high - low) - above (high - low)) / kept: no value outside is ever added, so that
    none can wipe out the digits of those inside, and the order of the sum is that of the votes.
    """
    low, range_ = low + 0.0, high - low  # side by side: they are read once a vote
    zero = xp.zeros_like(range_)
    parts = votes - low[None, :]
    in_place = {"out": parts} if isinstance(parts, np.ndarray) else {}
    parts = xp.minimum(xp.maximum(parts, zero[None, :], **in_place), range_[None, :], **in_place)
    excess = _sum_of_rows(xp, parts) - above * range_
    return low + xp.maximum(excess, zero) / kept


def _sum_of_rows(xp: Any, parts: Array) -> Array:
    """First to last: NumPy adds a single column up in another order than several."""
    return xp.sum(parts, axis=0) if parts.shape[1] > 1 else xp.cumulative_sum(parts, axis=0)[-1, :]


def _rows_contiguous(votes: Array) -> Array:
    """The votes, in a copy where a row's numbers are not side by side: sums would have another order."""
    fits = votes.strides[1] == votes.itemsize and votes.strides[0] % votes.itemsize == 0 and votes.strides[0] > 0
    return votes if fits else np.ascontiguousarray(votes)


@functools.cache
def _compiled() -> Callable[..., Callable[[Array, Array], None]] | None:
    """What makes compiled loops, where llvmlite is installed."""
    if importlib.util.find_spec("llvmlite") is None:
        return None
    from mpicoded.kernels.coordinates import middle

    return middle
