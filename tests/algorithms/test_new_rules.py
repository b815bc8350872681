"""What each of the newer rules computes, against plain loops, other algorithms for the same thing, and closed forms."""

import itertools
import math
import re
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of
from msgspec.structs import replace

from mpicoded.algorithms import aggregators, theory
from mpicoded.algorithms.aggregators import (
    Bulyan,
    CenteredClipping,
    CoordinateMedian,
    CovarianceFiltering,
    Ctma,
    GeometricMedian,
    Krum,
    MeanAroundMedian,
    MinimumDiameter,
    MultiKrum,
    NormThreshold,
    TrimmedMean,
)
from mpicoded.algorithms.component import members, nested
from mpicoded.algorithms.filters import Bucketing, NearestNeighborMixing
from mpicoded.commands.listing import listing
from mpicoded.configs import FAMILIES, decode, loads
from mpicoded.errors import InputError
from mpicoded.overrides import override

from .building import LIGHT, each, family

RULES = members(aggregators.Choice)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape)


@st.composite
def problems(draw_from, each=2, beside=1, most=3):
    """Votes and f. Small integers bring ties and duplicates, normal numbers the ordinary case."""
    byzantine = draw_from(st.integers(0, most))
    count = each * byzantine + beside
    shape = (draw_from(st.integers(count, count + 5)), draw_from(st.integers(1, 4)))
    if draw_from(st.booleans()):
        votes = draw_from(array_of(float, shape, elements=st.integers(-3, 3).map(float)))
    else:
        votes = draw(shape, draw_from(st.integers(0, 10**6)))
    return votes, byzantine


def nearest_to(centre, column, count):
    """The mean of the values nearest to the centre, the smaller of two as near."""
    return math.fsum(sorted(column, key=lambda x: (abs(x - centre), x))[:count]) / count


# --- mean around median


@LIGHT
@given(problems())
def test_mean_around_median_by_loops(problem):
    votes, byzantine = problem
    kept = len(votes) - byzantine
    expected = [nearest_to(statistics.median(column), column, kept) for column in votes.T.tolist()]
    np.testing.assert_allclose(MeanAroundMedian(byzantine=byzantine).aggregate(votes), expected, atol=1e-12)


def test_mean_around_median_takes_the_smaller_of_two_values_as_near():
    assert MeanAroundMedian(byzantine=1).aggregate(np.array([[1.0], [0.0], [-1.0]])) == -0.5
    assert MeanAroundMedian(byzantine=1).aggregate(np.array([[0.0], [4.0], [2.0], [2.0], [9.0]])) == 2.0


def test_mean_around_median_without_byzantine_votes_is_the_mean():
    votes = draw((6, 3))
    np.testing.assert_allclose(MeanAroundMedian(byzantine=0).aggregate(votes), votes.mean(axis=0), atol=1e-14)


# --- minimum diameter


def distances_of(votes):
    return np.sqrt(((votes[:, None] - votes[None]) ** 2).sum(axis=2))


@LIGHT
@given(problems())
def test_minimum_diameter_by_all_subsets(problem):
    """The mean of a subset of smallest diameter, and without equal distances of the one the docstring names."""
    votes, byzantine = problem
    found = {}
    apart = distances_of(votes)
    for chosen in itertools.combinations(range(len(votes)), len(votes) - byzantine):
        lengths = sorted((apart[pair] for pair in itertools.combinations(chosen, 2)), reverse=True)
        found[chosen] = [round(length, 9) for length in lengths]
    least = min(found.values())
    result = MinimumDiameter(byzantine=byzantine).aggregate(votes)
    fits = [chosen for chosen in found if np.allclose(votes[list(chosen)].mean(axis=0), result, rtol=0, atol=1e-12)]
    assert any(found[chosen][:1] == least[:1] for chosen in fits)
    if len(set(np.round(apart[np.triu_indices(len(votes), 1)], 9))) == len(votes) * (len(votes) - 1) // 2:
        assert any(found[chosen] == least for chosen in fits)


