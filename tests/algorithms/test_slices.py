"""Votes in slices: the bits of the whole, whoever holds which part."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mpicoded.algorithms import aggregators, filters
from mpicoded.algorithms.outliers import outlying
from mpicoded.algorithms.slices import PARTS, WHOLE, Sums, part_edges, squared_distances
from mpicoded.algorithms.spread import deviations
from mpicoded.training.suspicion import Suspicion

from .building import build, each, family

DIM, BYZANTINE = 40_011, 3
RULES = family(aggregators.Choice, byzantine=BYZANTINE)
FILTERS = family(filters.Choice, byzantine=BYZANTINE)


class Together(Sums):
    """What ranks do, by threads: each brings its partial sums, all add up all."""

    def __init__(self, rank: int, edges: tuple[int, ...], brought: list[Any], barrier: threading.Barrier) -> None:
        self._rank, self._edges, self._brought, self._barrier = rank, edges, brought, barrier

    def edges(self, columns: int) -> tuple[int, ...]:
        assert columns == self._edges[-1] - self._edges[0]
        return self._edges

    def total(self, partials):
        self._brought[self._rank] = list(partials)
        self._barrier.wait(30)
        found = WHOLE.total([part for parts in self._brought for part in parts])
        self._barrier.wait(30)
        return found


def shared(compute: Any, *arrays: np.ndarray, ranks: int) -> list[Any]:
    """``compute(*slices, sums)`` on each rank's parts of the arrays' last axis."""
    edges, brought, barrier = part_edges(arrays[0].shape[-1]), [None] * ranks, threading.Barrier(ranks)

    def work(rank: int) -> Any:
        parts = (len(edges) - 1) * rank // ranks, (len(edges) - 1) * (rank + 1) // ranks
        mine = edges[parts[0] : parts[1] + 1]
        slices = [array[..., mine[0] : mine[-1]] for array in arrays]  # with gaps between rows, as on few ranks
        return compute(*slices, Together(rank, mine, brought, barrier))

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(work, range(ranks)))


def votes(dtype: Any = np.float64, dim: int = DIM) -> np.ndarray:
    found = np.random.default_rng(5).normal(1.0, 2.0, (23, dim))
    found[:BYZANTINE] *= -3
    return found.astype(dtype)


def test_parts_are_as_many_as_there_may_be_and_cover_everything():
    for dim in (1, 100, 8192, 8193, DIM, 10**6, 10**8 + 7):
        edges = np.array(part_edges(dim))
        assert edges[0] == 0
        assert edges[-1] == dim
        assert len(edges) - 1 == min(PARTS, -(-dim // 8192))
        assert len(edges) == 2 or np.diff(edges).min() >= 4096  # narrow ones might be summed in another order


def test_pieces_cover_large_parts():
    pieces = WHOLE.pieces(10**7 + 3)
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    assert pieces[-1].stop == 10**7 + 3
    assert set(part_edges(10**7 + 3)[1:]) <= {piece.stop for piece in pieces}
    assert max(piece.stop - piece.start for piece in pieces) <= 8192


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@each(RULES)
def test_rules_of_slices_have_the_bits_of_the_whole(part, dtype, ranks):
    whole = part.aggregate(votes(dtype), np.full(DIM, 0.5, dtype))
    found = shared(
        lambda x, previous, sums: part.aggregate(x, previous, sums=sums),
        votes(dtype),
        np.full(DIM, 0.5, dtype),
        ranks=ranks,
    )
    np.testing.assert_array_equal(np.concatenate(found), whole)
    assert whole.dtype == dtype


@pytest.mark.parametrize("ranks", [2, 5])
@each(FILTERS)
def test_filtered_slices_have_the_bits_of_the_whole(part, ranks):
    whole = part.apply(votes())
    found = shared(lambda x, sums: part.apply(x, sums=sums), votes(), ranks=ranks)
    np.testing.assert_array_equal(np.concatenate(found, axis=1), whole)


def test_what_stands_out_is_the_same_in_slices():
    usable = np.ones(23, bool)
    whole = outlying(votes(), usable)
    assert whole[:BYZANTINE].all()
    for found in shared(lambda x, sums: outlying(x, usable, sums), votes(), ranks=3):
        np.testing.assert_array_equal(found, whole)


def test_suspicion_is_the_same_in_slices():
    every = np.ones(23, bool)

    def scores(x, vote, sums):
        suspicion = Suspicion(23)
        suspicion.note(x, vote, every, None, every, sums)
        return suspicion.scores

    vote = votes()[BYZANTINE:].mean(axis=0)
    whole = scores(votes(), vote, WHOLE)
    for found in shared(scores, votes(), vote, ranks=3):
        np.testing.assert_array_equal(found, whole)


def test_suspicion_is_the_same_however_many_rounds_are_scored_together():
    """A checkpoint has the rounds that wait scored: it must change nothing."""
    rng, every = np.random.default_rng(3), np.ones(23, bool)
    together, alone = Suspicion(23), Suspicion(23)
    squares = np.zeros(23)
    for round in range(80):
        x, usable, scored = votes() * rng.normal(1, 0.1, (23, 1)), every.copy(), every.copy()
        usable[rng.integers(23)] = round % 7 > 0  # masks that change and that stay
        scored[rng.integers(23)] = round % 11 > 0
        vote, accused = x[BYZANTINE:].mean(axis=0), every if round % 13 == 5 else None
        for suspicion in (together, alone):
            suspicion.note(x, vote, usable, accused, scored)
        alone.state()
        if accused is None:
            away, along = np.linalg.norm(x - vote, axis=1), x @ vote
            sizes = np.abs(deviations(np.stack([away, along]), usable))
            sizes[:, ~usable] = 10
            squares += (np.minimum(sizes, 10) ** 2).mean(axis=0) * scored
        else:
            squares += 100.0 * scored
    for name, value in alone.state().items():
        np.testing.assert_array_equal(value, together.state()[name])
    np.testing.assert_allclose(together.state()["squares"], squares, rtol=1e-9)


def test_distances_of_many_pieces_are_those_by_differences():
    x = votes(dim=20_000)
    expected = [[((a - b) ** 2).sum() for b in x] for a in x]
    np.testing.assert_allclose(squared_distances(x), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e7, 1e100])
def test_the_guessed_centre_is_looked_over_where_only_the_sampled_coordinates_are_honest(scale):
    """The norm is sampled: lies elsewhere do not spoil the distances of honest votes."""
    x = np.round(votes(dim=20_000) * 2**10) / 2**10
    x[:11, 5000:6000] = scale * (1 + np.arange(11)[:, None])
    honest = x[11:]
    expected = [[((a - b) ** 2).sum() for b in honest] for a in honest]
    np.testing.assert_allclose(squared_distances(x)[11:, 11:], expected, rtol=1e-9)


class Noting(Sums):
    """Sums that note which centres inner products were asked about."""

    def __init__(self) -> None:
        self.centres: list[Any] = []

    def gram(self, votes, centre):
        self.centres.append(centre)
        return super().gram(votes, centre)


def test_votes_as_short_as_their_differences_are_multiplied_as_they_are():
    noting = Noting()
    squared_distances(votes(dim=20_000), noting)
    assert noting.centres == [None]


@pytest.mark.parametrize("negated", [0, 11])
def test_votes_that_agree_are_centred_at_once(negated):
    """At a vote that has most others near, whichever lie."""
    noting, x = Noting(), votes(dim=20_000) + 10
    x[:negated] *= -1
    squared_distances(x, noting)
    assert len(noting.centres) == 1
    assert (x[negated:] == noting.centres[0]).all(axis=1).any()


def far_elsewhere() -> np.ndarray:
    """Votes that agree, but not where they are sampled."""
    x = votes(dim=20_000)
    x[:, 5000:6000] += 1e6
    return x


def huge_elsewhere() -> np.ndarray:
    """Votes that agree, and one that is in their middle where they are sampled, and drowns all others elsewhere."""
    x = votes(dim=20_000) + 10
    x[0] = 11
    x[0, 5000:6000] = 1e100
    return x


@pytest.mark.parametrize("make", [far_elsewhere, huge_elsewhere])
def test_a_wrong_guess_of_a_centre_is_found(make):
    noting, x = Noting(), make()
    found = squared_distances(x, noting)[BYZANTINE:, BYZANTINE:]
    assert len(noting.centres) == 2
    honest = x[BYZANTINE:]
    np.testing.assert_allclose(found, [[((a - b) ** 2).sum() for b in honest] for a in honest], rtol=1e-9)


@pytest.mark.parametrize("make", [lambda: votes() + 100, far_elsewhere, huge_elsewhere])
def test_distances_of_slices_have_the_bits_of_the_whole_about_every_centre(make):
    whole = squared_distances(make())
    for found in shared(squared_distances, make(), ranks=3):
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(("dtype", "scales"), [(np.float64, (1e150, 1e130, 1e110)), (np.float32, (1e15, 1e9, 1e4))])
def test_a_huge_vote_that_looks_honest_where_norms_are_guessed_is_no_centre(dtype, scales):
    """It would drown all honest distances: the liars come first, as who is taken of equal ones."""
    rng = np.random.default_rng(0)
    x = (5 + rng.normal(size=(20, 4096))).astype(dtype)
    x[:5, -1] = scales[2]
    x[0, -1], x[4, -1] = scales[1], scales[0]
    sampled = np.sort((np.delete(x, 4, axis=0)[:, :1024] ** 2).sum(axis=1))
    x[4, :1024] *= np.sqrt(sampled[9:11].mean() / (x[4, :1024] ** 2).sum())  # of median norm there
    x[0, :1024] = 5  # nearest to all others there
    honest = x[5:].astype(float)
    expected = [[((a - b) ** 2).sum() for b in honest] for a in honest]
    np.testing.assert_allclose(squared_distances(x)[5:, 5:], expected, rtol=1e-4, atol=1e-3)
    for name in ("krum", "multi_krum", "minimum_diameter", "geometric_median", "covariance_filtering"):
        rule = build(type(RULES[name]), byzantine=5)
        assert np.linalg.norm(rule.aggregate(x).astype(float) - honest.mean(axis=0)) < 100, name
