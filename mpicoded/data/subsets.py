"""Split samples into subsets: returns the order of the samples, and where each subset starts in it."""

from typing import Literal

import numpy as np

from mpicoded.algorithms.shapes import Array, Int, Shaped
from mpicoded.errors import InputError

_LARGEST_ALPHA = 1e9  # all subsets alike long before; far beyond, the draws overflow
Split = Literal["iid", "by_label", "dirichlet"]


def split(
    y: Shaped[Array, " samples"],
    subsets: int,
    kind: Split,
    rng: np.random.Generator,
    alpha: float = 1.0,
) -> tuple[Int[Array, " samples"], Int[Array, " subsets+1"]]:
    """Order of the samples and offsets of the subsets.

    ``iid``: at random, equal sizes (they differ by one at most). ``by_label``: sorted by target, then cut into
    equal sizes, so that a subset holds one or two labels. ``dirichlet``: each label's samples are dealt
    out by shares drawn from Dirichlet(alpha), as in Hsu et al. 2019; smaller alpha, more skew; sizes
    differ and a subset may be empty.
    """
    if not 1 <= subsets <= len(y):
        raise InputError(f"subsets must be from 1 to the {len(y)} samples, got {subsets}")
    order = rng.permutation(len(y))
    if kind == "dirichlet":
        return _dirichlet(y, order, subsets, rng, alpha)
    if kind == "by_label":
        order = order[np.argsort(y[order], kind="stable")]
    return order, np.arange(subsets + 1) * len(y) // subsets


def _dirichlet(
    y: Shaped[Array, " samples"],
    order: Int[Array, " samples"],
    subsets: int,
    rng: np.random.Generator,
    alpha: float,
) -> tuple[Int[Array, " samples"], Int[Array, " subsets+1"]]:
    if y.dtype.kind != "i":
        raise InputError("split dirichlet needs labels, but the target is a real number: use iid or by_label")
    if not 0 < alpha <= _LARGEST_ALPHA:
        raise InputError(f"alpha must be > 0 and at most {_LARGEST_ALPHA:g}, got {alpha}")
    owner = np.empty(len(y), np.int64)
    for label in np.unique(y):
        mine = order[y[order] == label]
        shares = rng.dirichlet(np.full(subsets, alpha))
        ends = np.round(np.cumsum(shares) * len(mine)).astype(np.int64)
        owner[mine] = np.minimum(np.searchsorted(ends, np.arange(len(mine)), side="right"), subsets - 1)
    counts = np.bincount(owner, minlength=subsets)
    return order[np.argsort(owner[order], kind="stable")], np.concatenate([[0], np.cumsum(counts)])