@pytest.mark.parametrize(("count", "byzantine"), [(101, 50), (100, 49), (100, 20), (60, 7), (300, 40)])
def test_minimum_diameter_of_numbers_is_the_shortest_window(count, byzantine):
    for seed in range(5):
        numbers = np.random.default_rng(seed).standard_t(2, count)
        ordered, kept = np.sort(numbers), count - byzantine
        widths = ordered[kept - 1 :] - ordered[: byzantine + 1]
        start = np.argmin(widths)
        result = MinimumDiameter(byzantine=byzantine).aggregate(numbers[:, None])
        np.testing.assert_allclose(result, ordered[start : start + kept].mean(), rtol=1e-12)


def test_minimum_diameter_breaks_ties_by_the_lower_index():
    assert MinimumDiameter(byzantine=1).aggregate(np.array([[0.0], [1.0], [2.0]])) == 0.5
    assert MinimumDiameter(byzantine=1).aggregate(np.array([[2.0], [1.0], [0.0]])) == 1.5
    assert MinimumDiameter(byzantine=1).aggregate(np.array([[1.0], [2.0], [0.0]])) == 1.5
    assert MinimumDiameter(byzantine=2).aggregate(np.array([[-1.0], [1.0], [-1.0], [1.0], [0.0]])) == -2 / 3


def test_minimum_diameter_finds_duplicates():
    votes = np.array([[5.0, 5.0], [0.0, 0.0], [5.0, 5.0], [9.0, 1.0], [5.0, 5.0]])
    np.testing.assert_array_equal(MinimumDiameter(byzantine=2).aggregate(votes), [5, 5])


def far_pairs(count, pairs):
    """Points of the same distance to each other, but for pairs that are a little further apart."""
    gram = np.eye(count)
    for one, other in pairs:
        gram[one, other] = gram[other, one] = -0.5 / count
    return np.linalg.cholesky(gram)


def which(votes, result):
    """The votes, independent of each other, that the result is the mean of."""
    weights = np.linalg.solve(votes.T, result)
    kept = np.flatnonzero(weights > 1e-9)
    np.testing.assert_allclose(weights[kept], 1 / len(kept), rtol=1e-9)
    return kept


@pytest.mark.parametrize(("count", "byzantine", "degree"), [(40, 15, 3), (100, 45, 3), (100, 49, 4), (101, 50, 6)])
def test_minimum_diameter_where_the_search_is_hard(count, byzantine, degree):
    """Far pairs that leave no choice by a vote's many of them: each votes' number of far ones is small and alike."""
    rng = np.random.default_rng(3)
    planted = rng.permutation(count)[:byzantine]
    others = np.setdiff1d(np.arange(count), planted)[:byzantine]
    pairs = [(a, b) for _ in range(degree) for a, b in zip(planted, rng.permutation(others), strict=True)]
    votes = far_pairs(count, pairs)
    kept = which(votes, MinimumDiameter(byzantine=byzantine).aggregate(votes))
    assert len(kept) == count - byzantine
    assert not any(a in kept and b in kept for a, b in pairs)


def test_minimum_diameter_refuses_an_absurd_search():
    rule = MinimumDiameter(byzantine=51)
    text = "MinimumDiameter(byzantine=51) would search the 1.3e+48 subsets of 200 votes; it does so for byzantine <= 50"
    assert f"{math.comb(200, 51):.1e}" == "1.3e+48"
    for refused in (rule, Ctma(byzantine=51, base=rule)):
        with pytest.raises(InputError, match=re.escape(text)):
            refused.check(200)
        with pytest.raises(InputError, match=re.escape(text)):
            refused.aggregate(draw((200, 2)))
    MinimumDiameter(byzantine=50).check(101)


# --- bulyan


