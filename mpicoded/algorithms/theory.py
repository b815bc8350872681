"""What the papers' theory says of a setting before it is run."""

from collections.abc import Sequence
from math import inf, isinf
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.aggregators import Aggregator
from mpicoded.algorithms.compressors import Compressor, NoCompression
from mpicoded.algorithms.filters import Filter
from mpicoded.algorithms.memories import Memory


class Spread(NamedTuple):
    """How far a coded message is from the gradient, for subsets whose differences are random."""

    rho: float  # E ||g_i - grad F||^2 / beta^2
    bias: float  # the share of ||grad F||^2 that comes on top, where a message's weights do not sum to one


def spread(weights: Any) -> Spread:
    """From a code's weights (messages, subsets), sparse: the mean over messages.

    beta^2 = (1/M) sum_k ||grad f_k - grad F||^2. Over random orders of the subsets, the deviations of a message with
    weights w add up to M/(M-1) (sum w^2 - (sum w)^2/M) beta^2; for the mean of d gradients that is
    (M-d)/(d(M-1)), with M = N LAD's rho = (N-d)/(d(N-1)).
    """
    subsets = weights.shape[1]
    totals = np.asarray(weights.sum(axis=1)).ravel()
    squares = np.asarray(weights.multiply(weights).sum(axis=1)).ravel()
    rho = np.mean(squares - totals**2 / subsets) * subsets / (subsets - 1) if subsets > 1 else 0.0
    return Spread(max(float(rho), 0.0), float(np.mean((totals - 1) ** 2)))


def kappa(aggregator: Aggregator, filters: Sequence[Filter], votes: int, byzantine: int) -> float | None:
    """kappa of filters and rule together; None where the literature has none, infinite where they tolerate fewer."""
    stated = {part.byzantine for part in (*filters, aggregator) if hasattr(part, "byzantine")}
    if min(stated, default=byzantine) < byzantine:
        return inf
    if len(stated) > 1:
        return None  # no theorem joins parts that tolerate different numbers
    byzantine = max(stated, default=byzantine)
    counts = [votes]
    for item in filters:
        counts.append(item.votes(counts[-1]))
    found = aggregator.kappa(counts[-1], byzantine)
    for item, count in reversed(list(zip(filters, counts, strict=False))):
        found = item.kappa(found, count, byzantine)
    return found


def tolerated(aggregator: Aggregator, filters: Sequence[Filter], votes: int) -> int:
    """How many votes may be lies or missing: what filters and rule say, or else what kappa stays finite for."""
    stated: list[int] = [part.byzantine for part in (*filters, aggregator) if hasattr(part, "byzantine")]
    if not hasattr(aggregator, "byzantine"):
        finite = [f for f in range(votes) if not isinf(aggregator.kappa(votes, f) or 0.0)]
        stated.append(max(finite, default=0))
    return min(stated)


def error_floor(rho: float, kappa: float, devices: int, honest: int) -> float:
    """LAD's error floor, in units of beta^2: 2 rho (kappa N (H-1)/(H (N-1)) + (N-H)/(H (N-1)))."""
    if devices == 1:
        return 0.0
    scale = honest * (devices - 1)
    lies = kappa * devices * (honest - 1) / scale if kappa else 0.0
    return 2 * rho * (lies + (devices - honest) / scale)


def compression_penalty(delta: float, kappa: float, honest: int) -> float:
    """delta (kappa + 1/H): a guarantee of Com-LAD needs it below 1/2."""
    return delta * (kappa + 1 / honest) if delta else 0.0


def guarantee(
    compressor: Compressor, memory: Memory, kappa: float | None, dim: int, honest: int, byzantine: int
) -> tuple[bool | None, str]:
    """Whether training provably ends near the optimum (None: nobody knows), and why."""
    if kappa is None:
        return None, "no kappa is known for this rule with these filters"
    if isinf(kappa):
        return False, f"kappa is unbounded: {byzantine} Byzantine devices are more than these parts withstand"
    if memory.remembers:
        alpha = compressor.contraction(dim) or 0.0
        return None, f"error feedback (contraction {alpha:.3g}) has a theory of its own, which is not Com-LAD's"
    delta = compressor.variance(dim)
    if isinstance(compressor, NoCompression) and delta is None:
        return None, f"rounding to {compressor.dtype} is biased, by little as long as numbers fit"
    if delta is None:
        return None, "the compressor is biased and nothing feeds its error back"
    if delta == 0:
        return True, "nothing is lost in compression"
    if compressor.common:
        return True, (
            f"for a step size small enough for delta {delta:.3g}: the error of compression is common to all devices, "
            "and no rule sees it (derived, not a theorem of the papers)"
        )
    penalty = compression_penalty(delta, kappa, honest)
    word = "below" if penalty < 0.5 else "not below"
    return penalty < 0.5, f"delta (kappa + 1/H) = {penalty:.3g} is {word} 1/2"
