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
    memories,
    models,
    optimizers,
)
from mpicoded.algorithms.component import Component, Positive, PositiveCount, members, snake_case
from mpicoded.errors import InputError

from .building import build

FAMILIES = {
    module.__name__.rpartition(".")[2]: module.Choice
    for module in (aggregators, allocations, attacks, compressors, encoders, filters, memories, models, optimizers)
}
CLASSES = [cls for choice in FAMILIES.values() for cls in members(choice).values()]

every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name())


NEEDED = {"byzantine": 2, "redundancy": 3, "kept": 4}


def make(cls):
    return build(cls, **NEEDED)


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
    assert {"none", "ef21"} <= set(members(memories.Choice))
    assert "nearest_neighbor_mixing" in members(filters.Choice)


def leaves(cls):
    """The classes below this one that no other derives from: those that are meant to be used."""
    below = cls.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [cls]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_choice_lists_all_classes_of_its_family(family):
    listed = list(members(FAMILIES[family]).values())
    home = f"mpicoded.algorithms.{family}"
    base = next(cls for cls in reversed(listed[0].__mro__) if cls.__module__.startswith(home))
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
    """The fields of a class with the bounds that their annotations state."""
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
        build(cls, **NEEDED | {field: below})
    with pytest.raises(InputError, match=text):
        replace(make(cls), **{field: below})
    if meta.ge is not None:
        assert getattr(replace(make(cls), **{field: meta.ge}), field) == meta.ge


@pytest.mark.parametrize(
    ("cls", "field", "meta"),
    [pytest.param(*case, id=f"{case[0].name()}-{case[1]}") for case in BOUNDED if case[2].lt or case[2].le],
)
def test_upper_bounds_hold_in_python_as_in_a_config(cls, field, meta):
    above = meta.lt if meta.lt is not None else meta.le + 1
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(make(cls)) | {field: above}, cls)
    with pytest.raises(InputError, match=rf"{cls.__name__}: {field} must be .* <=? .*, got {above}"):
        replace(make(cls), **{field: above})
    if meta.le is not None:
        assert getattr(replace(make(cls), **{field: meta.le}), field) == meta.le


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
