"""Products of a code's sparse weights with gradients, into memory that is there already."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.shapes import Array, Float, Int

_FEW, _FEW_IN_ALL = 1 << 19, 1 << 28  # numbers that are added up in a round, and in a run, so that NumPy alone will do
_WHOLE = 4 << 20  # bytes of gradients that are worked as they are: the caches hold most of them
_PIECE = 1 << 20  # bytes of gradients and results in a piece of larger ones


class Rows(NamedTuple):
    """A sparse matrix, row by row: row i has ``values`` at ``columns``, both from starts[i] to starts[i + 1]."""

    values: Float[Array, " nonzero"]
    columns: Int[Array, " nonzero"]
    starts: Int[Array, " rows+1"]
    width: int  # number of columns
    gathered: bool = False
    """Whether NumPy sums up: rows are equally long, values equal, and the run so short that SciPy is not worth loading.

    Its sparse package takes 0.15 s on each rank.
    """

    @classmethod
    def at(
        cls, row: Int[Array, " nonzero"], columns: Int[Array, " nonzero"], values: Array, height: int, width: int
    ) -> "Rows":
        """From the row of each value as well, ascending."""
        starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=height))])
        return cls(values, columns, starts, width)

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    def sparse(self) -> Any:
        """The same as SciPy's csr_array."""
        from scipy.sparse import csr_array

        return csr_array((self.values, self.columns, self.starts), shape=(self.height, self.width))

    def dense(self) -> Float[Array, "rows columns"]:
        """The same with all zeros."""
        found = np.zeros((self.height, self.width), self.values.dtype)
        found[np.repeat(np.arange(self.height), np.diff(self.starts)), self.columns] = self.values
        return found


def worth_gathering(numbers: int, rounds: int) -> bool:
    """Whether a run that adds up so many numbers in each round should do it with NumPy: the same on all ranks."""
    return numbers <= _FEW and numbers * rounds <= _FEW_IN_ALL


class SparseProduct:
    """weights @ gradients. Each message is summed in the order of its row, whatever other rows there are."""

    def __init__(self) -> None:
        self._work = np.empty(0, np.uint8)

    def __call__(
        self, weights: Rows, gradients: Float[Array, "subsets dim"], out: Float[Array, "messages dim"]
    ) -> Float[Array, "messages dim"]:
        """``out`` = weights @ gradients, all contiguous and of one type."""
        dim, dtype = gradients.shape[1], gradients.dtype
        if weights.gathered:
            scaled, terms = self._room((len(gradients), len(weights.values)), dim, dtype)
            np.multiply(gradients, weights.values[:1], out=scaled)
            np.take(scaled, weights.columns, axis=0, out=terms, mode="clip")
            np.sum(terms.reshape(len(out), -1, dim), axis=1, out=out)
            return out
        if gradients.nbytes <= _WHOLE:
            return _multiply(weights, gradients, out)
        width = max(64, _PIECE // ((len(gradients) + len(out)) * dtype.itemsize))
        for start in range(0, dim, width):
            piece = slice(start, min(start + width, dim))
            some, found = self._room((len(gradients), len(out)), piece.stop - start, dtype)
            some[...] = gradients[:, piece]
            out[:, piece] = _multiply(weights, some, found)
        return out

    def _room(self, counts: tuple[int, int], width: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Two matrices of so many rows each."""
        nbytes = sum(counts) * width * dtype.itemsize
        if self._work.size < nbytes:
            self._work = np.empty(nbytes, np.uint8)
        both = self._work[:nbytes].view(dtype).reshape(-1, width)
        return both[: counts[0]], both[counts[0] :]


def _multiply(weights: Rows, gradients: Array, out: Array) -> Array:
    out[...] = 0
    shape = weights.height, weights.width, gradients.shape[1]
    _csr_matvecs()(*shape, weights.starts, weights.columns, weights.values, gradients.ravel(), out.ravel())
    return out


@functools.cache
def _csr_matvecs() -> Callable[..., None]:
    """What SciPy's own ``@`` calls. That has no ``out``: as much as all messages would be allocated in every round."""
    from scipy.sparse import _sparsetools

    found: Callable[..., None] = _sparsetools.csr_matvecs
    return found
