"""Sums over subsets that do not depend on who adds what in which order.

Floats are not associative, so a sum of per-rank sums would change with the number of ranks. Integers are: the
terms are rounded to a common fixed-point grid fine enough for the largest of them, and summed as integers.
"""

import math

import numpy as np

from mpicoded.algorithms.arrays import namespace
from mpicoded.algorithms.shapes import Array, Float, Int


def grid_exponent(largest: float, terms: int) -> int:
    """The exponent e such that ``terms`` numbers of at most ``largest``, in units of 2^-e, sum below 2^62."""
    return 62 - math.ceil(math.log2(terms)) - math.frexp(largest)[1] if largest > 0 else 0


def partial_sum(terms: Float[Array, "terms dim"], exponent: int) -> Int[Array, " dim"]:
    """The sum of some of the terms, on the grid; on a GPU where the terms are there."""
    xp = namespace(terms)
    on_grid = xp.rint(xp.ldexp(terms.astype(np.float64, copy=False), exponent))  # both are CuPy's, too
    return xp.sum(on_grid.astype(np.int64), axis=0)


def total(partials: Int[Array, "parts dim"], exponent: int) -> Float[Array, " dim"]:
    """The sum of all terms, from the partial sums of any split."""
    return np.ldexp(np.sum(partials, axis=0).astype(np.float64), -exponent)
