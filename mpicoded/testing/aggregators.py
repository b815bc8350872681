"""The battery of the rules."""

import re
from typing import Any

import array_api_strict
import numpy as np
import pytest

from mpicoded.algorithms.aggregators import Aggregator
from mpicoded.errors import InputError
from mpicoded.testing.battery import ComponentBattery, same
from mpicoded.testing.votes import (
    MOST_LIES,
    OUTLIERS,
    VOTES,
    assert_robust,
    draw,
    every_dtype,
    every_shape,
    longest,
    outliers,
    votes_for,
    with_outliers,
)

every_kind = pytest.mark.parametrize("kind", OUTLIERS)


def lies(part: Aggregator, votes: int) -> int:
    """How many lies a part is held to: those that it stands and was told of, but few."""
    return min(MOST_LIES, 0 if part.told else part.breakdown(votes), getattr(part, "byzantine", MOST_LIES))


class AggregatorBattery(ComponentBattery):
    """What holds for every rule.

    Parts are tried on 11 votes or as many as they need, with as many lies as they stand and were told of, up to two.
    """

    @every_shape
    def test_order_of_votes_does_not_matter(self, part: Aggregator, shape: tuple[int, int]) -> None:
        votes = votes_for(part, shape)
        shuffled = np.random.default_rng(1).permutation(votes)
        np.testing.assert_allclose(part.aggregate(shuffled), part.aggregate(votes), rtol=1e-12, atol=1e-12)

    @every_shape
    def test_translation_moves_the_result_along(self, part: Aggregator, shape: tuple[int, int]) -> None:
        votes, shift = votes_for(part, shape), np.random.default_rng(1).normal(0, 10, shape[1])
        np.testing.assert_allclose(part.aggregate(votes + shift), part.aggregate(votes) + shift, atol=1e-9)

    @pytest.mark.parametrize("factor", [1e-6, 0.37, 1e6])
    @every_shape
    def test_positive_scale_scales_the_result(self, part: Aggregator, shape: tuple[int, int], factor: float) -> None:
        votes = votes_for(part, shape)
        expected = factor * part.aggregate(votes)
        np.testing.assert_allclose(part.aggregate(factor * votes), expected, rtol=1e-9, atol=1e-9 * factor)

    @every_shape
    def test_equal_votes_give_that_vote(self, part: Aggregator, shape: tuple[int, int]) -> None:
        votes = votes_for(part, shape)
        votes = np.tile(votes[0], (len(votes), 1))
        np.testing.assert_allclose(part.aggregate(votes), votes[0], rtol=1e-14)

    def test_a_rule_that_is_coordinatewise_gives_a_piece_the_bits_of_the_whole(self, part: Aggregator) -> None:
        if not part.by_coordinates():
            pytest.skip("it does not say that it is")
        votes = votes_for(part, (VOTES, 40))
        pieces = [part.aggregate(votes[:, start:stop]) for start, stop in ((0, 1), (1, 9), (9, 40))]
        np.testing.assert_array_equal(np.concatenate(pieces), part.aggregate(votes))

    @pytest.mark.parametrize("scale", [1e3, 1e30, 1e100])
    def test_an_honest_majority_of_equal_votes_wins(self, part: Aggregator, scale: float) -> None:
        votes = votes_for(part, (VOTES, 7))
        equal = np.tile(votes[0], (len(votes), 1))
        forged, _ = with_outliers(equal, scale * draw((lies(part, len(votes)), 7), seed=3))
        np.testing.assert_allclose(part.aggregate(forged), votes[0], rtol=1e-9)

    @pytest.mark.parametrize("scale", [1e3, 1e30, 1e100])
    @every_kind
    @pytest.mark.parametrize("shape", [(VOTES, 1), (VOTES, 7), (40, 3000)], ids=str)
    def test_outliers_do_not_draw_the_result_out_of_the_honest_range(
        self, part: Aggregator, shape: tuple[int, int], kind: str, scale: float
    ) -> None:
        votes = votes_for(part, shape)
        votes, honest = with_outliers(votes, outliers(kind, lies(part, len(votes)), shape[1], scale))
        result = part.aggregate(votes)
        slack = 1e-12 * np.abs(honest).max()
        assert (result >= honest.min(axis=0) - slack).all()
        assert (result <= honest.max(axis=0) + slack).all()

    @every_dtype
    @every_kind
    def test_how_far_away_an_outlier_is_does_not_matter(self, part: Aggregator, kind: str, dtype: Any) -> None:
        votes = votes_for(part, (VOTES, 7), dtype=dtype)
        count = lies(part, len(votes))
        tolerance = 1e-6 if dtype == "float64" else 2e-3
        expected = part.aggregate(with_outliers(votes, outliers(kind, count, 7, 1e7).astype(dtype))[0])
        for scale in (1e6, 1e8, 1e10, 1e16):
            result = part.aggregate(with_outliers(votes, outliers(kind, count, 7, scale).astype(dtype))[0])
            np.testing.assert_allclose(result, expected, atol=tolerance)

    @every_dtype
    @pytest.mark.parametrize("voters", ["two", "all"])
    def test_the_largest_usable_votes_do_not_overflow(self, part: Aggregator, voters: str, dtype: Any) -> None:
        """The server lets pass what is finite and shorter than this; NaN and infinity never reach a rule."""
        votes = votes_for(part, (VOTES, 7), dtype=dtype)
        huge = (votes / np.linalg.norm(votes, axis=1, keepdims=True) * longest(len(votes), dtype)).astype(dtype)
        huge[0] = -huge[1]
        assert np.isfinite(part.aggregate(np.concatenate([huge[:2], votes[2:]]) if voters == "two" else huge)).all()

    @every_dtype
    @every_shape
    def test_precision_is_kept(self, part: Aggregator, shape: tuple[int, int], dtype: Any) -> None:
        votes = votes_for(part, shape, dtype=dtype)
        result = part.aggregate(votes)
        assert result.dtype == dtype
        assert result.shape == shape[1:]
        np.testing.assert_allclose(result, part.aggregate(votes.astype(float)), rtol=1e-4, atol=1e-4)

    @every_shape
    def test_result_is_put_into_out(self, part: Aggregator, shape: tuple[int, int]) -> None:
        out = np.full(shape[1], np.nan)
        assert part.aggregate(votes_for(part, shape), out=out) is out
        np.testing.assert_array_equal(out, part.aggregate(votes_for(part, shape)))

    def test_votes_stay_as_they_are_and_the_result_has_memory_of_its_own(self, part: Aggregator) -> None:
        votes = votes_for(part, (VOTES, 7)).copy()
        assert not np.shares_memory(part.aggregate(votes), votes)
        np.testing.assert_array_equal(votes, votes_for(part, (VOTES, 7)))

    def test_votes_may_be_columns_of_a_wider_array(self, part: Aggregator) -> None:
        wide = votes_for(part, (VOTES, 14))
        np.testing.assert_allclose(part.aggregate(wide[:, ::2]), part.aggregate(wide[:, ::2].copy()), rtol=1e-12)
        np.testing.assert_allclose(part.aggregate(np.asfortranarray(wide)), part.aggregate(wide), rtol=1e-12)

    @every_dtype
    @every_shape
    def test_other_array_libraries_get_the_same_result(
        self, part: Aggregator, shape: tuple[int, int], dtype: Any
    ) -> None:
        """By the array API standard alone (``mpicoded.algorithms.arrays``), so that votes may lie on a GPU."""
        votes = votes_for(part, shape, dtype=dtype)
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

    def test_the_fewest_votes_are_enough(self, part: Aggregator) -> None:
        for dim in (1, 7):
            assert np.isfinite(part.aggregate(draw((part.fewest(), dim)))).all()

    def test_a_single_vote_is_the_result(self, part: Aggregator) -> None:
        part = same(part, byzantine=0)
        if part.fewest() == 1:
            np.testing.assert_array_equal(part.aggregate(draw((1, 7))), draw((1, 7))[0])

    def test_too_few_votes_are_an_error(self, part: Aggregator) -> None:
        for told in (part, same(part, byzantine=1), same(part, byzantine=4)):
            need = told.fewest()
            if need == 1:
                continue
            text = rf"^{type(part).__name__}\(.*\) needs at least {need} votes, got {need - 1}$"
            with pytest.raises(InputError, match=text):
                told.check(need - 1)
            with pytest.raises(InputError, match=text):
                told.aggregate(draw((need - 1, 3)))
            told.check(need)

    @pytest.mark.parametrize("count", [11, 12, 15])
    def test_it_stands_as_many_lies_as_it_says(self, part: Aggregator, count: int) -> None:
        """However large they are; told of one more, it is refused, or half of the votes would lie."""
        votes = votes_for(same(part, byzantine=0), (count, 3))
        most = 0 if part.told else part.breakdown(len(votes))
        for byzantine in range(most + 1):
            rule = same(part, byzantine=byzantine)
            for lie in (1e9, -1e50, 1e120):
                forged = np.full((byzantine, 3), lie)
                result = rule.aggregate(np.concatenate([votes[byzantine:], forged]))
                assert np.abs(result).max() < 3 * np.abs(votes).max()
        if hasattr(part, "byzantine"):
            assert 2 * (most + 1) >= len(votes) or same(part, byzantine=most + 1).fewest() > len(votes)

    def test_breakdown_grows_with_the_votes_and_stays_below_half(self, part: Aggregator) -> None:
        found = [part.breakdown(votes) for votes in range(1, 60)]
        assert found == sorted(found)
        assert found[0] == 0
        assert part.told or all(2 * lies < votes for votes, lies in enumerate(found, start=1))

    def test_kappa_grows_with_the_lies_and_has_no_bound_from_half_of_the_votes_on(self, part: Aggregator) -> None:
        found = [part.kappa(20, byzantine) for byzantine in range(21)]
        if not part.told and found != [None] * 21:
            values = [kappa for kappa in found if kappa is not None]
            assert len(values) == len(found), "either always or never"
            assert values == sorted(values)
            assert values[0] >= 0
            assert set(values[10:]) == {np.inf}

    @pytest.mark.parametrize("byzantine", [2, 4, 8])
    def test_votes_never_exceed_the_stated_kappa(self, part: Aggregator, byzantine: int) -> None:
        rule = same(part, byzantine=byzantine)
        kappa = rule.kappa(20, byzantine)
        if kappa is not None and np.isfinite(kappa) and rule.fewest() <= 20 and not rule.told:
            assert_robust(rule.aggregate, kappa, 20, byzantine)

    def test_the_list_states_breakdown_kappa_and_cost(self, part: Aggregator) -> None:
        stands, kappa, cost = part.facts()
        assert stands.startswith("stands ")
        assert re.match(r"kappa: \S", kappa)
        assert re.match(r"cost: \S", cost)
