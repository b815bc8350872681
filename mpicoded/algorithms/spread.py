"""How far coded messages are from the gradient, from the code alone; and how far numbers are from each other."""

from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.products import Rows
from mpicoded.algorithms.shapes import Array, Bool, Float

_NORMAL = 1.4826  # the standard deviation of normal numbers in units of their median absolute deviation


class Spread(NamedTuple):
    """How far a coded message is from the gradient, for subsets whose differences are random."""

    rho: float  # E ||g_i - grad F||^2 / beta^2
    bias: float  # the share of ||grad F||^2 that comes on top, where a message's weights do not sum to one


def spread(weights: Rows) -> Spread:
    """From a code's weights (messages, subsets): the mean over messages.

    beta^2 = (1/M) sum_k ||grad f_k - grad F||^2. Over random orders of the subsets, the deviations of a message with
    weights w add up to M/(M-1) (sum w^2 - (sum w)^2/M) beta^2; for the mean of d gradients that is
    (M-d)/(d(M-1)), with M = N LAD's rho = (N-d)/(d(N-1)).
    """
    subsets, row = weights.width, np.repeat(np.arange(weights.height), np.diff(weights.starts))
    totals, squares = (np.bincount(row, each, weights.height) for each in (weights.values, weights.values**2))
    rho = np.mean(squares - totals**2 / subsets) * subsets / (subsets - 1) if subsets > 1 else 0.0
    return Spread(max(float(rho), 0.0), float(np.mean((totals - 1) ** 2)))


def deviations(
    values: Float[Array, "*kinds votes"], kept: Bool[Array, " votes"], least: float = 0.0
) -> Float[Array, "*kinds votes"]:
    """Robust z-scores along the last axis: from the median of those kept, in units of their robust deviation.

    That is 1.4826 times the median of |value - median|, or ``least`` where it is less. Where both are zero, what is
    off the median is infinitely far.
    """
    some = slice(None) if kept.all() else kept  # to pick all takes as long as to sort them
    off = values - _median(values[..., some])
    far = np.abs(off)
    robust = _NORMAL * _median(far[..., some])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(far > 0, off / np.maximum(robust, least), 0.0)


def _median(values: Float[Array, "*kinds votes"]) -> Float[Array, "*kinds 1"]:
    """Along the last axis: NumPy's own takes five times as long for a few hundred numbers."""
    ordered, count = np.sort(values, axis=-1), values.shape[-1]
    low, high = ordered[..., (count - 1) // 2, None], ordered[..., count // 2, None]
    middle = low if count % 2 else (low + high) / 2
    return np.where(np.isnan(ordered[..., -1, None]), np.nan, middle)  # NaN is sorted last
