"""Every rule keeps the promises of the family; each one computes what its paper says.

``data/robust_rules.json`` holds expected values from independent implementations.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from mpicoded.algorithms import aggregators
from mpicoded.algorithms.aggregators import GeometricMedian, Krum, MultiKrum, NormThreshold, Phocas, TrimmedMean
from mpicoded.algorithms.filters import NearestNeighborMixing
from mpicoded.errors import InputError
from mpicoded.testing import AggregatorBattery
from mpicoded.testing.votes import assert_robust

from .building import LIGHT, build, each, family

F = 2
RULES = family(aggregators.Choice, byzantine=F)
VECTORS = json.loads((Path(__file__).parent / "data" / "robust_rules.json").read_text())


def draw(shape, seed=0, dtype=float):
    votes = np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(dtype)
    votes.flags.writeable = False
    return votes


TAU = "it goes a step of a length of its own from where it was, here from the origin"


class TestRules(AggregatorBattery):
    parts = RULES
    but = {
        "test_translation_moves_the_result_along": {
            "norm_threshold": "the norms by which it drops are distances from the origin",
            "centered_clipping": TAU,
        },
        "test_positive_scale_scales_the_result": {"centered_clipping": TAU},
        "test_equal_votes_give_that_vote": {"centered_clipping": TAU},
        "test_an_honest_majority_of_equal_votes_wins": {"centered_clipping": TAU},
        "test_a_single_vote_is_the_result": {"centered_clipping": TAU},
        "test_outliers_do_not_draw_the_result_out_of_the_honest_range": {
            "geometric_median": "it bounds the distance to the honest mean, not each coordinate",
        },
    }


def test_error_names_part_need_and_value():
    with pytest.raises(InputError, match=re.escape("Krum(byzantine=4) needs at least 11 votes, got 10")):
        Krum(byzantine=4).aggregate(draw((10, 3)))
    with pytest.raises(InputError, match="needs at least 9 votes, got 8"):
        MultiKrum(byzantine=1, selected=9).aggregate(draw((8, 3)))


@pytest.mark.parametrize(
    ("name", "vector"),
    [(name, vector) for vector in VECTORS for name in vector["rules"] if name in RULES],
    ids=lambda x: x if isinstance(x, str) else f"{len(x['votes'])}x{len(x['votes'][0])}",
)
def test_independent_implementations_agree(name, vector):
    rule = build(type(RULES[name]), byzantine=vector["byzantine"])
    tolerance = 1e-6 if name == "geometric_median" else 1e-9
    np.testing.assert_allclose(rule.aggregate(np.array(vector["votes"])), vector["rules"][name], rtol=tolerance)


def test_trimmed_mean_of_four_numbers():
    assert TrimmedMean(byzantine=1).aggregate(np.array([[1.0], [2.0], [3.0], [1000.0]])) == 2.5
    assert TrimmedMean(byzantine=1).aggregate(np.array([[1.9], [2.0], [2.1], [1000.0]])) == pytest.approx(2.05)


# Plain loops. Small integers bring ties and duplicates, normal numbers the ordinary case.


@st.composite
def problems(draw_from):
    byzantine = draw_from(st.integers(0, 3))
    shape = (draw_from(st.integers(2 * byzantine + 3, 12)), draw_from(st.integers(1, 4)))
    if draw_from(st.booleans()):
        votes = draw_from(array_of(float, shape, elements=st.integers(-3, 3).map(float)))
    else:
        votes = draw(shape, seed=draw_from(st.integers(0, 10**6)))
    return votes, byzantine


def trimmed(column, byzantine):
    kept = sorted(column)[byzantine : len(column) - byzantine]
    return math.fsum(kept) / len(kept)


def scores(votes, byzantine):
    totals = []
    for i, vote in enumerate(votes):
        distances = sorted(sum((vote - other) ** 2) for j, other in enumerate(votes) if j != i)
        totals.append(sum(distances[: len(votes) - byzantine - 2]))
    return np.array(totals)


@LIGHT
@given(problems())
def test_coordinate_rules_by_loops(problem):
    votes, byzantine = problem
    columns = [list(column) for column in votes.T]
    middle = [(sorted(c)[(len(c) - 1) // 2] + sorted(c)[len(c) // 2]) / 2 for c in columns]
    np.testing.assert_allclose(aggregators.Mean().aggregate(votes), [trimmed(c, 0) for c in columns], atol=1e-12)
    np.testing.assert_allclose(aggregators.CoordinateMedian().aggregate(votes), middle, atol=1e-12)
    expected = [trimmed(c, byzantine) for c in columns]
    np.testing.assert_allclose(TrimmedMean(byzantine=byzantine).aggregate(votes), expected, atol=1e-12)


@LIGHT
@given(problems())
def test_phocas_by_loops(problem):
    votes, byzantine = problem
    kept = len(votes) - byzantine
    for column, result in zip(votes.T, Phocas(byzantine=byzantine).aggregate(votes), strict=True):
        centre = trimmed(column, byzantine)
        nearest = sorted(column, key=lambda x, centre=centre: abs(x - centre))
        # Values that are equally near: any choice among them is Phocas.
        edge = abs(nearest[kept - 1] - centre) + 1e-9
        inside = [x for x in column if abs(x - centre) < edge - 2e-9]
        tied = sorted(x for x in column if edge - 2e-9 <= abs(x - centre) <= edge)
        missing = kept - len(inside)
        low, high = (sum(inside + part) / kept for part in (tied[:missing], tied[len(tied) - missing :]))
        assert low - 1e-12 <= result <= high + 1e-12


def test_phocas_takes_the_smaller_of_two_values_equally_near():
    assert Phocas(byzantine=1).aggregate(np.array([[1.0], [0.0], [-1.0]])) == -0.5


@LIGHT
@given(problems())
def test_krum_by_loops(problem):
    votes, byzantine = problem
    expected = scores(votes, byzantine)
    result = Krum(byzantine=byzantine).aggregate(votes)
    chosen = [i for i, vote in enumerate(votes) if (vote == result).all()]
    assert chosen
    assert min(expected[chosen]) <= expected.min() + 1e-9
    np.testing.assert_allclose(aggregators.krum_scores(votes, byzantine), expected, atol=1e-9)


@LIGHT
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(1, 4), st.booleans())
def test_multi_krum_by_loops(seed, byzantine, dim, default):
    votes = draw((2 * byzantine + 4, dim), seed=seed)
    selected = None if default else 2
    ordered = sorted(zip(scores(votes, byzantine), votes.tolist(), strict=True))
    count = selected or len(votes) - byzantine
    assume(count == len(votes) or ordered[count][0] - ordered[count - 1][0] > 1e-9)  # no tie for the last place
    expected = np.mean([vote for _, vote in ordered[:count]], axis=0)
    result = MultiKrum(byzantine=byzantine, selected=selected).aggregate(votes)
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_multi_krum_with_one_selected_is_krum():
    votes = draw((11, 7))
    expected = Krum(byzantine=F).aggregate(votes)
    np.testing.assert_array_equal(MultiKrum(byzantine=F, selected=1).aggregate(votes), expected)


@LIGHT
@given(problems())
def test_no_point_near_the_geometric_median_is_better(problem):
    votes, _ = problem
    point = GeometricMedian().aggregate(votes)

    def summed(z):
        return math.fsum(math.dist(vote, z) for vote in votes)

    steps = np.concatenate([np.eye(votes.shape[1]), -np.eye(votes.shape[1]), votes - point])
    for length in (1e-3, 1e-5):
        assert all(summed(point) <= summed(point + length * step) + 1e-8 for step in steps)


@pytest.mark.parametrize("shape", [(5, 2), (20, 3), (50, 10)], ids=str)
def test_unit_vectors_from_the_geometric_median_cancel(shape):
    votes = draw(shape)
    offsets = votes - GeometricMedian().aggregate(votes)
    lengths = np.linalg.norm(offsets, axis=1)
    elsewhere = lengths > 1e-6  # where it is a vote, that vote holds against a pull of up to one
    pull = np.linalg.norm((offsets[elsewhere] / lengths[elsewhere, None]).sum(axis=0))
    assert pull < 1e-7 + (~elsewhere).sum()


@LIGHT
@given(problems())
def test_norm_threshold_by_loops(problem):
    votes, byzantine = problem
    ordered = sorted(range(len(votes)), key=lambda i: (math.fsum(votes[i] ** 2), i))
    kept = [votes[i] for i in ordered[: len(votes) - byzantine]]
    expected = [math.fsum(column) / len(kept) for column in zip(*kept, strict=True)]
    np.testing.assert_allclose(NormThreshold(byzantine=byzantine).aggregate(votes), expected, rtol=1e-12, atol=1e-12)


def test_norm_threshold_drops_the_later_of_equal_norms():
    votes = np.array([[3.0, 4.0], [0.0, 1.0], [-5.0, 0.0], [5.0, 0.0]])
    assert NormThreshold(byzantine=1).aggregate(votes).tolist() == [-2 / 3, 5 / 3]
    assert NormThreshold(byzantine=2).aggregate(votes).tolist() == [1.5, 2.5]


def test_norm_threshold_keeps_one_vote_at_least():
    votes = draw((5, 3))
    shortest = votes[np.argmin(np.linalg.norm(votes, axis=1))]
    np.testing.assert_array_equal(NormThreshold(byzantine=4).aggregate(votes), shortest)
    np.testing.assert_allclose(NormThreshold(byzantine=0).aggregate(votes), votes.mean(axis=0), rtol=1e-14)
    with pytest.raises(InputError, match=re.escape("NormThreshold(byzantine=5) needs at least 6 votes, got 5")):
        NormThreshold(byzantine=5).aggregate(votes)


KAPPA = {
    "coordinate_median": lambda a: 4 * (1 + a) ** 2,
    "trimmed_mean": lambda a: 6 * a * (1 + a),
    "krum": lambda a: 6 * (1 + a),
    "geometric_median": lambda a: 4 * (1 + a) ** 2,
}


@each(RULES, but=("mean", "clairvoyant"))
def test_kappa_by_its_formula(part):
    """With a = f/(n - 2f), infinite from half of the votes on; none where methods.md has none."""
    formula = KAPPA.get(part.name())
    for votes, byzantine in ((100, 0), (100, 20), (20, 9), (7, 3), (3, 1), (1, 0)):
        expected = formula and formula(byzantine / (votes - 2 * byzantine))
        assert part.kappa(votes, byzantine) == (formula and pytest.approx(expected, rel=1e-15))
    for votes, byzantine in ((2, 1), (10, 5), (10, 6), (10, 10)):
        assert part.kappa(votes, byzantine) == (formula and math.inf)


def test_kappa_in_numbers():
    assert RULES["trimmed_mean"].kappa(100, 20) == pytest.approx(8 / 3)  # a = 1/3
    assert RULES["krum"].kappa(100, 20) == pytest.approx(8)
    assert RULES["geometric_median"].kappa(100, 20) == pytest.approx(64 / 9)
    assert NearestNeighborMixing(byzantine=20).kappa(8 / 3, 100, 20) == pytest.approx(22 / 3)


def test_the_mean_bears_no_byzantine_vote():
    assert aggregators.Mean().kappa(10, 0) == 0
    assert aggregators.Mean().kappa(10, 1) == math.inf


@pytest.mark.parametrize("byzantine", [2, 4, 8])
@pytest.mark.parametrize("name", KAPPA)
def test_mixed_votes_never_exceed_the_stated_kappa(name, byzantine):
    rule, mixing = build(type(RULES[name]), byzantine=byzantine), NearestNeighborMixing(byzantine=byzantine)
    kappa = mixing.kappa(rule.kappa(20, byzantine), 20, byzantine)
    assert_robust(lambda votes: rule.aggregate(mixing.apply(votes)), kappa, 20, byzantine)


def test_norm_threshold_is_not_robust_for_any_kappa():
    """Equal honest votes, of no variance, and a shorter lie: the mean of honest votes is missed all the same."""
    votes = np.array([[2.0]] * 4 + [[1.0]])
    assert NormThreshold(byzantine=1).kappa(5, 1) is None
    assert NormThreshold(byzantine=1).aggregate(votes) == 1.75
