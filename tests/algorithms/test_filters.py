"""Every filter keeps the promises of the family; each one computes what its paper says."""

import json
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms import filters
from mpicoded.algorithms.filters import NearestNeighborMixing
from mpicoded.errors import InputError

from .building import LIGHT, build, each, family

F = 2
FILTERS = family(filters.Choice, byzantine=F)
VECTORS = json.loads((Path(__file__).parent / "data" / "robust_rules.json").read_text())

every_shape = pytest.mark.parametrize("shape", [(11, 1), (11, 7), (100, 5000)], ids=str)


def draw(shape, seed=0, dtype=float):
    votes = np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(dtype)
    votes.flags.writeable = False
    return votes


# Bucketing is at random; it leaves fewer rows, and mixes lies into some.
@every_shape
@each(FILTERS, but=("bucketing",))
def test_rows_follow_the_order_of_votes(part, shape):
    votes = draw(shape)
    order = np.random.default_rng(1).permutation(shape[0])
    np.testing.assert_allclose(part.apply(votes[order]), part.apply(votes)[order], rtol=1e-12, atol=1e-12)


# Clipping asks how far the origin is, and 'clip' has a length of its own.
@every_shape
@each(FILTERS, but=("adaptive_clipping", "clip"))
def test_translation_moves_the_rows_along(part, shape):
    votes, shift = draw(shape), np.random.default_rng(1).normal(0, 10, shape[1])
    np.testing.assert_allclose(part.apply(votes + shift), part.apply(votes) + shift, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-6, 0.37, 1e6])
@every_shape
@each(FILTERS, but=("clip",))
def test_positive_scale_scales_the_rows(part, shape, factor):
    votes = draw(shape)
    np.testing.assert_allclose(part.apply(factor * votes), factor * part.apply(votes), rtol=1e-9, atol=1e-9 * factor)


@every_shape
@each(FILTERS, but=("bucketing", "clip"))
def test_equal_votes_stay_what_they_are(part, shape):
    votes = np.tile(draw(shape)[0], (shape[0], 1))
    np.testing.assert_allclose(part.apply(votes), votes, rtol=1e-14)


@pytest.mark.parametrize("scale", [1e3, 1e30, 1e100])
@pytest.mark.parametrize("spread", [1.0, 1e-2])
@pytest.mark.parametrize("shape", [(11, 1), (11, 7), (40, 3000)], ids=str)
@each(FILTERS, but=("bucketing", "clip"))
def test_outliers_do_not_reach_the_honest_rows(part, shape, spread, scale):
    honest = draw(shape)[F:]
    outliers = scale * np.geomspace(spread, 1, F)[:, None] * np.ones(shape[1])
    result = part.apply(np.concatenate([outliers, honest]))[F:]
    slack = 1e-12 * np.abs(honest).max()
    assert (result >= honest.min(axis=0) - slack).all()
    assert (result <= honest.max(axis=0) + slack).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each(FILTERS)
def test_the_largest_usable_votes_do_not_overflow(part, dtype):
    """``replace_unusable`` lets pass what is shorter than this."""
    votes = draw((11, 7), dtype=dtype)
    huge = votes / np.linalg.norm(votes, axis=1, keepdims=True) * 0.99 * np.sqrt(np.finfo(dtype).max / (16 * 11))
    assert np.isfinite(part.apply(huge.astype(dtype))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each(FILTERS)
def test_precision_is_kept(part, dtype):
    votes = draw((11, 7), dtype=dtype)
    result = part.apply(votes)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, part.apply(votes.astype(float)), rtol=1e-4, atol=1e-4)


@every_shape
@each(FILTERS)
def test_result_is_put_into_out(part, shape):
    expected = part.apply(draw(shape))
    out = np.full(expected.shape, np.nan)
    assert part.apply(draw(shape), out=out) is out
    np.testing.assert_array_equal(out, expected)


@each(FILTERS)
def test_result_has_memory_of_its_own(part):
    votes = draw((11, 7))
    assert not np.shares_memory(part.apply(votes), votes)


@each(FILTERS, but=("bucketing",))
def test_out_may_be_the_votes_themselves(part):
    votes = draw((11, 7)).copy()
    expected = part.apply(votes)
    np.testing.assert_array_equal(part.apply(votes, out=votes), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_shape
@each(FILTERS)
def test_other_array_libraries_get_the_same_result(part, shape, dtype):
    votes = draw(shape, dtype=dtype)
    strict = array_api_strict.asarray(votes.copy())
    result = part.apply(strict)
    assert isinstance(result, type(strict))
    assert result.dtype == strict.dtype
    np.testing.assert_allclose(np.asarray(result), part.apply(votes), rtol=1e-5 if dtype == "float32" else 1e-12)
    np.testing.assert_array_equal(np.asarray(strict), votes)


@each(FILTERS)
def test_the_fewest_votes_are_enough(part):
    assert np.isfinite(part.apply(draw((part.fewest(), 3)))).all()


@each(family(filters.Choice, byzantine=0), but=("clip",))
def test_a_single_vote_stays_what_it_is(part):
    if part.fewest() > 1:
        pytest.skip("needs more votes")
    np.testing.assert_array_equal(part.apply(draw((1, 7))), draw((1, 7)))


@pytest.mark.parametrize("cls", [type(part) for part in FILTERS.values() if part.fewest() > 1])
def test_too_few_votes_are_an_error(cls):
    part = build(cls, byzantine=4)
    text = rf"^{cls.__name__}\(byzantine=4.*\) needs at least {part.fewest()} votes, got {part.fewest() - 1}$"
    with pytest.raises(InputError, match=text):
        part.check(part.fewest() - 1)
    with pytest.raises(InputError, match=text):
        part.apply(draw((part.fewest() - 1, 3)))


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


@each(FILTERS)
def test_kappa_is_unknown_where_that_of_the_rule_is(part):
    assert part.kappa(None, 11, F) is None


@each(FILTERS)
def test_as_many_votes_come_out_as_a_filter_says(part):
    assert len(part.apply(draw((11, 3)))) == part.votes(11)
