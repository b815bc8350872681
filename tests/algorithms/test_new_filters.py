"""What each of the newer filters computes, and who gives random numbers to those that draw them."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms import filters, theory
from mpicoded.algorithms.aggregators import CoordinateMedian, Krum, TrimmedMean
from mpicoded.algorithms.component import members
from mpicoded.algorithms.filters import AdaptiveClipping, Bucketing, Clip, NearestNeighborMixing
from mpicoded.algorithms.randomness import generator
from mpicoded.commands.listing import listing
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.errors import InputError
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport

from .building import LIGHT, each, family


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape)


sizes = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**6))

# --- bucketing


@LIGHT
@given(sizes)
def test_bucketing_by_loops(problem):
    count, dim, size, seed = problem
    votes = draw((count, dim), seed)
    order = generator(seed, "x").permutation(count).tolist()
    groups = [order[start : start + size] for start in range(0, count, size)]
    expected = [[math.fsum(column) / len(group) for column in votes[group].T] for group in groups]
    part = Bucketing(size=size)
    assert part.votes(count) == len(groups) == math.ceil(Fraction(count, size))
    np.testing.assert_allclose(part.apply(votes, stream=generator(seed, "x")), expected, rtol=1e-12, atol=1e-12)


def test_every_vote_is_in_one_group():
    votes = 2.0 ** np.arange(20)[:, None]
    groups = Bucketing(size=3).apply(votes)[:, 0] * ([3] * 6 + [2])
    assert sorted(int(group).bit_count() for group in groups) == [2, 3, 3, 3, 3, 3, 3]
    assert sum(groups) == 2**20 - 1


def test_groups_of_one_are_the_votes_in_another_order():
    votes = draw((9, 3))
    result = Bucketing(size=1).apply(votes)
    assert sorted(result.tolist()) == sorted(votes.tolist())
    assert result.tolist() != votes.tolist()


def test_one_group_is_the_mean():
    votes = draw((9, 3))
    for size in (9, 30):
        np.testing.assert_allclose(Bucketing(size=size).apply(votes), votes.mean(axis=0)[None], rtol=1e-13)


def test_groups_differ_with_the_stream_and_with_nothing_else():
    votes, part = draw((20, 3)), Bucketing()
    np.testing.assert_array_equal(part.apply(votes), part.apply(votes))
    np.testing.assert_array_equal(*(part.apply(votes, stream=generator(1, "x")) for _ in range(2)))
    first, second = (part.apply(votes, stream=generator(seed, "x")) for seed in (1, 2))
    assert not np.allclose(np.sort(first, axis=0), np.sort(second, axis=0))
    stream = generator(1, "x")
    assert not np.allclose(part.apply(votes, stream=stream), part.apply(votes, stream=stream))


def test_all_pairs_are_as_likely():
    """A chi-square of 19 degrees of freedom: below 44 with probability .999."""
    votes, partners = np.arange(20.0)[:, None], np.zeros(20)
    stream = generator(3, "x")
    for _ in range(2000):
        total = 2 * Bucketing().apply(2.0**votes, stream=stream)[:, 0]
        first = next(int(group) for group in total if int(group) & 1)
        partners[(first - 1).bit_length() - 1] += 1
    assert partners[0] == 0
    assert ((partners[1:] - 2000 / 19) ** 2).sum() / (2000 / 19) < 44


@pytest.mark.parametrize("scale", [1e3, 1e150])
def test_lies_spoil_as_many_groups_at_most(scale):
    honest = draw((20, 4))
    lies = honest.copy()
    lies[:3] = scale
    for seed in range(10):
        clean, spoilt = (Bucketing(size=4).apply(votes, stream=generator(seed, "x")) for votes in (honest, lies))
        assert (clean != spoilt).any(axis=1).sum() <= 3
        result = TrimmedMean(byzantine=2).aggregate(spoilt)
        if (clean != spoilt).any(axis=1).sum() <= 2:
            assert np.abs(result).max() < 10
        assert np.abs(CoordinateMedian().aggregate(Bucketing().apply(lies, stream=generator(seed, "x")))).max() < 10


def config(path="x.h5", **changes):
    tree = {"devices": 20, "byzantine": 3, "rounds": 4, "data": {"path": path}, "model": {"name": "linear_regression"}}
    return decode(tree | changes, "x")


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("data") / "linear.h5")
    datasets.linear_regression(path, subsets=20, features=4, samples_per_subset=2, seed=1)
    return path


def test_the_rule_behind_groups_needs_the_same_f_of_fewer_votes(linear):
    """20 devices in groups of 3 are 7 votes: enough for f = 3 with a trimmed mean, not with Krum."""
    chain = [{"name": "bucketing", "size": 3}]
    description = layout.describe(linear)
    config(linear, filters=chain).check(description, 1)
    with pytest.raises(InputError, match=re.escape("Krum(byzantine=3) needs at least 9 votes, got 7")):
        config(linear, filters=chain, aggregator={"name": "krum"}).check(description, 1)
    with pytest.raises(InputError, match=re.escape("TrimmedMean(byzantine=3) needs at least 7 votes, got 5")):
        config(linear, filters=[{"name": "bucketing", "size": 4}]).check(description, 1)
    mixing = [{"name": "bucketing", "size": 4}, {"name": "nearest_neighbor_mixing"}]
    with pytest.raises(InputError, match=r"NearestNeighborMixing\(byzantine=3\) needs at least 7 votes, got 5"):
        config(linear, filters=mixing, aggregator={"name": "mean"}).check(description, 1)


def drawn(monkeypatch, linear, **changes):
    """The orders that a run's filters drew."""
    orders = []
    apply = Bucketing.apply

    def record(self, votes, out=None, stream=None):
        state = stream.bit_generator.state
        orders.append(tuple(stream.permutation(20).tolist()))
        stream.bit_generator.state = state
        return apply(self, votes, out, stream)

    monkeypatch.setattr(Bucketing, "apply", record)
    experiment = config(linear, **({"filters": [{"name": "bucketing", "size": 1}] * 2} | changes))
    Trainer(experiment, layout.describe(linear), LocalTransport()).train(lambda progress: None)
    monkeypatch.undo()
    return orders


