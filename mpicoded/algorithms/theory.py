"""What the papers' theory says of a setting before it is run."""

from collections.abc import Sequence
from math import inf, isinf

from mpicoded.algorithms.aggregators import Aggregator
from mpicoded.algorithms.component import AUTO, nested
from mpicoded.algorithms.compressors import Compressor, NoCompression
from mpicoded.algorithms.filters import Filter
from mpicoded.algorithms.memories import Memory
from mpicoded.algorithms.spread import Spread, spread

__all__ = ["Spread", "compression_penalty", "error_floor", "guarantee", "kappa", "spread", "tolerated"]


def kappa(aggregator: Aggregator, filters: Sequence[Filter], votes: int, byzantine: int) -> float | None:
    """kappa of filters and rule together; None where the literature has none, infinite where they tolerate fewer."""
    stated = set(_stated(aggregator, filters))
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
    """How many votes may be lies or missing: what filters and rule say, and what the rule stands of those it gets."""
    for item in filters:
        votes = item.votes(votes)
    return min([*_stated(aggregator, filters), aggregator.breakdown(votes)])


def _stated(aggregator: Aggregator, filters: Sequence[Filter]) -> list[int]:
    """How many Byzantine votes filters, rule and the rules in it are told of; nothing of those with an estimate."""
    inside = [getattr(aggregator, field) for field in nested(type(aggregator))]
    told = [part.byzantine for part in (*filters, aggregator, *inside) if hasattr(part, "byzantine")]
    return [number for number in told if number != AUTO]


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
        return None, f"memory {memory.name()} has a theory of its own ({memory.source}), which is not Com-LAD's"
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
