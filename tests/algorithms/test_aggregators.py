"""Every rule keeps the promises of the family; each one computes what its paper says.

``data/robust_rules.json`` holds expected values from independent implementations.
"""

import json
import math
import re
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from mpicoded.algorithms import aggregators
from mpicoded.algorithms.aggregators import GeometricMedian, Krum, MultiKrum, NormThreshold, Phocas, TrimmedMean
from mpicoded.algorithms.filters import NearestNeighborMixing
from mpicoded.errors import InputError

from .building import LIGHT, build, each, family

F = 2
RULES = family(aggregators.Choice, byzantine=F)
SHAPES = [(11, 1), (11, 7), (100, 5000)]
VECTORS = json.loads((Path(__file__).parent / "data" / "robust_rules.json").read_text())

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def draw(shape, seed=0, dtype=float):
    votes = np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(dtype)
    votes.flags.writeable = False
    return votes


def with_outliers(votes, outliers, seed=0):
    """The votes with the last ones replaced, in random order, and the honest ones."""
    honest = votes[: len(votes) - len(outliers)]
    return np.random.default_rng(seed).permutation(np.concatenate([honest, outliers])), honest


@every_shape
@each(RULES)
def test_order_of_votes_does_not_matter(part, shape):
    votes = draw(shape)
    shuffled = np.random.default_rng(1).permutation(votes)
    np.testing.assert_allclose(part.aggregate(shuffled), part.aggregate(votes), rtol=1e-12, atol=1e-12)


# Norms, by which norm_threshold drops, are distances from the origin. Centred clipping goes a step of a length of its
# own from where it was, here from the origin.
@every_shape
@each(RULES, but=("norm_threshold", "centered_clipping"))
def test_translation_moves_the_result_along(part, shape):
    votes, shift = draw(shape), np.random.default_rng(1).normal(0, 10, shape[1])
    np.testing.assert_allclose(part.aggregate(votes + shift), part.aggregate(votes) + shift, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-6, 0.37, 1e6])
@every_shape
@each(RULES, but=("centered_clipping",))
def test_positive_scale_scales_the_result(part, shape, factor):
    votes = draw(shape)
    expected = factor * part.aggregate(votes)
    np.testing.assert_allclose(part.aggregate(factor * votes), expected, rtol=1e-9, atol=1e-9 * factor)


@every_shape
@each(RULES, but=("centered_clipping",))
def test_equal_votes_give_that_vote(part, shape):
    vote = draw(shape)[0]
    np.testing.assert_allclose(part.aggregate(np.tile(vote, (shape[0], 1))), vote, rtol=1e-14)


@pytest.mark.parametrize("scale", [1e3, 1e30, 1e100])
@each(RULES, but=("mean", "centered_clipping"))
def test_an_honest_majority_of_equal_votes_wins(part, scale):
    vote = draw((1, 7))[0]
    votes, _ = with_outliers(np.tile(vote, (11, 1)), scale * draw((F, 7), seed=3))
    np.testing.assert_allclose(part.aggregate(votes), vote, rtol=1e-9)


OUTLIERS = {
    "one point": lambda scale, dim: np.full((F, dim), scale),
    "opposite": lambda scale, dim: np.linspace(-1, 1, F)[:, None] * np.full((F, dim), scale),
    "random": lambda scale, dim: scale * np.random.default_rng(5).normal(size=(F, dim)),
    "near and far": lambda scale, dim: np.geomspace(1e2, scale, F)[:, None] * np.ones((F, dim)),
}


# The geometric median bounds the distance to the honest mean, not each coordinate: see below.
@pytest.mark.parametrize("scale", [1e3, 1e30, 1e100])
@pytest.mark.parametrize("kind", OUTLIERS)
@pytest.mark.parametrize("shape", [(11, 1), (11, 7), (40, 3000)], ids=str)
@each(RULES, but=("mean", "geometric_median"))
def test_outliers_do_not_draw_the_result_out_of_the_honest_range(part, shape, kind, scale):
    votes, honest = with_outliers(draw(shape), OUTLIERS[kind](scale, shape[1]))
    result = part.aggregate(votes)
    slack = 1e-12 * np.abs(honest).max()
    assert (result >= honest.min(axis=0) - slack).all()
    assert (result <= honest.max(axis=0) + slack).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", OUTLIERS)
