"""Votes for the batteries of rules and filters."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mpicoded.algorithms.component import VotesTaker
from mpicoded.algorithms.shapes import Array

VOTES = 11
SHAPES = [(VOTES, 1), (VOTES, 7), (100, 5000)]
MOST_LIES = 2

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def draw(shape: tuple[int, ...], seed: int = 0, dtype: Any = float) -> Array:
    """Normal numbers that nobody may write to."""
    votes = np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(dtype)
    votes.flags.writeable = False
    return votes


def votes_for(part: VotesTaker, shape: tuple[int, int], seed: int = 0, dtype: Any = float) -> Array:
    """Votes of this shape; more of them where the part needs more."""
    return draw((max(shape[0], part.fewest()), shape[1]), seed, dtype)


def with_outliers(votes: Array, outliers: Array, seed: int = 0) -> tuple[Array, Array]:
    """The votes with the last ones replaced, in random order; and the honest ones."""
    honest = votes[: len(votes) - len(outliers)]
    return np.random.default_rng(seed).permutation(np.concatenate([honest, outliers])), honest


def outliers(kind: str, count: int, dim: int, scale: float) -> Array:
    """Lies of one of the kinds ``OUTLIERS``."""
    ones = np.ones((count, dim))
    return {
        "one point": scale * ones,
        "opposite": np.linspace(-1, 1, count)[:, None] * scale * ones,
        "random": scale * np.random.default_rng(5).normal(size=(count, dim)),
        "near and far": np.geomspace(1e2, scale, count)[:, None] * ones,
    }[kind]


OUTLIERS = ["one point", "opposite", "random", "near and far"]


def longest(votes: int, dtype: Any) -> float:
    """Nearly the length of the longest vote that the server lets pass."""
    return 0.99 * math.sqrt(np.finfo(dtype).max / (16 * votes))


def adversarial(honest: Array, byzantine: int, rng: np.random.Generator) -> Iterator[Array]:
    """Byzantine votes: one after another kind."""
    dim = honest.shape[1]
    mean, spread = honest.mean(axis=0), honest.std(axis=0)
    direction = rng.normal(size=dim)
    for reach in (0.3, 1, 1.5, 3, 10, 1e4):
        yield np.tile(mean + reach * spread, (byzantine, 1))
        yield np.tile(mean + reach * direction, (byzantine, 1))
        yield mean + reach * rng.normal(size=(byzantine, dim))
        yield rng.choice([-reach, reach], (byzantine, 1)) * spread + mean
    yield np.tile(honest[0], (byzantine, 1))
    yield np.tile(honest.max(axis=0), (byzantine, 1))
    yield np.tile(-mean, (byzantine, 1))


def assert_robust(aggregate: Any, kappa: float, count: int, byzantine: int) -> None:
    """||F - mean_S||^2 <= (kappa/|S|) sum over S of ||x_i - mean_S||^2 for the honest S and for others."""
    rng = np.random.default_rng(7)
    sets = np.array([np.arange(count - byzantine)] + [rng.permutation(count)[: count - byzantine] for _ in range(60)])
    for dim, kind in ((1, "normal"), (1, "two points"), (10, "normal"), (10, "heavy"), (3, "two points")):
        honest = {
            "normal": rng.normal(2, 1, (count - byzantine, dim)),
            "two points": rng.choice([0.0, 1.0], (count - byzantine, dim)),
            "heavy": rng.standard_t(2, (count - byzantine, dim)),
        }[kind]
        for forged in adversarial(honest, byzantine, rng):
            votes = np.concatenate([honest, forged])
            chosen = votes[sets]
            means = chosen.mean(axis=1)
            variance = ((chosen - means[:, None]) ** 2).sum(axis=2).mean(axis=1)
            error = ((aggregate(votes) - means) ** 2).sum(axis=1)
            worst = int(np.argmax(error - kappa * variance))
            assert error[worst] <= kappa * variance[worst] * (1 + 1e-9) + 1e-12, f"kappa = {kappa} is exceeded: {kind}"
