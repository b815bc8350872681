"""The batteries find what they are for: each of these parts breaks one promise, and the test of that promise fails."""

import re
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from mpicoded.algorithms import aggregators, allocations, attacks, compressors, filters, optimizers
from mpicoded.algorithms.component import Component, PositiveCount
from mpicoded.testing import (
    AggregatorBattery,
    AllocationBattery,
    AttackBattery,
    Case,
    ComponentBattery,
    CompressorBattery,
    FilterBattery,
    OptimizerBattery,
)


class Rule(aggregators.TolerantAggregator):
    """A trimmed mean."""

    def aggregate(self, votes, previous=None, out=None):
        return aggregators.TrimmedMean(byzantine=self.byzantine).aggregate(votes, previous, out)


class FirstVote(Rule):
    def aggregate(self, votes, previous=None, out=None):
        return votes[0]


class Clipped(Rule):
    def aggregate(self, votes, previous=None, out=None):
        return np.clip(super().aggregate(votes), -2, 2)


class OwnArray(Rule):
    def aggregate(self, votes, previous=None, out=None):
        return super().aggregate(votes)


class Wide(Rule):
    def aggregate(self, votes, previous=None, out=None):
        return super().aggregate(votes.astype(float), previous, out)


class Spoils(Rule):
    def aggregate(self, votes, previous=None, out=None):
        found = super().aggregate(votes)
        votes[0] = 0
        return found


class OnlyNumpy(Rule):
    def aggregate(self, votes, previous=None, out=None):
        return np.sort(votes, axis=0)[self.byzantine]