def krum_again_and_again(votes, byzantine, recompute=True):
    """Indices in the order of choice: by loops, with Python's own sorting."""

    def key(i, others, neighbours):
        squares = sorted(math.fsum((votes[i] - votes[j]) ** 2) for j in others if j != i)
        return [round(math.fsum(squares[: neighbours + more]), 9) for more in (0, 1)], i

    left, chosen = list(range(len(votes))), []
    everyone = list(left)
    for _ in range(len(votes) - 2 * byzantine):
        among = left if recompute else everyone
        best = min(left, key=lambda i, among=among: key(i, among, max(len(among) - byzantine - 2, 1)))
        chosen.append(best)
        left.remove(best)
    return chosen


@LIGHT
@given(problems(each=4, beside=3, most=3))
def test_bulyan_by_loops(problem):
    votes, byzantine = problem
    chosen = votes[krum_again_and_again(votes, byzantine)]
    kept = len(votes) - 4 * byzantine
    expected = [nearest_to(statistics.median(column), column, kept) for column in chosen.T.tolist()]
    np.testing.assert_allclose(Bulyan(byzantine=byzantine).aggregate(votes), expected, atol=1e-9)


def test_bulyan_computes_the_scores_anew():
    """A known defect elsewhere: scores that are never updated choose other votes."""
    differing = 0
    for seed in range(20):
        votes = draw((15, 3), seed)
        anew, stale = (krum_again_and_again(votes, 3, recompute) for recompute in (True, False))
        differing += set(anew) != set(stale)
        expected = [nearest_to(statistics.median(c), c, 3) for c in votes[anew].T.tolist()]
        np.testing.assert_allclose(Bulyan(byzantine=3).aggregate(votes), expected, atol=1e-12)
    assert differing > 5


def test_bulyan_by_hand():
    """Krum chooses 2, 2, 1, 4, 5 in this order; 1 and 100 are left; 2, 2, 1 are nearest to the median 2."""
    votes = np.array([[1.0], [2.0], [100.0], [4.0], [5.0], [1.0], [2.0]])
    assert Bulyan(byzantine=1).aggregate(votes) == pytest.approx(5 / 3, rel=4e-16)


def test_bulyan_without_byzantine_votes_is_the_mean():
    votes = draw((6, 3))
    np.testing.assert_allclose(Bulyan(byzantine=0).aggregate(votes), votes.mean(axis=0), atol=1e-14)


# --- centered clipping


def clipped_steps(votes, start, tau, iterations):
    centre = np.array(start, float)
    for _ in range(iterations):
        total = np.zeros_like(centre)
        for vote in votes:
            length = math.sqrt(math.fsum((vote - centre) ** 2))
            total += (vote - centre) * (min(1, tau / length) if length else 1)
        centre = centre + total / len(votes)
    return centre


@LIGHT
@given(problems(), st.sampled_from([0.3, 1.0, 3.0, 100.0]), st.integers(1, 6), st.integers(0, 10**6))
def test_centered_clipping_by_loops(problem, tau, iterations, seed):
    votes, _ = problem
    start = draw(votes.shape[1], seed)
    rule = CenteredClipping(tau=tau, iterations=iterations)
    np.testing.assert_allclose(rule.aggregate(votes, start), clipped_steps(votes, start, tau, iterations), atol=1e-9)
    none = clipped_steps(votes, np.zeros(votes.shape[1]), tau, iterations)
    np.testing.assert_allclose(rule.aggregate(votes), none, atol=1e-9)


def test_centered_clipping_by_hand():
    votes = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -10.0]])
    np.testing.assert_allclose(CenteredClipping(tau=1.0).aggregate(votes), [0.2, -0.2 / 3], rtol=1e-14)
    start = np.array([0.0, -10.0])
    np.testing.assert_allclose(CenteredClipping(tau=100.0).aggregate(votes, start), [1, -2], rtol=1e-14)


