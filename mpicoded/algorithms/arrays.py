"""Helpers for arrays of any library: NumPy, CuPy and whatever follows the array API standard."""

from functools import cache, reduce
from operator import add
from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Float, Shaped

STRETCH = 1 << 19  # coordinates: what is made of so many beside the votes is small on a GPU, and keeps it busy


def namespace(array: Array) -> Any:
    """The array's library in the array API standard's terms."""
    if isinstance(array, np.ndarray):  # NumPy follows the standard by itself
        return np
    from array_api_compat import array_namespace  # takes a quarter of a second, on every rank

    return array_namespace(array)


def as_floats(votes: Array) -> Array:
    """Votes of floats as they are; integers, which could hold no mean, as float64."""
    if isinstance(votes, np.ndarray) and votes.dtype.kind == "f":  # the standard's question takes longer than a sum
        return votes
    xp = namespace(votes)
    return votes if xp.isdtype(votes.dtype, "real floating") else xp.astype(votes, xp.float64)


def store(result: Array, out: Array | None) -> Array:
    """The result, in ``out`` where one is given."""
    if out is None or out is result:
        return result
    out[...] = result
    return out


def replace_unusable(
    votes: Float[Array, "votes dim"], arrived: Any, count: int
) -> tuple[Float[Array, "votes dim"], Any]:
    """Replace what no rule could use by zero votes; return the votes and which were bad although they arrived.

    This is the one place where missing and non-finite messages are handled. A message is unusable when it
    did not arrive, holds NaN or inf, or is so large that distances between ``count`` votes would overflow. A zero vote
    in its place counts as one of the Byzantine votes that the rule tolerates. The votes are changed in place, wherever
    they are; ``arrived`` and what was bad are NumPy's.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        unusable = ~short(votes, count)
    clear(votes, unusable | ~arrived)
    return votes, unusable & arrived


def short(votes: Float[Array, "votes dim"], count: int) -> Bool[np.ndarray, " votes"]:
    """Which votes are finite, and short enough that distances between ``count`` of them are. Floats may overflow."""
    most = _longest(namespace(votes), votes.dtype, count)
    found: Bool[np.ndarray, " votes"] = fetched(squared_lengths(votes) <= most)  # False for NaN as well
    return found


@cache
def _longest(xp: Any, dtype: Any, count: int) -> float:
    """Squared."""
    return float(xp.finfo(dtype).max) / (16 * count)


def clear(votes: Float[Array, "votes dim"], mask: Bool[np.ndarray, " votes"]) -> None:
    """Set these votes to zero, wherever they are."""
    if np.count_nonzero(mask):
        votes[namespace(votes).asarray(mask, device=votes.device)] = 0


def squared_lengths(vectors: Float[Array, "votes dim"]) -> Float[Array, " votes"]:
    """The inner product of each vector with itself."""
    if isinstance(vectors, np.ndarray):
        return np.vecdot(vectors, vectors)
    xp, dim = namespace(vectors), vectors.shape[1]
    stretches = (vectors[:, start : min(start + STRETCH, dim)] for start in range(0, dim, STRETCH))
    return reduce(add, (xp.sum(some * some, axis=-1) for some in stretches))


def fetched(array: Array) -> Any:
    """The same as one of NumPy's, for what is small."""
    return array.get() if hasattr(array, "get") else np.asarray(array)  # CuPy has no other way


def picked(array: Shaped[Array, "rows *shape"], mask: Bool[Array, " rows"]) -> Any:
    """Some of the rows as NumPy's, wherever they are."""
    return array[mask] if isinstance(array, np.ndarray) else fetched(rows(array, np.flatnonzero(mask)))


def replace(array: Shaped[Array, "rows *shape"], mask: Bool[Array, " rows"], values: Any) -> None:
    """Put values into some of the rows, wherever they are; NumPy's, or such as are there."""
    if isinstance(array, np.ndarray):
        array[mask] = values
        return
    xp = namespace(array)
    array[xp.asarray(np.flatnonzero(mask), device=array.device)] = xp.asarray(values, device=array.device)


def on_host(array: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A float64 copy for NumPy: for small matrices that are searched, not computed with."""
    return np.array(fetched(array), np.float64)


def rows(votes: Float[Array, "votes dim"], indices: Any) -> Float[Array, "chosen dim"]:
    """The votes at these places, which NumPy found."""
    xp = namespace(votes)
    return xp.take(votes, xp.asarray(indices, device=votes.device), axis=0)


def shrink_to(length: float, lengths: Float[Array, " votes"]) -> Float[Array, " votes"]:
    """The factors that make vectors of these lengths no longer than ``length``."""
    xp = namespace(lengths)
    longer = lengths > length
    return xp.where(longer, length / xp.where(longer, lengths, xp.ones_like(lengths)), xp.ones_like(lengths))