class OfWholeVotes(Rule):
    coordinatewise: ClassVar[bool] = True

    def aggregate(self, votes, previous=None, out=None):
        return votes[np.argsort(np.linalg.norm(votes, axis=1))[len(votes) // 2]]


class Unchecked(Rule):
    def check(self, votes):
        pass

    def aggregate(self, votes, previous=None, out=None):
        return np.mean(votes, axis=0)


class Boaster(Rule):
    """Stands a lie less than it says."""

    def aggregate(self, votes, previous=None, out=None):
        self.check(len(votes))
        return aggregators.TrimmedMean(byzantine=max(self.byzantine - 1, 0)).aggregate(votes, previous, out)


class Proud(Rule):
    """Its kappa is too good."""

    def kappa(self, votes, byzantine):
        return 0.1 * aggregators.TrimmedMean(byzantine=byzantine).kappa(votes, byzantine)


class HalfOfAll(Rule):
    def breakdown(self, votes):
        return votes // 2


class Overflows(Rule):
    def aggregate(self, votes, previous=None, out=None):
        with np.errstate(all="ignore"):
            return np.mean(votes * votes * votes, axis=0)


class Sorts(filters.Filter):
    def apply(self, votes, out=None, stream=None):
        return np.sort(votes, axis=0)


class Drops(filters.Filter):
    def apply(self, votes, out=None, stream=None):
        return votes[:-1]


class Colludes(attacks.Attack):
    """Says that it looks at nobody."""

    def forge(self, own, seen, streams):
        return seen.honest[0]


class ByRank(attacks.Attack):
    def forge(self, own, seen, streams):
        return own + np.arange(len(own))[:, None]


class Tampers(attacks.Attack):
    def tamper(self, records, streams):
        records[...] = 0


class Infinite(attacks.Attack):
    def forge(self, own, seen, streams):
        with np.errstate(all="ignore"):
            return own / np.zeros_like(own)


class Biased(compressors.NoCompression, tag="biased"):
    """Says that it loses nothing."""

    def compress(self, vectors, streams, out=None):
        return super().compress(0.9 * vectors, streams, out)


class Neighbours(compressors.NoCompression, tag="neighbours"):
    """A message depends on those beside it."""

    def compress(self, vectors, streams, out=None):
        return super().compress(vectors + vectors[0], streams, out)


class Trusting(compressors.NoCompression, tag="trusting"):
    """Raises an error for bytes that it never sends."""

    def decompress(self, records, dim, streams, out=None):
        assert not np.isnan(records["values"]).any()
        return super().decompress(records, dim, streams, out)


class Restless(allocations.Partition):
    def assignment(self, devices, subsets, round, seed):
        return np.roll(super().assignment(devices, subsets, round, seed), round, axis=1)


class Idle(allocations.Partition):
    def assignment(self, devices, subsets, round, seed):
        return super().assignment(devices, subsets, round, seed) & (np.arange(devices) > 0)[:, None]


class Uphill(optimizers.Optimizer):
    def initial(self, parameters):
        return parameters

    def step(self, parameters, vote, state, round):
        parameters += 0.1 * vote


class Anonymous(Component):
    pass


class Thawed(aggregators.Mean, frozen=False):
    size: PositiveCount = 1


class Unbounded(aggregators.Aggregator):
    size: PositiveCount = 1

    def __post_init__(self):
        pass


RULE, SHAPE = AggregatorBattery, (11, 7)
BROKEN = [
    (RULE, "order_of_votes_does_not_matter", FirstVote(byzantine=2), (SHAPE,)),
    (RULE, "translation_moves_the_result_along", Clipped(byzantine=2), (SHAPE,)),
    (RULE, "positive_scale_scales_the_result", Clipped(byzantine=2), (SHAPE, 1e6)),
    (RULE, "equal_votes_give_that_vote", Clipped(byzantine=2), (SHAPE,)),
    (RULE, "a_rule_that_is_coordinatewise_gives_a_piece_the_bits_of_the_whole", OfWholeVotes(byzantine=2), ()),
    (RULE, "an_honest_majority_of_equal_votes_wins", Boaster(byzantine=2), (1e3,)),
    (RULE, "outliers_do_not_draw_the_result_out_of_the_honest_range", Boaster(byzantine=2), (SHAPE, "one point", 1e3)),
    (RULE, "how_far_away_an_outlier_is_does_not_matter", Boaster(byzantine=2), ("one point", "float64")),
    (RULE, "the_largest_usable_votes_do_not_overflow", Overflows(byzantine=2), ("two", "float32")),
    (RULE, "precision_is_kept", Wide(byzantine=2), (SHAPE, "float32")),
    (RULE, "result_is_put_into_out", OwnArray(byzantine=2), (SHAPE,)),
    (RULE, "votes_stay_as_they_are_and_the_result_has_memory_of_its_own", Spoils(byzantine=2), ()),
    (RULE, "votes_stay_as_they_are_and_the_result_has_memory_of_its_own", FirstVote(byzantine=2), ()),
    (RULE, "other_array_libraries_get_the_same_result", OnlyNumpy(byzantine=2), (SHAPE, "float64")),
    (RULE, "too_few_votes_are_an_error", Unchecked(byzantine=2), ()),
    (RULE, "it_stands_as_many_lies_as_it_says", Boaster(byzantine=2), (11,)),
    (RULE, "breakdown_grows_with_the_votes_and_stays_below_half", HalfOfAll(byzantine=2), ()),
    (RULE, "votes_never_exceed_the_stated_kappa", Proud(byzantine=2), (4,)),
    (FilterBattery, "rows_follow_the_order_of_votes", Sorts(), (SHAPE,)),
    (FilterBattery, "as_many_votes_come_out_as_it_says", Drops(), ()),
    (AttackBattery, "only_colluders_look_at_the_honest_messages", Colludes(), ()),
    (AttackBattery, "a_message_does_not_depend_on_the_rank_that_forges_it", ByRank(), ()),
    (AttackBattery, "only_those_that_say_so_tamper_with_records", Tampers(), ()),
    (AttackBattery, "forged_messages_are_finite", Infinite(), ()),
    (CompressorBattery, "the_mean_of_many_is_the_vector", Biased(), (np.float64,)),
    (CompressorBattery, "the_squared_error_is_at_most_the_stated_variance", Biased(), (np.float64,)),
    (CompressorBattery, "a_message_depends_on_its_row_and_device_only", Neighbours(), (7, np.float64)),
    (CompressorBattery, "whatever_bytes_arrive_finite_vectors_come_out", Trusting(), ()),
    (AllocationBattery, "only_a_varying_allocation_changes_with_the_round", Case(Restless(), 4, 8), ()),
    (AllocationBattery, "devices_can_read_what_they_compute", Case(Restless(), 4, 8), ()),
    (AllocationBattery, "every_device_has_something_to_compute", Case(Idle(), 4, 8), ()),
    (OptimizerBattery, "initial_leaves_the_parameters_alone", Uphill(), ()),
    (OptimizerBattery, "a_step_along_the_gradient_goes_downhill", Uphill(), ()),
    (ComponentBattery, "it_says_what_it_is_where_it_comes_from_and_what_it_costs", Anonymous(), ()),
    (ComponentBattery, "it_is_frozen", Thawed(), ()),
    (ComponentBattery, "bounds_hold_in_python_as_in_a_config", Unbounded(), ()),
    (ComponentBattery, "a_config_can_name_it", Boaster(byzantine=2), ()),
]


@pytest.mark.parametrize(
    ("battery", "promise", "part", "arguments"), [pytest.param(*row, id=f"{row[1]}-{row[2]}"[:80]) for row in BROKEN]
)
def test_a_broken_promise_is_found(battery, promise, part, arguments):
    with pytest.raises((AssertionError, TypeError, AttributeError, pytest.fail.Exception)) as caught:
        getattr(battery(), f"test_{promise}")(part, *arguments)
    message = str(caught.value)
    assert not re.search(r"missing \d+ required", message)  # the test was called as pytest would


class TestOne(ComponentBattery):
    parts: ClassVar = [aggregators.Mean()]


def asked(cls, test="test_it_is_frozen"):
    """The parts that pytest would run a test of this class for, with the reasons of those that it skips."""
    found = {}

    def parametrize(name, params):
        assert name == "part"
        found.update({param.id: [mark.kwargs["reason"] for mark in param.marks] for param in params})

    function = getattr(cls, test)
    cls().pytest_generate_tests(SimpleNamespace(fixturenames=["part"], function=function, parametrize=parametrize))
    return found


def test_parts_have_names():
    two = [aggregators.Krum(byzantine=1), aggregators.Krum(byzantine=2)]
    assert asked(type("A", (TestOne,), {"parts": [*two, aggregators.Mean()]})) == {
        "Krum(byzantine=1)": [],
        "Krum(byzantine=2)": [],
        "mean": [],
    }
    assert asked(type("A", (TestOne,), {"parts": {"a": two[0], "b": two[1]}})) == {"a": [], "b": []}


def test_what_does_not_hold_is_skipped_with_its_reason():
    parts = {"a": aggregators.Mean(), "b": aggregators.Mean()}
    for name, expected in (("b", {"a": [], "b": ["why"]}), ("*", {"a": ["why"], "b": ["why"]})):
        cls = type("A", (TestOne,), {"parts": parts, "but": {"test_it_is_frozen": {name: "why"}}})
        assert asked(cls) == expected
        assert asked(cls, "test_unknown_fields_are_errors") == {"a": [], "b": []}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"parts": []}, r"^A needs parts = \[Mine\(…\), …\]: what it is to test$"),
        ({"but": {"test_it_is_frosen": {"mean": "why"}}}, "^A.but: there is no test test_it_is_frosen$"),
        ({"but": {"test_it_is_frozen": {"maen": "why"}}}, "^A.but: test_it_is_frozen: there is no part 'maen'$"),
    ],
)
def test_a_test_class_that_would_test_nothing_is_an_error(fields, text):
    with pytest.raises(pytest.UsageError, match=text):
        asked(type("A", (TestOne,), fields))
