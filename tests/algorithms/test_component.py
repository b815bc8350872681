"""A component is its own config: named after its class, frozen, strict, within bounds."""

import typing

import msgspec
import pytest
from msgspec.structs import replace

from mpicoded.algorithms import (
    aggregators,
    allocations,
    attacks,
    compressors,
    encoders,
    filters,
    models,
    optimizers,
)
from mpicoded.algorithms.component import Component, Positive, PositiveCount, members, snake_case
from mpicoded.errors import InputError

from .building import build

FAMILIES = {
    module.__name__.rpartition(".")[2]: module.Choice
    for module in (aggregators, allocations, attacks, compressors, encoders, filters, models, optimizers)
}
CLASSES = [cls for choice in FAMILIES.values() for cls in members(choice).values()]

every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name())


def make(cls):
    return build(cls, byzantine=2, redundancy=3)


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
    assert "none" in members(compressors.Choice)
    assert "nearest_neighbor_mixing" in members(filters.Choice)


def leaves(cls):
    """The classes below this one that no other derives from: those that are meant to be used."""
    below = cls.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [cls]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_choice_lists_all_classes_of_its_family(family):
    listed = list(members(FAMILIES[family]).values())
    base = next(cls for cls in reversed(listed[0].__mro__) if cls.__module__ == listed[0].__module__)
    assert {cls for cls in leaves(base) if cls.__module__.startswith("mpicoded.")} == set(listed)


@every_class
def test_every_part_names_its_source_and_says_what_it_is(cls):
    assert cls.source
    assert cls.__doc__


@every_class
def test_config_and_object_are_the_same(cls):
    part = make(cls)
    tree = msgspec.to_builtins(part)
    assert tree["name"] == cls.name()
    family = next(choice for choice in FAMILIES.values() if cls in members(choice).values())
    decoded = msgspec.convert(tree, family)
    assert type(decoded) is cls
    assert decoded == part
    assert hash(decoded) == hash(part)


@every_class
def test_unknown_fields_are_errors(cls):
    tree = msgspec.to_builtins(make(cls)) | {"bizantine": 1}
    with pytest.raises(msgspec.ValidationError, match="bizantine"):
        msgspec.convert(tree, cls)
    with pytest.raises(TypeError, match="bizantine"):
        cls(bizantine=1)


@every_class
def test_parts_are_frozen(cls):
    part = make(cls)
    for field in cls.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(part, field, 1)


def bounds(cls):
    """The fields of a class with the lower bounds that their annotations state."""
    for field, hint in typing.get_type_hints(cls, include_extras=True).items():
        for option in (hint, *typing.get_args(hint)):
            for meta in getattr(option, "__metadata__", ()):
                yield field, meta


BOUNDED = [(cls, field, meta) for cls in CLASSES for field, meta in bounds(cls)]


@pytest.mark.parametrize(("cls", "field", "meta"), BOUNDED, ids=[f"{c.name()}-{f}" for c, f, _ in BOUNDED])
def test_bounds_hold_in_python_as_in_a_config(cls, field, meta):
    below = meta.gt if meta.gt is not None else meta.ge - 1
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(make(cls)) | {field: below}, cls)
    text = rf"{cls.__name__}: {field} must be \w+ >=? .*, got {below}"
    with pytest.raises(InputError, match=text):
        build(cls, **{"byzantine": 2, "redundancy": 3, field: below})
    with pytest.raises(InputError, match=text):
        replace(make(cls), **{field: below})
    if meta.ge is not None:
        assert getattr(replace(make(cls), **{field: meta.ge}), field) == meta.ge


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
