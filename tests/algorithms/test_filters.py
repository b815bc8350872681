"""Every filter keeps the promises of the family; each one computes what its paper says."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms import filters
from mpicoded.algorithms.filters import NearestNeighborMixing
from mpicoded.testing import FilterBattery

from .building import LIGHT, build, family

F = 2
FILTERS = family(filters.Choice, byzantine=F)
VECTORS = json.loads((Path(__file__).parent / "data" / "robust_rules.json").read_text())


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape)


RANDOM = "it mixes at random, lies too, and leaves fewer rows"
TAU = "it has a length of its own"


class TestFilters(FilterBattery):
    parts = FILTERS
    but = {
        "test_rows_follow_the_order_of_votes": {"bucketing": RANDOM},
        "test_translation_moves_the_rows_along": {"adaptive_clipping": "it asks how far the origin is", "clip": TAU},
        "test_positive_scale_scales_the_rows": {"clip": TAU},
        "test_equal_votes_stay_what_they_are": {"clip": TAU},
        "test_outliers_do_not_reach_the_honest_rows": {"bucketing": RANDOM, "clip": TAU},
        "test_a_single_vote_stays_what_it_is": {"clip": TAU},
    }


@pytest.mark.parametrize(
    ("name", "vector"),
    [(name, vector) for vector in VECTORS for name in vector["filters"] if name in FILTERS],
    ids=lambda x: x if isinstance(x, str) else f"{len(x['votes'])}x{len(x['votes'][0])}",
)
def test_independent_implementations_agree(name, vector):
    part = build(type(FILTERS[name]), byzantine=vector["byzantine"])
    np.testing.assert_allclose(part.apply(np.array(vector["votes"])), vector["filters"][name], rtol=1e-9)


@LIGHT
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 5), st.integers(1, 4))
def test_mixing_by_loops(seed, byzantine, more, dim):
    votes = draw((2 * byzantine + 1 + more, dim), seed=seed)
    kept = len(votes) - byzantine
    expected = []
    for vote in votes:
        nearest = sorted(votes, key=lambda other, vote=vote: sum((vote - other) ** 2))[:kept]
        expected.append(sum(nearest) / kept)
    np.testing.assert_allclose(NearestNeighborMixing(byzantine=byzantine).apply(votes), expected, atol=1e-12)


def test_mixing_breaks_ties_by_the_lower_index():
    votes = np.array([[0.0], [1.0], [-1.0], [9.0], [-9.0]])
    mixed = NearestNeighborMixing(byzantine=2).apply(votes)
    np.testing.assert_allclose(mixed[:, 0], [0, 0, 0, 10 / 3, -10 / 3])
    ties = np.array([[0.0], [1.0], [-1.0]])
    np.testing.assert_allclose(NearestNeighborMixing(byzantine=1).apply(ties)[:, 0], [0.5, 0.5, -0.5])


def test_a_vote_is_its_own_neighbour_where_distances_underflow():
    votes = np.array([[0.0], [0.0], [0.0], [0.0], [3e-170]])
    np.testing.assert_allclose(NearestNeighborMixing(byzantine=2).apply(votes)[:, 0], [0, 0, 0, 0, 1e-170])


def test_mixing_without_byzantine_votes_is_the_mean():
    votes = draw((6, 3))
    np.testing.assert_allclose(NearestNeighborMixing(byzantine=0).apply(votes), np.tile(votes.mean(axis=0), (6, 1)))


@pytest.mark.parametrize(("votes", "byzantine", "factor"), [(100, 20, 2.0), (10, 0, 0.0), (10, 5, 8.0), (9, 1, 1.0)])
def test_kappa_of_mixing_and_a_rule(votes, byzantine, factor):
    """8 f/(n - f) (kappa + 1)."""
    mixing = NearestNeighborMixing(byzantine=byzantine)
    for inner in (0.0, 0.5, 6.0):
        assert mixing.kappa(inner, votes, byzantine) == pytest.approx(factor * (inner + 1))
    if byzantine:
        assert mixing.kappa(np.inf, votes, byzantine) == np.inf
