"""Helpers for arrays of any library: NumPy, CuPy and whatever follows the array API standard."""

from collections.abc import Callable
from functools import cache, reduce
from operator import add
from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Float, Int, Shaped

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
    """The largest squared length."""
    return float(xp.finfo(dtype).max) / (16 * count)


def clear(votes: Float[Array, "votes dim"], mask: Bool[np.ndarray, " votes"]) -> None:
    """Set these votes to zero, wherever they are."""
    if np.count_nonzero(mask):
        votes[beside(mask, votes)] = 0


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


def picked(array: Shaped[Array, "rows *shape"], places: Int[Array, " chosen"]) -> Any:
    """The rows at these places as NumPy's, wherever they are."""
    return array.take(places, axis=0) if isinstance(array, np.ndarray) else fetched(rows(array, places))


def replace(array: Shaped[Array, "rows *shape"], places: Int[Array, " chosen"], values: Any) -> None:
    """Put values into the rows at these places, wherever they are; NumPy's, or such as are there."""
    array[beside(places, array)] = beside(values, array)


def on_host(array: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A float64 copy for NumPy: for small matrices that are searched, not computed with."""
    return np.array(fetched(array), np.float64)


def beside(values: Any, array: Array) -> Any:
    """NumPy's values in the memory where an array is; what is there already as it is."""
    if isinstance(array, np.ndarray) or not isinstance(values, np.ndarray):
        return values
    return namespace(array).asarray(values, device=array.device)


def as_type(array: Shaped[Array, "*shape"], dtype: Any) -> Shaped[Array, "*shape"]:
    """The array in this type, a copy only where it has another. NumPy's method is faster than its function."""
    if isinstance(array, np.ndarray):
        return array.astype(dtype, copy=False)
    return namespace(array).astype(array, dtype, copy=False)


def shaped(array: Array, *shape: int) -> Array:
    """The array in this shape. NumPy's method is faster than its function."""
    return array.reshape(shape) if isinstance(array, np.ndarray) else namespace(array).reshape(array, shape)


def assign(out: Array, values: Any) -> None:
    """out[...] = values, which may be NumPy's and of another type."""
    out[...] = values if isinstance(out, np.ndarray) else as_type(beside(values, out), out.dtype)


def into(function: Callable[..., Array], *words: Any, out: Array, **options: Any) -> None:
    """out[...] = function(*words); without an array between the two where the library can, as NumPy does."""
    if isinstance(out, np.ndarray):
        function(*words, out=out, **options)
    else:
        out[...] = function(*words, **options)


def into_rows(function: Callable[..., Array], out: Array, values: Any, mask: Bool[Array, " rows"]) -> None:
    """out[...] = function(out, values) in some of the rows, wherever they are; the mask is NumPy's."""
    if isinstance(out, np.ndarray):
        function(out, values, out=out, where=mask[:, None])
    else:
        out[...] = namespace(out).where(beside(mask, out)[:, None], function(out, values), out)


def flat_places(places: Any, dim: int) -> Any:
    """Places in rows of ``dim`` numbers as those in all rows one after the other."""
    xp = namespace(places)
    return places + dim * xp.arange(places.shape[0], device=places.device)[:, None]


def put_flat(array: Float[Array, "rows dim"], flat: Any, values: Any) -> None:
    """Numbers, or one for all, to places of ``flat_places``, wherever the array is."""
    if isinstance(array, np.ndarray):
        array.put(flat, values)  # faster than any index
        return
    xp = namespace(array)
    numbers = xp.reshape(array, (-1,))  # the same memory
    if not isinstance(values, float):
        values = xp.reshape(beside(values, array), (-1,))
    numbers[xp.reshape(beside(flat, array), (-1,))] = values


def take_flat(array: Float[Array, "rows dim"], flat: Any) -> Any:
    """The numbers at places of ``flat_places``, where the array is."""
    if isinstance(array, np.ndarray):
        return array.take(flat)
    xp = namespace(array)
    found = xp.take(xp.reshape(array, (-1,)), xp.reshape(beside(flat, array), (-1,)), axis=0)
    return xp.reshape(found, flat.shape)


def numpy_type(array: Float[Array, "*shape"]) -> np.dtype[Any]:
    """The type of an array's floats as NumPy names it: CuPy has the same names."""
    dtype = array.dtype
    return dtype if isinstance(dtype, np.dtype) else np.dtype(f"f{namespace(array).finfo(dtype).bits // 8}")


def rows(votes: Float[Array, "votes dim"], indices: Any) -> Float[Array, "chosen dim"]:
    """The votes at these places, which NumPy found."""
    xp = namespace(votes)
    return xp.take(votes, xp.asarray(indices, device=votes.device), axis=0)


def shrink_to(length: float, lengths: Float[Array, " votes"]) -> Float[Array, " votes"]:
    """The factors that make vectors of these lengths no longer than ``length``."""
    xp = namespace(lengths)
    longer = lengths > length
    return xp.where(longer, length / xp.where(longer, lengths, xp.ones_like(lengths)), xp.ones_like(lengths))