@pytest.mark.parametrize("iterations", [1, 5])
def test_nothing_clipped_is_the_mean(iterations):
    votes = draw((7, 3))
    rule = CenteredClipping(tau=1e3, iterations=iterations)
    np.testing.assert_allclose(rule.aggregate(votes, draw(3, 1)), votes.mean(axis=0), rtol=1e-12)


def test_iterations_are_rounds():
    votes, centre = draw((9, 40)), draw(40, 1)
    expected = centre
    for _ in range(4):
        expected = CenteredClipping(tau=2.0).aggregate(votes, expected)
    np.testing.assert_allclose(CenteredClipping(tau=2.0, iterations=4).aggregate(votes, centre), expected, rtol=1e-12)


@pytest.mark.parametrize("iterations", [1, 5])
@pytest.mark.parametrize("scale", [1e9, 1e60, 1e150])
def test_a_lie_moves_a_clipped_step_by_a_part_of_tau(iterations, scale):
    """Whatever its length: its direction counts, and the honest digits stay."""
    votes, tau = draw((10, 6)), 0.5
    votes[3:5] = [[scale] + [0] * 5, [0, -scale] + [0] * 4]
    limit = np.where(np.abs(votes) > 1e6, np.sign(votes) * 1e9, votes)  # as good as infinitely far
    result = CenteredClipping(tau=tau, iterations=iterations).aggregate(votes, np.ones(6))
    np.testing.assert_allclose(result, clipped_steps(limit, np.ones(6), tau, iterations), rtol=1e-8)


# --- covariance filtering


def filtered_mean(votes, byzantine):
    """With the covariance matrix itself, (dim, dim)."""
    weights, best, found, rounds = np.ones(len(votes)), math.inf, None, 0
    while True:
        mean = sum(w * vote for w, vote in zip(weights, votes, strict=True)) / weights.sum()
        covariance = (
            sum(w * np.outer(vote - mean, vote - mean) for w, vote in zip(weights, votes, strict=True)) / weights.sum()
        )
        values, vectors = np.linalg.eigh(covariance)
        if values[-1] < best:
            best, found = values[-1], mean
        along = ((votes - mean) @ vectors[:, -1]) ** 2
        largest = max(a for a, w in zip(along, weights, strict=True) if w > 0)
        if largest < 1e-25:
            return found, rounds
        weights = np.array([w * (1 - a / largest) if w > 0 else 0.0 for a, w in zip(along, weights, strict=True)])
        rounds += 1
        if weights.sum() <= len(votes) - 2 * byzantine:
            return found, rounds


@pytest.mark.parametrize("outliers", [0, 3, 30, 3e5])
@pytest.mark.parametrize("shape", [(9, 2), (12, 40), (20, 8), (30, 1)], ids=str)
def test_covariance_filtering_by_the_covariance_matrix(shape, outliers):
    for seed, byzantine in itertools.product(range(5), (0, 1, 4)):
        votes = draw(shape, seed)
        votes[:byzantine] += outliers * np.random.default_rng(seed).normal(size=(byzantine, 1))
        expected, rounds = filtered_mean(votes, byzantine)
        assert rounds <= 2 * byzantine + 1
        np.testing.assert_allclose(CovarianceFiltering(byzantine=byzantine).aggregate(votes), expected, atol=1e-8)


def test_covariance_filtering_by_hand():
    # Mean 2, tau 4 and 64: the four keep 15/16 of their weight, and agree.
    assert CovarianceFiltering(byzantine=1).aggregate(np.array([[0.0], [0.0], [10.0], [0.0], [0.0]])) == 0
    # Mean 0 and variance 2/3; the outer two go at once.
    assert CovarianceFiltering(byzantine=1).aggregate(np.array([[-1.0], [0.0], [1.0]])) == 0
    # The first mean is 1.25 (variance 4.6875, tau 1.5625 and 14.0625); then 0 with variance 0.
    assert CovarianceFiltering(byzantine=1).aggregate(np.array([[0.0], [0.0], [0.0], [5.0]])) == 0


