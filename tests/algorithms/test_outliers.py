"""Votes that stand out: found where there are any, and hardly any where all are honest."""

import numpy as np
import pytest

from mpicoded.algorithms.outliers import outlying
from mpicoded.algorithms.spread import deviations

COUNT, DIM = 100, 60


def honest(seed=0, count=COUNT, dim=DIM, length=3.0):
    """A common direction and normal offsets."""
    rng = np.random.default_rng(seed)
    return length * np.ones(dim) + rng.standard_normal((count, dim))


def lying(kind, votes, liars):
    """What attackers make of their rows."""
    others = votes[~liars]
    mean, deviation = others.mean(axis=0), others.std(axis=0)
    return {
        "turned around": lambda: -2 * votes[liars],
        "far away": lambda: votes[liars] + 50 * np.random.default_rng(9).standard_normal((liars.sum(), votes.shape[1])),
        "all alike, within the spread": lambda: mean - 0.5 * deviation,
        "all alike, against the mean": lambda: -0.9 * mean,
        "zero": lambda: 0.0,
        "as large as can be": lambda: 1e140 * np.sign(votes[liars]),
    }[kind]()


KINDS = [
    "turned around",
    "far away",
    "all alike, within the spread",
    "all alike, against the mean",
    "zero",
    "as large as can be",
]


@pytest.mark.parametrize("liars", [2, 5, 20, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_lies_are_found_and_nobody_else_is(kind, liars):
    for seed in range(5):
        votes = honest(seed)
        who = np.zeros(COUNT, bool)
        who[np.random.default_rng(seed).permutation(COUNT)[:liars]] = True
        votes[who] = lying(kind, votes, who)
        found = outlying(votes, np.ones(COUNT, bool))
        assert found[who].all()
        assert found[~who].sum() <= 1


@pytest.mark.parametrize("kind", ["turned around", "far away", "as large as can be"])
def test_a_single_lie_is_found(kind):
    votes = honest(3)
    who = np.arange(COUNT) == 17
    votes[who] = lying(kind, votes, who)
    np.testing.assert_array_equal(outlying(votes, np.ones(COUNT, bool)), who)


@pytest.mark.unchecked
def test_among_honest_votes_hardly_any_stands_out():
    """1,000 rounds of 100 normal votes: the thresholds are 4 deviations or more."""
    found = sum(int(outlying(honest(seed), np.ones(COUNT, bool)).sum()) for seed in range(1000))
    assert found <= 60


def test_small_lies_do_not_hide_behind_large_ones():
    votes = honest(1)
    votes[:5] *= 1e150
    votes[5:15] *= -1
    found = outlying(votes, np.ones(COUNT, bool))
    np.testing.assert_array_equal(found, np.arange(COUNT) < 15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [2.0**-60, 1.0, 2.0**40])
def test_scale_and_order_do_not_matter(dtype, factor):
    votes = honest(2).astype(dtype)
    votes[10:25] *= -1
    votes[40:60] = votes[40]
    expected = (np.arange(COUNT) >= 10) & (np.arange(COUNT) < 25) | (np.arange(COUNT) >= 40) & (np.arange(COUNT) < 60)
    every = np.ones(COUNT, bool)
    np.testing.assert_array_equal(outlying(votes * dtype(factor), every), expected)
    order = np.random.default_rng(0).permutation(COUNT)
    np.testing.assert_array_equal(outlying(votes[order], every), expected[order])


def test_equal_votes_are_at_one_and_the_others_are_not():
    votes = np.tile(np.arange(1.0, 8.0), (20, 1))
    every = np.ones(20, bool)
    assert not outlying(votes, every).any()
    votes[[3, 8]] = [[1.0], [-5.0]]
    np.testing.assert_array_equal(np.flatnonzero(outlying(votes, every)), [3, 8])


def test_what_is_not_usable_stands_out_and_is_not_measured():
    votes = honest(4)
    usable = np.arange(COUNT) % 5 > 0
    votes[~usable] = 0
    votes[7] *= -1
    np.testing.assert_array_equal(outlying(votes, usable), ~usable | (np.arange(COUNT) == 7))


@pytest.mark.parametrize("count", [1, 2])
def test_of_one_or_two_votes_none_stands_out(count):
    assert not outlying(honest(0, count), np.ones(count, bool)).any()


def test_half_of_the_votes_or_more_never_stand_out():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count = int(rng.integers(3, 12))
        votes = rng.standard_normal((count, 3)) * 10.0 ** rng.integers(-3, 4, (count, 1))
        votes[rng.random(count) < 0.5] = votes[0]
        assert 2 * outlying(votes, np.ones(count, bool)).sum() < count


def test_deviations_by_hand():
    """The median is 3, and that of the distances to it 1."""
    values, kept = np.array([1.0, 2, 3, 4, 100, -50]), np.arange(6) < 5
    np.testing.assert_allclose(deviations(values, kept) * 1.4826, values - 3)
    np.testing.assert_allclose(deviations(values, kept, least=2.0) * 2, values - 3)
    both = deviations(np.stack([values, 7 * values]), kept)
    np.testing.assert_allclose(both, np.stack([deviations(values, kept)] * 2))


def test_what_differs_where_all_others_agree_is_infinitely_far():
    np.testing.assert_array_equal(deviations(np.array([3.0, 3, 3, 5, 1]), np.ones(5, bool)), [0, 0, 0, np.inf, -np.inf])
    np.testing.assert_array_equal(deviations(np.array([3.0, 3, 3, 5]), np.ones(4, bool), least=0.5), [0, 0, 0, 4])
    everywhere = deviations(np.array([3e300, 3e300, 3e300, -1e-300]), np.ones(4, bool))
    assert everywhere[-1] == -np.inf
