"""The battery of the filters."""

import re
from typing import Any

import array_api_strict
import numpy as np
import pytest

from mpicoded.algorithms.filters import Filter
from mpicoded.errors import InputError
from mpicoded.testing.battery import ComponentBattery, same
from mpicoded.testing.votes import MOST_LIES, VOTES, draw, every_dtype, every_shape, longest, votes_for


class FilterBattery(ComponentBattery):
    """What holds for every filter. Parts are tried on 11 votes or as many as they need, with two lies at most."""

    @every_shape
    def test_rows_follow_the_order_of_votes(self, part: Filter, shape: tuple[int, int]) -> None:
        votes = votes_for(part, shape)
        order = np.random.default_rng(1).permutation(len(votes))
        np.testing.assert_allclose(part.apply(votes[order]), part.apply(votes)[order], rtol=1e-12, atol=1e-12)

    @every_shape
    def test_translation_moves_the_rows_along(self, part: Filter, shape: tuple[int, int]) -> None:
        votes, shift = votes_for(part, shape), np.random.default_rng(1).normal(0, 10, shape[1])
        np.testing.assert_allclose(part.apply(votes + shift), part.apply(votes) + shift, atol=1e-9)

    @pytest.mark.parametrize("factor", [1e-6, 0.37, 1e6])
    @every_shape
    def test_positive_scale_scales_the_rows(self, part: Filter, shape: tuple[int, int], factor: float) -> None:
        votes = votes_for(part, shape)
        expected = factor * part.apply(votes)
        np.testing.assert_allclose(part.apply(factor * votes), expected, rtol=1e-9, atol=1e-9 * factor)

    @every_shape
    def test_equal_votes_stay_what_they_are(self, part: Filter, shape: tuple[int, int]) -> None:
        votes = votes_for(part, shape)
        votes = np.tile(votes[0], (len(votes), 1))
        np.testing.assert_allclose(part.apply(votes), votes[: part.votes(len(votes))], rtol=1e-14)

    @pytest.mark.parametrize("scale", [1e3, 1e30, 1e100])
    @pytest.mark.parametrize("spread", [1.0, 1e-2])
    @pytest.mark.parametrize("shape", [(VOTES, 1), (VOTES, 7), (40, 3000)], ids=str)
    def test_outliers_do_not_reach_the_honest_rows(
        self, part: Filter, shape: tuple[int, int], spread: float, scale: float
    ) -> None:
        lies = min(MOST_LIES, getattr(part, "byzantine", MOST_LIES))
        honest = votes_for(part, shape)[lies:]
        outliers = scale * np.geomspace(spread, 1, lies)[:, None] * np.ones(shape[1])
        result = part.apply(np.concatenate([outliers, honest]))[lies:]
        slack = 1e-12 * np.abs(honest).max()
        assert (result >= honest.min(axis=0) - slack).all()
        assert (result <= honest.max(axis=0) + slack).all()

    @every_dtype
    def test_the_largest_usable_votes_do_not_overflow(self, part: Filter, dtype: Any) -> None:
        """The server lets pass what is finite and shorter than this; NaN and infinity never reach a filter."""
        votes = votes_for(part, (VOTES, 7), dtype=dtype)
        huge = votes / np.linalg.norm(votes, axis=1, keepdims=True) * longest(len(votes), dtype)
        assert np.isfinite(part.apply(huge.astype(dtype))).all()

    @every_dtype
    def test_precision_is_kept(self, part: Filter, dtype: Any) -> None:
        votes = votes_for(part, (VOTES, 7), dtype=dtype)
        result = part.apply(votes)
        assert result.dtype == dtype
        np.testing.assert_allclose(result, part.apply(votes.astype(float)), rtol=1e-4, atol=1e-4)

    @every_shape
    def test_result_is_put_into_out(self, part: Filter, shape: tuple[int, int]) -> None:
        expected = part.apply(votes_for(part, shape))
        out = np.full(expected.shape, np.nan)
        assert part.apply(votes_for(part, shape), out=out) is out
        np.testing.assert_array_equal(out, expected)

    def test_votes_stay_as_they_are_and_the_result_has_memory_of_its_own(self, part: Filter) -> None:
        votes = votes_for(part, (VOTES, 7)).copy()
        assert not np.shares_memory(part.apply(votes), votes)
        np.testing.assert_array_equal(votes, votes_for(part, (VOTES, 7)))

    def test_out_may_be_the_votes_themselves(self, part: Filter) -> None:
        votes = votes_for(part, (VOTES, 7)).copy()
        expected = part.apply(votes)
        if len(expected) == len(votes):
            np.testing.assert_array_equal(part.apply(votes, out=votes), expected)

    @every_dtype
    @every_shape
    def test_other_array_libraries_get_the_same_result(self, part: Filter, shape: tuple[int, int], dtype: Any) -> None:
        """By the array API standard alone (``mpicoded.algorithms.arrays``), so that votes may lie on a GPU."""
        votes = votes_for(part, shape, dtype=dtype)
        strict = array_api_strict.asarray(votes.copy())
        result = part.apply(strict)
        assert isinstance(result, type(strict))
        assert result.dtype == strict.dtype
        np.testing.assert_allclose(np.asarray(result), part.apply(votes), rtol=1e-5 if dtype == "float32" else 1e-12)
        np.testing.assert_array_equal(np.asarray(strict), votes)

    def test_the_fewest_votes_are_enough(self, part: Filter) -> None:
        assert np.isfinite(part.apply(draw((part.fewest(), 3)))).all()

    def test_a_single_vote_stays_what_it_is(self, part: Filter) -> None:
        part = same(part, byzantine=0)
        if part.fewest() == 1:
            np.testing.assert_array_equal(part.apply(draw((1, 7))), draw((1, 7)))

    def test_too_few_votes_are_an_error(self, part: Filter) -> None:
        for told in (part, same(part, byzantine=4)):
            need = told.fewest()
            if need == 1:
                continue
            text = rf"^{type(part).__name__}\(.*\) needs at least {need} votes, got {need - 1}$"
            with pytest.raises(InputError, match=text):
                told.check(need - 1)
            with pytest.raises(InputError, match=text):
                told.apply(draw((need - 1, 3)))
            told.check(need)

    def test_as_many_votes_come_out_as_it_says(self, part: Filter) -> None:
        votes = votes_for(part, (VOTES, 3))
        assert len(part.apply(votes)) == part.votes(len(votes))

    def test_kappa_is_unknown_where_that_of_the_rule_is_and_grows_with_it(self, part: Filter) -> None:
        assert part.kappa(None, 20, 3) is None
        found = [part.kappa(inner, 20, 3) for inner in (0.0, 1.0, 5.0, np.inf)]
        values = [kappa for kappa in found if kappa is not None]
        assert len(values) in (0, 4)
        assert values == sorted(values)
        assert not values or (values[0] >= 0 and values[-1] == np.inf)

    def test_the_list_states_kappa_and_cost(self, part: Filter) -> None:
        kappa, cost = part.facts()
        assert re.match(r"kappa, with a rule of kappa k: \S", kappa)
        assert re.match(r"cost: \S", cost)