def test_covariance_filtering_needs_the_whole_eigenvector():
    """A known defect elsewhere, one step of the power iteration: with two directions alike it points anywhere."""
    rng = np.random.default_rng(0)
    votes = rng.normal(size=(20, 30)) * 0.1
    votes[:, 0] += np.repeat([1.0, -1.0], 10)  # honest variance, nearly as large as that of the lies
    votes[:2, 1] += 3.5
    expected, _ = filtered_mean(votes, 2)
    np.testing.assert_allclose(CovarianceFiltering(byzantine=2).aggregate(votes), expected, atol=1e-9)
    assert abs(expected[1]) < 0.2


def test_votes_without_weight_do_not_slow_the_filter_down():
    """Removed votes that are far along all directions would otherwise keep the others' weights at one."""
    votes = draw((11, 4))
    votes[:3] = 1e8 * (1 + np.random.default_rng(1).random((3, 4)))
    expected, rounds = filtered_mean(votes, 3)
    assert rounds <= 7
    np.testing.assert_allclose(CovarianceFiltering(byzantine=3).aggregate(votes), expected, atol=1e-6)
    assert np.abs(expected).max() < 5


# --- ctma

BASES = [
    None,
    CoordinateMedian(),
    GeometricMedian(),
    Krum(byzantine=0),
    NormThreshold(byzantine=1),
    CenteredClipping(tau=1.0),
]


@LIGHT
@given(problems(beside=3), st.sampled_from(BASES))
def test_ctma_by_loops(problem, base):
    votes, byzantine = problem
    centre = (base or TrimmedMean(byzantine=byzantine)).aggregate(votes, np.ones(votes.shape[1]))
    order = sorted(range(len(votes)), key=lambda i: (round(math.dist(votes[i], centre), 9), i))
    kept = len(votes) - byzantine
    result = Ctma(byzantine=byzantine, base=base).aggregate(votes, np.ones(votes.shape[1]))
    lengths = [math.dist(votes[i], centre) for i in order]
    if byzantine and lengths[kept] - lengths[kept - 1] < 1e-8:  # a tie for the last place, up to rounding
        inside = [i for i, length in zip(order, lengths, strict=True) if length < lengths[kept] - 1e-8]
        tied = [i for i in order if i not in inside and math.dist(votes[i], centre) < lengths[kept] + 1e-8]
        choices = [inside + list(more) for more in itertools.combinations(tied, kept - len(inside))]
    else:
        choices = [order[:kept]]
    assert any(np.allclose(result, votes[choice].mean(axis=0), rtol=0, atol=1e-12) for choice in choices)


def test_ctma_breaks_ties_by_the_lower_index():
    votes = np.array([[1.0], [-1.0], [0.0], [0.0], [0.0]])
    base = CoordinateMedian()
    assert Ctma(byzantine=1, base=base).aggregate(votes) == 0.25
    assert Ctma(byzantine=1, base=base).aggregate(votes[[1, 0, 2, 3, 4]]) == -0.25


def test_ctma_stands_on_a_trimmed_mean_of_its_own_f():
    votes = draw((9, 4))
    for byzantine in (0, 2):
        rule = Ctma(byzantine=byzantine)
        assert rule.centre == TrimmedMean(byzantine=byzantine)
        named = replace(rule, base=TrimmedMean(byzantine=byzantine))
        np.testing.assert_array_equal(rule.aggregate(votes), named.aggregate(votes))


def test_ctma_needs_what_its_base_needs():
    rule = Ctma(byzantine=1, base=Bulyan(byzantine=3))
    assert rule.fewest() == 15
    with pytest.raises(InputError, match=r"^Ctma\(byzantine=1, base=Bulyan\(byzantine=3\)\) needs at least 15 votes"):
        rule.check(14)
    assert Ctma(byzantine=4, base=GeometricMedian()).fewest() == 9