def test_the_server_draws_by_seed_and_round(monkeypatch, linear):
    orders = drawn(monkeypatch, linear)
    assert len(set(orders)) == 8  # two filters in four rounds
    assert drawn(monkeypatch, linear) == orders
    assert drawn(monkeypatch, linear, rounds=2) == orders[:4]
    assert not set(drawn(monkeypatch, linear, seed=1)) & set(orders)


# --- clipping


def clipped(votes, limit):
    lengths = [math.sqrt(math.fsum(vote**2)) for vote in votes]
    return [vote * (limit / length if length > limit else 1) for vote, length in zip(votes, lengths, strict=True)]


@LIGHT
@given(sizes, st.sampled_from([0.5, 2.0, 1e3]))
def test_clip_by_loops(problem, tau):
    count, dim, _, seed = problem
    votes = draw((count, dim), seed)
    np.testing.assert_allclose(Clip(tau=tau).apply(votes), clipped(votes, tau), rtol=1e-14)


def test_clip_leaves_short_votes_as_they_are():
    votes = np.array([[3.0, 4.0], [0.0, 0.0], [6.0, -8.0], [1e150, 0.0]])
    expected = [[3, 4], [0, 0], [3, -4], [5, 0]]
    np.testing.assert_array_equal(Clip(tau=5.0).apply(votes), expected)


