"""Helpers for arrays of any library: NumPy, CuPy and whatever follows the array API standard."""

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_cupy_array, is_numpy_array

from mpicoded.algorithms.shapes import Array, Float

_FAR = 64  # squared distances: eight times further away than its neighbours are
_BLOCK_BYTES = 1 << 18  # a block of columns and its sorted copy stay in a core's own cache


def namespace(array: Array) -> Any:
    """The array's library in the array API standard's terms."""
    return array_namespace(array)


def as_floats(votes: Array) -> Array:
    """Votes of floats as they are; integers, which could hold no mean, as float64."""
    xp = namespace(votes)
    return votes if xp.isdtype(votes.dtype, "real floating") else xp.astype(votes, xp.float64)


def store(result: Array, out: Array | None) -> Array:
    """The result, in ``out`` where one is given."""
    if out is None or out is result:
        return result
    out[...] = result
    return out


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


def centred_gram(
    votes: Float[Array, "votes dim"],
) -> tuple[Float[Array, " dim"], Float[Array, "votes votes"]]:
    """A centre, and the inner products of the votes' offsets from it.

    Differences of honest votes drown in rounding where the centre is far from them. The vote of median norm is a
    good guess, no longer than some honest vote when fewer than half are Byzantine. Where it is far from the vote
    that has most others near (a Byzantine one of honest length, say a negated one), that vote takes its place.
    """
    votes, xp = as_floats(votes), namespace(votes)
    middle = votes.shape[0] // 2
    centre = votes[int(xp.argsort(xp.sum(votes * votes, axis=-1))[middle]), :]
    offsets = votes - centre[None, :]
    gram = offsets @ xp.matrix_transpose(offsets)
    typical = xp.sort(pair_distances(gram), axis=-1)[:, middle]
    best = int(xp.argmin(typical))
    if float(gram[best, best]) > _FAR * float(typical[best]):
        centre = votes[best, :]
        offsets = votes - centre[None, :]
        gram = offsets @ xp.matrix_transpose(offsets)
    return centre, gram


def pair_distances(gram: Float[Array, "votes votes"]) -> Float[Array, "votes votes"]:
    """Squared distances of all pairs of points with these inner products."""
    xp = namespace(gram)
    squares = xp.linalg.diagonal(gram)
    distances = squares[:, None] + squares[None, :] - 2 * gram
    distances = xp.where(distances > 0, distances, xp.zeros_like(distances))
    return distances * (1 - xp.eye(gram.shape[0], dtype=gram.dtype, device=gram.device))


def squared_distances(votes: Float[Array, "votes dim"]) -> Float[Array, "votes votes"]:
    """Squared distances of all pairs of votes, from one product of the votes with themselves."""
    return pair_distances(centred_gram(votes)[1])


def replace_unusable(
    votes: Float[Array, "votes dim"], arrived: Any, count: int
) -> tuple[Float[Array, "votes dim"], Any]:
    """Replace what no rule could use by zero votes; return the votes and which were bad although they arrived.

    This is the one place where missing and non-finite messages are handled. A message is unusable when it
    did not arrive, holds NaN or inf, or is so large that distances between ``count`` votes would overflow. A zero vote
    in its place counts as one of the Byzantine votes that the rule tolerates. The votes are changed in place.
    """
    xp = namespace(votes)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = xp.vecdot(votes, votes, axis=-1)
    usable = norms <= xp.finfo(votes.dtype).max / (16 * count)  # False for NaN as well
    bad = ~usable & arrived
    replaced = ~usable | ~arrived
    if xp.any(replaced):
        votes[replaced] = 0
    return votes, bad


def on_host(array: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A float64 copy for NumPy: for small matrices that are searched, not computed with."""
    return np.array(array.get() if is_cupy_array(array) else array, np.float64)


def rows(votes: Float[Array, "votes dim"], indices: Any) -> Float[Array, "chosen dim"]:
    """The votes at these places, which NumPy found."""
    xp = namespace(votes)
    return xp.take(votes, xp.asarray(indices, device=votes.device), axis=0)


def shrink_to(length: float, lengths: Float[Array, " votes"]) -> Float[Array, " votes"]:
    """The factors that make vectors of these lengths no longer than ``length``."""
    xp = namespace(lengths)
    longer = lengths > length
    return xp.where(longer, length / xp.where(longer, lengths, xp.ones_like(lengths)), xp.ones_like(lengths))
