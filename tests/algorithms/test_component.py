"""A component is its own config: named after its class, frozen, strict, within bounds."""

import typing

import numpy as np
import pytest
from msgspec.structs import replace

from mpicoded.algorithms import (
    aggregators,
    allocations,
    attacks,
    compressors,
    encoders,
    filters,
    memories,
    models,
    optimizers,
)
from mpicoded.algorithms.allocations import Cyclic
from mpicoded.algorithms.component import Component, Positive, PositiveCount, known_with, members, snake_case
from mpicoded.configs import decode
from mpicoded.errors import InputError
from mpicoded.testing import ComponentBattery
from mpicoded.training.coding import Coding

from .building import build

FAMILIES = {
    module.__name__.rpartition(".")[2]: module.Choice
    for module in (aggregators, allocations, attacks, compressors, encoders, filters, memories, models, optimizers)
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Krum", "krum"),
        ("CoordinateMedian", "coordinate_median"),
        ("NearestNeighborMixing", "nearest_neighbor_mixing"),
        ("MLPModel", "mlp_model"),
        ("Top2Krum", "top2_krum"),
    ],
)
def test_snake_case(name, expected):
    assert snake_case(name) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_members_have_names_of_their_own(family):
    choice = FAMILIES[family]
    count = len(typing.get_args(choice)) or 1
    assert len(members(choice)) == count
    assert all(cls.name() == name for name, cls in members(choice).items())


def test_names_of_the_contract():
    assert {"mean", "coordinate_median", "trimmed_mean", "krum"} <= set(members(aggregators.Choice))
    assert {"none", "sign_flip", "gaussian", "sample_duplicate", "ipm", "alie"} <= set(members(attacks.Choice))
    assert {"partition", "cyclic", "uniform", "balanced"} <= set(members(allocations.Choice))
    assert {"linear_regression", "softmax_regression"} <= set(members(models.Choice))
    assert {"none", "rand_k", "qsgd", "natural", "top_k", "sign"} <= set(members(compressors.Choice))
    assert {"bit_flip", "non_finite", "malformed", "silent"} <= set(members(attacks.Choice))
    assert {"none", "ef21", "momentum", "server_momentum", "dm21", "marina"} <= set(members(memories.Choice))
    assert {"sgd", "adam"} <= set(members(optimizers.Choice))
    assert "nearest_neighbor_mixing" in members(filters.Choice)


def below(cls):
    """The classes below this one that name a source of their own: those that are meant to be used."""
    return [child for child in cls.__subclasses__() if "source" in vars(child)] + [
        leaf for child in cls.__subclasses__() for leaf in below(child)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_choice_lists_all_classes_of_its_family(family):
    listed = list(members(FAMILIES[family]).values())
    home = f"mpicoded.algorithms.{family}"
    base = next(cls for cls in reversed(listed[0].__mro__) if cls.__module__.startswith(home))
    assert {cls for cls in below(base) if cls.__module__.startswith(home)} == set(listed)


class TestFamiliesWithoutABatteryOfTheirOwn(ComponentBattery):
    parts = {
        f"{family} {name}": build(cls, byzantine=2)
        for family in ("models", "encoders", "memories")
        for name, cls in members(FAMILIES[family]).items()
    }


class Example(Component):
    """A part of this test."""

    size: PositiveCount | None = None
    step: Positive = 1.0


def test_optional_fields_may_be_left_out():
    assert Example().size is None
    assert replace(Example(size=3), size=None) == Example()


@pytest.mark.parametrize("size", [0, -1])
def test_optional_fields_keep_their_bounds(size):
    with pytest.raises(InputError, match=f"Example: size must be .*int >= 1.*, got {size}"):
        Example(size=size)


def test_not_a_number_is_out_of_bounds():
    with pytest.raises(InputError, match="Example: step must be float > 0, got nan"):
        Example(step=float("nan"))


def test_a_choice_of_one_is_a_family_too():
    assert members(Example) == {"example": Example}


def test_a_subclass_with_a_method_of_its_own_is_not_bypassed_by_an_inherited_shortcut():
    class Reversed(Cyclic):
        def assignment(self, devices, subsets, round, seed):
            return super().assignment(devices, subsets, round, seed)[::-1]

    class Both(Reversed):
        def even(self, *words):
            return None

    class Neither(Cyclic):
        pass

    known = {part: known_with(part(redundancy=2), "even", "assignment") for part in (Cyclic, Reversed, Both, Neither)}
    assert known == {Cyclic: True, Reversed: False, Both: True, Neither: True}
    for part in (Cyclic, Reversed):
        tree = {"devices": 6, "rounds": 1, "data": {"path": "none"}, "model": {"name": "linear_regression"}}
        tree |= {"aggregator": {"name": "mean"}, "optimizer": {"step_size": 1.0}}
        experiment = replace(decode(tree, "test"), allocation=part(redundancy=2))
        coding = Coding(experiment, 6)
        found = coding.even(3, 1, 5)
        assert coding.computed(3) == 12
        held = experiment.allocation.assignment(6, 6, 3, experiment.seed)[1:5]
        np.testing.assert_array_equal(found.subsets, np.nonzero(held)[1].reshape(4, 2))


def coding_of(allocation):
    tree = {"devices": 6, "rounds": 9, "data": {"path": "none"}, "model": {"name": "linear_regression"}}
    tree |= {"aggregator": {"name": "mean"}, "optimizer": {"step_size": 1.0}}
    return Coding(replace(decode(tree, "test"), allocation=allocation), 6)


def test_gradients_are_counted_where_rounds_are_even_by_chance():
    class Sometimes(Cyclic):
        def assignment(self, devices, subsets, round, seed):
            found = super().assignment(devices, subsets, round, seed)
            return found if round % 2 else found | (np.arange(devices) == 0)[:, None]

    coding = coding_of(Sometimes(redundancy=2))
    for round in (0, 1, 2, 3):
        coding.even(round, 0, 3)
        assert coding.computed(round) == (12 if round % 2 else 16)
        assert coding.computed(round, np.arange(6) == 0) == (2 if round % 2 else 6)


def test_even_of_another_shape_is_refused_by_name():
    class Flat(Cyclic):
        def even(self, devices, subsets, rounds, seed, first, stop):
            return super().even(devices, subsets, rounds, seed, first, stop)[0]

    with pytest.raises(InputError, match=r"Flat.even must give \(1, 3, held\), got \(3, 2\)"):
        coding_of(Flat(redundancy=2)).even(0, 0, 3)