@each(RULES, but=("mean",))
def test_how_far_away_an_outlier_is_does_not_matter(part, kind, dtype):
    votes = draw((11, 7), dtype=dtype)
    tolerance = 1e-6 if dtype is np.float64 else 2e-3
    expected = part.aggregate(with_outliers(votes, OUTLIERS[kind](1e7, 7))[0])
    for scale in (1e6, 1e8, 1e10, 1e16):
        result = part.aggregate(with_outliers(votes, OUTLIERS[kind](scale, 7).astype(dtype))[0])
        np.testing.assert_allclose(result, expected, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("voters", ["two", "all"])
@each(RULES)
def test_the_largest_usable_votes_do_not_overflow(part, voters, dtype):
    """``replace_unusable`` lets pass what is shorter than this."""
    votes = draw((11, 7), dtype=dtype)
    longest = 0.99 * math.sqrt(np.finfo(dtype).max / (16 * len(votes)))
    huge = (votes / np.linalg.norm(votes, axis=1, keepdims=True) * longest).astype(dtype)
    huge[0] = -huge[1]
    assert np.isfinite(part.aggregate(np.concatenate([huge[:2], votes[2:]]) if voters == "two" else huge)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_shape
@each(RULES)
def test_precision_is_kept(part, shape, dtype):
    votes = draw(shape, dtype=dtype)
    result = part.aggregate(votes)
    assert result.dtype == dtype
    assert result.shape == shape[1:]
    np.testing.assert_allclose(result, part.aggregate(votes.astype(float)), rtol=1e-4, atol=1e-4)


@every_shape
@each(RULES)
def test_result_is_put_into_out(part, shape):
    out = np.full(shape[1], np.nan)
    assert part.aggregate(draw(shape), out=out) is out
    np.testing.assert_array_equal(out, part.aggregate(draw(shape)))


@each(RULES)
def test_result_has_memory_of_its_own(part):
    votes = draw((11, 7))
    assert not np.shares_memory(part.aggregate(votes), votes)


@each(RULES)
def test_votes_may_be_columns_of_a_wider_array(part):
    wide = draw((11, 14))
    np.testing.assert_allclose(part.aggregate(wide[:, ::2]), part.aggregate(wide[:, ::2].copy()), rtol=1e-12)
    np.testing.assert_allclose(part.aggregate(np.asfortranarray(wide)), part.aggregate(wide), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_shape
@each(RULES)
def test_other_array_libraries_get_the_same_result(part, shape, dtype):
    votes = draw(shape, dtype=dtype)
    strict = array_api_strict.asarray(votes.copy())
    result = part.aggregate(strict)
    assert isinstance(result, type(strict))
    assert result.dtype == strict.dtype
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(np.asarray(result), part.aggregate(votes), rtol=tolerance, atol=tolerance)
    out = array_api_strict.zeros(shape[1], dtype=strict.dtype)
    assert part.aggregate(strict, out=out) is out
    np.testing.assert_array_equal(np.asarray(out), np.asarray(result))
    np.testing.assert_array_equal(np.asarray(strict), votes)


@each(RULES)
def test_the_fewest_votes_are_enough(part):
    for dim in (1, 7):
        assert np.isfinite(part.aggregate(draw((part.fewest(), dim)))).all()


ALONE = {name: rule for name, rule in family(aggregators.Choice, byzantine=0).items() if rule.fewest() == 1}


@each(ALONE, but=("centered_clipping",))
def test_a_single_vote_is_the_result(part):
    np.testing.assert_array_equal(part.aggregate(draw((1, 7))), draw((1, 7))[0])


@pytest.mark.parametrize("byzantine", [1, 4])
@pytest.mark.parametrize("cls", [type(rule) for rule in RULES.values() if rule.fewest() > 1])
def test_too_few_votes_are_an_error(cls, byzantine):
    rule = build(cls, byzantine=byzantine)
    need = rule.fewest()
    text = rf"^{cls.__name__}\(byzantine={byzantine}.*\) needs at least {need} votes, got {need - 1}$"
    with pytest.raises(InputError, match=text):
        rule.check(need - 1)
    with pytest.raises(InputError, match=text):
        rule.aggregate(draw((need - 1, 3)))
    rule.check(need)


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


@each(RULES, but=("mean",))
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


def adversarial(honest, byzantine, rng):
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


def assert_robust(aggregate, kappa, count, byzantine):
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
            assert (error <= kappa * variance * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("byzantine", [2, 4, 8])
@pytest.mark.parametrize("name", KAPPA)
def test_votes_never_exceed_the_stated_kappa(name, byzantine):
    rule = build(type(RULES[name]), byzantine=byzantine)
    assert_robust(rule.aggregate, rule.kappa(20, byzantine), 20, byzantine)


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
