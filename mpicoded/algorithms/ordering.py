"""The votes of each coordinate in ascending order, worked in blocks that stay in a core's cache."""

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array

from mpicoded.algorithms.arrays import as_floats, namespace, store
from mpicoded.algorithms.shapes import Array, Float

_BLOCK_BYTES = 1 << 18  # a block of columns and its sorted copy stay in a core's own cache


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
    if not is_numpy_array(votes):
        return store(reduce(xp, xp.sort(xp.matrix_transpose(votes), axis=-1)), out)
    count, dim = votes.shape
    if out is None:
        out = np.empty(dim, votes.dtype)
    width = max(16, _BLOCK_BYTES // (count * votes.itemsize))
    block = np.empty((min(width, dim), count), votes.dtype)
    for start in range(0, dim, width):
        stop = min(start + width, dim)
        part = block[: stop - start]
        np.copyto(part, votes[:, start:stop].T)
        part.sort(axis=-1)
        out[start:stop] = reduce(xp, part)
    return out
