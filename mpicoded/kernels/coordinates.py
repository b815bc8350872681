"""Middle values and means of each coordinate's votes: a sorting network over rows, many coordinates side by side.

A block of columns is copied row by row, so that memory is read in long stretches. Of that block a tile of a few columns
goes through the network's steps in a core's first cache, whole vectors in registers; meanwhile the next block is
fetched. A mean is a sum, in the votes' order, of what lies between two ranks, so that each column's result depends on
that column alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import from_dtype, njit, types

from mpicoded.kernels.compiling import compiled
from mpicoded.kernels.lanes import VECTOR, copy, excess, fetch, nearest, step_of
from mpicoded.kernels.networks import PATTERNS, order, select

_ROW = 8 * VECTOR  # bytes of a tile's row
_BLOCK = 1 << 17  # bytes of votes that are copied at a time: they stay in the second cache


def middle(votes: Any, first: int, last: int, kept: int, out: Any) -> None:
    """Per column the mean of the ranks ``first`` to ``last``; or, where ``kept`` > 0, of so many nearest to it.

    ``votes``: (votes, dim), rows contiguous; ``out``: (dim,), contiguous.
    """
    count, dim = votes.shape
    program = order(count, first, last, count - kept + 1) if kept else select(count, first, last)
    stride = votes.strides[0] // votes.itemsize
    flat = votes.reshape(-1) if votes.flags.c_contiguous else _stretch(votes, (count - 1) * stride + dim)
    lanes = _ROW // votes.itemsize
    width = max(lanes, min(_BLOCK // (count * votes.itemsize), dim) // lanes * lanes)
    shape = flat, stride, count, dim, lanes, width
    steps = program.patterns, program.starts, program.rows
    ranks = program.low, program.high, last - first + 1, count - 1 - last, kept
    _of_type(votes.dtype)(*shape, *steps, *ranks, out)


def _stretch(votes: Any, numbers: int) -> Any:
    """The memory from the first vote to the last, with what lies between rows."""
    return np.lib.stride_tricks.as_strided(votes, (numbers,), (votes.itemsize,))


@functools.cache
def _of_type(dtype: np.dtype[Any]) -> Callable[..., None]:
    """The loop for numbers of this type."""
    number, index, table = from_dtype(dtype), types.intp, types.Array(types.int32, 1, "C", readonly=True)
    votes, out = types.Array(number, 1, "C", readonly=True), types.Array(number, 1, "C")
    signature = types.void(votes, *[index] * 5, table, table, table, *[index] * 5, out)
    function: Callable[..., None] = compiled(signature)(_middle)
    return function


(_sort16, _sort8, _sort4, _sort2, _merge, _half8, _half4, _half2, _largest, _smallest) = map(
    step_of, range(len(PATTERNS))
)


@njit
def _network(block: Any, width: Any, column: Any, tile: Any, lanes: Any, patterns: Any, starts: Any, rows: Any,
             votes: Any, source: Any, stride: Any, ahead: Any) -> None:  # fmt: skip
    """All steps on one tile; between them a piece of the block after this one is fetched."""
    fetched = 0
    for number in range(len(patterns)):
        pattern, line = patterns[number], starts[number]
        until = (number + 1) * votes // len(patterns) if ahead >= 0 else 0
        while fetched < until:
            fetch(source, fetched * stride + ahead, lanes)
            fetched += 1
        if pattern == 0:
            _sort16(block, width, column, tile, lanes, rows, line)
        elif pattern == 1:
            _sort8(block, width, column, tile, lanes, rows, line)
        elif pattern == 2:
            _sort4(block, width, column, tile, lanes, rows, line)
        elif pattern == 3:
            _sort2(block, width, column, tile, lanes, rows, line)
        elif pattern == 4:
            _merge(tile, lanes, 0, tile, lanes, rows, line)
        elif pattern == 5:
            _half8(tile, lanes, 0, tile, lanes, rows, line)
        elif pattern == 6:
            _half4(tile, lanes, 0, tile, lanes, rows, line)
        elif pattern == 7:
            _half2(tile, lanes, 0, tile, lanes, rows, line)
        elif pattern == 8:
            _largest(tile, lanes, 0, tile, lanes, rows, line)
        else:
            _smallest(tile, lanes, 0, tile, lanes, rows, line)


@njit
def _halfway(low: Any, high: Any, result: Any) -> None:
    """The mean of two values; never a negative zero."""
    two, zero = low.dtype.type(2), low.dtype.type(0)
    for lane in range(len(result)):
        result[lane] = low[lane] / two + high[lane] / two + zero


@njit
def _mean(total: Any, low: Any, high: Any, above: Any, kept: Any, result: Any) -> None:
    """low + (total - above (high - low)) / kept: the mean of ``kept`` values from ``low`` to ``high``."""
    zero, count = low.dtype.type(0), low.dtype.type(kept)
    for lane in range(len(result)):
        excess = total[lane] - above[lane] * (high[lane] - low[lane])
        result[lane] = low[lane] + (excess if excess > zero else zero) / count


def _middle(
    flat: Any, stride: Any, votes: Any, dim: Any, lanes: Any, width: Any, patterns: Any, starts: Any, rows: Any,
    low: Any, high: Any, count: Any, above: Any, kept: Any, out: Any,
) -> None:  # fmt: skip
    """``low`` and ``high``: rows of the ``count`` middle values' first and last; ``above``: how many are larger."""
    tile = np.empty((votes + 4) * lanes, flat.dtype)
    tile[votes * lanes : (votes + 1) * lanes] = np.inf
    tile[(votes + 1) * lanes : (votes + 2) * lanes] = -np.inf
    block = np.zeros((votes + 1) * width, flat.dtype)
    block[votes * width :] = np.inf
    centre, lowest, highest, total, beyond = np.empty((5, lanes), flat.dtype)
    lower, upper = tile[low * lanes : (low + 1) * lanes], tile[high * lanes : (high + 1) * lanes]
    for begin in range(0, dim, width):
        here = min(width, dim - begin)
        for row in range(votes):
            copy(block, row * width, flat, row * stride + begin, here)
        for column in range(0, here, lanes):
            ahead = begin + width + column
            ahead = ahead if ahead + lanes <= dim else -1
            _network(block, width, column, tile, lanes, patterns, starts, rows, votes, flat, stride, ahead)
            if count > 2:
                excess(block, width, column, votes, lower, upper, total, lanes)
                beyond[:] = above
                _mean(total, lower, upper, beyond, count, centre)
            else:
                _halfway(lower, upper, centre)
            if kept:
                nearest(tile, votes, kept, centre, lowest, highest, beyond, lanes)
                excess(block, width, column, votes, lowest, highest, total, lanes)
                _mean(total, lowest, highest, beyond, kept, centre)
            until = min(lanes, here - column)
            out[begin + column : begin + column + until] = centre[:until]