@LIGHT
@given(st.integers(0, 5), st.integers(1, 9), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_adaptive_clipping_by_loops(byzantine, more, dim, seed, ties):
    count = 2 * byzantine + more
    votes = draw((count, dim), seed)
    votes = np.round(votes) if ties else votes
    longest = sorted((math.sqrt(math.fsum(vote**2)) for vote in votes), reverse=True)
    limit = longest[math.floor(2 * Fraction(byzantine, count) * (count - byzantine))]
    np.testing.assert_allclose(AdaptiveClipping(byzantine=byzantine).apply(votes), clipped(votes, limit), rtol=1e-14)


def test_adaptive_clipping_by_hand():
    """n = 5, f = 1: floor(8/5) = 1 vote is clipped, to the second longest."""
    votes = np.array([[1.0], [-4.0], [100.0], [2.0], [0.0]])
    assert AdaptiveClipping(byzantine=1).apply(votes)[:, 0].tolist() == [1, -4, 4, 2, 0]
    assert AdaptiveClipping(byzantine=2).apply(votes)[:, 0].tolist() == [1, -2, 2, 2, 0]


@pytest.mark.parametrize("count", [10, 72, 98, 242])
def test_adaptive_clipping_counts_in_integers(count):
    """In floats, 2 f (1 - f/n) comes out too small for 30 of 72 and 35 of 98, and 2 (f/n) (n - f) for 33 of 242."""
    votes = np.arange(1.0 + count, 1, -1)[:, None]
    for byzantine in range((count + 1) // 2):
        limit = AdaptiveClipping(byzantine=byzantine).apply(votes).max()
        assert limit == pytest.approx(1 + count - 2 * byzantine * (count - byzantine) // count, rel=1e-14)


def test_adaptive_clipping_without_byzantine_votes_changes_nothing():
    votes = draw((6, 3))
    np.testing.assert_array_equal(AdaptiveClipping(byzantine=0).apply(votes), votes)


def test_adaptive_clipping_takes_lengths_from_honest_votes():
    votes = draw((11, 5))
    longest = np.linalg.norm(votes[2:], axis=1).max()
    for scale in (1e3, 1e60, 1e150):
        votes[:2] = scale * np.ones(5)
        assert np.linalg.norm(AdaptiveClipping(byzantine=2).apply(votes), axis=1).max() <= longest * (1 + 1e-12)


# --- theory and facts


def test_kappa_of_adaptive_clipping_and_a_rule():
    """kappa + 2f/(n - 2f)."""
    part = AdaptiveClipping(byzantine=20)
    assert part.kappa(8 / 3, 100, 20) == pytest.approx(10 / 3)
    assert part.kappa(0.0, 10, 0) == 0
    assert part.kappa(1.0, 10, 5) == math.inf
    chain = [part, NearestNeighborMixing(byzantine=20)]
    assert theory.kappa(TrimmedMean(byzantine=20), chain, 100, 20) == pytest.approx(22 / 3 + 2 / 3)


def test_kappa_is_not_known_behind_groups_or_a_fixed_length():
    for part in (Bucketing(), Clip(tau=1.0)):
        assert part.kappa(1.0, 20, 3) is None
        assert theory.kappa(Krum(byzantine=3), [part], 20, 3) is None


@each(family(filters.Choice, byzantine=3))
def test_facts_state_kappa_and_cost(part):
    kappa, cost = part.facts()
    assert kappa.startswith("kappa, with a rule of kappa k: ")
    assert ("(k + 1)" in kappa or ": k + " in kappa) == (part.kappa(1.0, 20, 3) is not None)
    assert re.match(r"cost: .*dim", cost)


def test_the_listing_shows_the_facts(capsys):
    listing("filters")
    shown = " ".join(capsys.readouterr().out.split())
    assert set(members(filters.Choice)) == {"nearest_neighbor_mixing", "bucketing", "adaptive_clipping", "clip"}
    assert "kappa, with a rule of kappa k: 8 f/(n - f) (k + 1)" in shown
    assert "- size: int >= 1, default 2" in shown