# --- a rule in a rule, in a config


def config(**aggregator):
    tree = {
        "devices": 20,
        "byzantine": 3,
        "rounds": 5,
        "data": {"path": "x.h5"},
        "model": {"name": "linear_regression"},
    }
    return tree | {"aggregator": {"name": "ctma"} | aggregator}


def test_a_base_inherits_the_number_of_byzantine_devices():
    assert decode(config(), "x").aggregator == Ctma(byzantine=3)
    assert decode(config(base={"name": "krum"}), "x").aggregator == Ctma(byzantine=3, base=Krum(byzantine=3))
    given = decode(config(byzantine=4, base={"name": "krum"}), "x").aggregator
    assert given == Ctma(byzantine=4, base=Krum(byzantine=4))
    given = decode(config(base={"name": "krum", "byzantine": 1}), "x").aggregator
    assert given == Ctma(byzantine=3, base=Krum(byzantine=1))
    given = decode(config(base={"name": "centered_clipping", "tau": 2}), "x").aggregator
    assert given == Ctma(byzantine=3, base=CenteredClipping(tau=2.0))


def test_a_base_survives_the_result_file():
    for rule in (Ctma(byzantine=3), Ctma(byzantine=3, base=MultiKrum(byzantine=2))):
        experiment = replace(decode(config(), "x"), aggregator=rule)
        assert loads(experiment.to_toml(), "x") == experiment


def test_a_base_can_be_overridden():
    tree = override(config(base={"name": "krum", "byzantine": 1}), ["--aggregator.base.byzantine", "2"], FAMILIES)
    assert decode(tree, "x").aggregator.base == Krum(byzantine=2)
    tree = override(config(base={"name": "krum"}), ["--aggregator.base.name", "geometric_median"], FAMILIES)
    assert decode(tree, "x").aggregator.base == GeometricMedian()
    tree = override(config(base={"name": "krum"}), ["--aggregator.name", "krum"], FAMILIES)
    assert decode(tree, "x").aggregator == Krum(byzantine=3)


@pytest.mark.parametrize(
    ("base", "text"),
    [
        ({"name": "mode"}, "aggregator ctma: base has no component 'mode'; choose from: mean, coordinate_median, "),
        ({"name": "ctma"}, "aggregator ctma: base has no component 'ctma'"),
        ({"byzantine": 1}, "aggregator ctma: base needs a name"),
        ("krum", "aggregator ctma: base must be a table with a name, got 'krum'"),
        ({"name": "krum", "f": 1}, "aggregator ctma: base krum has no key 'f'; it has: byzantine"),
        ({"name": "krum", "byzantine": -1}, "aggregator.base.byzantine: expected int >= 0, got -1"),
        ({"name": "krum", "byzantine": "a"}, "aggregator.base.byzantine: expected int >= 0 or auto, got 'a'"),
        ({"name": "centered_clipping"}, "aggregator.base lacks tau"),
    ],
)
def test_a_bad_base_is_said_to_be_one(base, text):
    with pytest.raises(InputError, match=re.escape(f"config x: {text}")):
        decode(config(base=base), "x")


def test_a_base_of_another_kind_is_refused_in_python():
    with pytest.raises(InputError, match=r"^Ctma: base must be mean or .* or unset, got 3$"):
        Ctma(byzantine=1, base=3)


def test_only_fields_that_are_components_are_nested():
    assert nested(Krum) == nested(CenteredClipping) == {}
    assert list(nested(Ctma)) == ["base"]
    assert set(nested(Ctma)["base"]) == set(RULES) - {"ctma", "clairvoyant"}


# --- what a rule stands

BREAKDOWN = {  # of 20, 11, 7, 3, 2 and 1 votes
    "mean": [0, 0, 0, 0, 0, 0],
    "krum": [8, 4, 2, 0, 0, 0],
    "multi_krum": [8, 4, 2, 0, 0, 0],
    "bulyan": [4, 2, 1, 0, 0, 0],
    "clairvoyant": [19, 10, 6, 2, 1, 0],
}


@each(family(aggregators.Choice, byzantine=1))
def test_breakdown_by_the_number_of_votes(part):
    expected = BREAKDOWN.get(part.name(), [9, 5, 3, 1, 0, 0])
    assert [part.breakdown(votes) for votes in (20, 11, 7, 3, 2, 1)] == expected


def test_the_mean_stands_no_lie():
    assert aggregators.Mean().aggregate(np.array([[1.0], [2.0], [3e9]])) == pytest.approx(1e9, rel=1e-8)


def test_several_selected_votes_leave_less_room():
    rule = MultiKrum(byzantine=2, selected=9)
    assert [rule.breakdown(votes) for votes in (20, 11, 9, 5)] == [8, 2, 0, 0]
    assert Ctma(byzantine=2, base=rule).breakdown(11) == 2
    assert Ctma(byzantine=2, base=aggregators.Mean()).breakdown(11) == 0


@pytest.mark.parametrize(
    ("rule", "chain", "tolerated"),
    [
        (CenteredClipping(tau=1.0), [], 9),
        (GeometricMedian(), [], 9),
        (GeometricMedian(), [Bucketing(size=3)], 3),  # 7 groups
        (GeometricMedian(), [Bucketing(size=3), NearestNeighborMixing(byzantine=2)], 2),
        (TrimmedMean(byzantine=4), [], 4),
        (TrimmedMean(byzantine=4), [NearestNeighborMixing(byzantine=3)], 3),
        (Ctma(byzantine=4), [], 4),
        (Ctma(byzantine=4, base=Krum(byzantine=1)), [], 1),
        (Ctma(byzantine=4, base=aggregators.Mean()), [], 0),
        (MultiKrum(byzantine=4, selected=18), [], 2),
    ],
)
def test_parts_tolerate_together_what_the_weakest_does(rule, chain, tolerated):
    assert theory.tolerated(rule, chain, 20) == tolerated


def test_a_base_told_of_fewer_leaves_no_guarantee():
    rule = Ctma(byzantine=4, base=Krum(byzantine=1))
    assert theory.kappa(rule, [], 20, 4) == math.inf
    assert theory.kappa(Ctma(byzantine=4), [], 20, 4) is None


@each(family(aggregators.Choice, byzantine=3))
def test_facts_state_what_the_methods_say(part):
    stands, kappa, cost = part.facts()
    assert kappa.startswith("kappa: ")
    assert len(kappa) > 10 or part.told
    assert re.match(r"cost: .*dim", cost)
    if found := re.match(r"stands f <= \(n - (\d)\)/(\d) of n votes", stands):
        beside, slope = map(int, found.groups())
        assert [part.breakdown(n) for n in (20, 11, 7)] == [(n - beside) // slope for n in (20, 11, 7)]
    else:
        assert part.name() in ("mean", "ctma", "clairvoyant")
    needs = re.search(r"is undefined below (\d?)f \+ (\d)", stands)
    assert bool(needs) == hasattr(part, "byzantine")
    if needs:
        assert part.fewest() == int(needs[1] or 1) * 3 + int(needs[2])
    assert (part.kappa(20, 3) is None) == ("none" in kappa or part.name() == "ctma")


def test_the_listing_shows_the_facts(capsys):
    listing("aggregator")
    shown = " ".join(capsys.readouterr().out.split())
    assert "stands f <= (n - 3)/4 of n votes, is undefined below 4f + 3" in shown
    assert "kappa: 6 a (1 + a), a = f/(n - 2f)" in shown
    assert "- base: mean or coordinate_median or " in shown
    assert "- tau: float > 0, required" in shown
