"""All combinations of parts, as rows of numbers: enumerated lazily, and in rows that cover every pair or triple.

A row chooses one entry of every axis. The axes list the members of their families, so that a new part joins by itself.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from mpicoded.algorithms import aggregators, allocations, attacks, encoders, filters, memories
from mpicoded.algorithms.component import Component, members, nested
from mpicoded.errors import InputError

BYZANTINE = 2
SHAPES = ((10, 20), (13, 13), (10, 16), (18, 20), (15, 25), (7, 35))
"""Devices and subsets; an allocation takes the first that it exists for."""
COMPRESSORS = [
    {"name": "none"},
    {"name": "none", "dtype": "float16"},
    {"name": "rand_k", "kept": 3},
    {"name": "rand_k", "kept": 8, "shared": True},
    {"name": "qsgd", "levels": 4},
    {"name": "natural"},
    {"name": "top_k", "kept": 4, "dtype": "float32"},
    {"name": "sign"},
    {"name": "sign", "scaled": False},
]

Row = tuple[int, ...]


KNOWN = {"redundancy": 4, "copies": 3, "tau": 3.0}  # rules and filters tolerate what they get of lies
SPECIAL: dict[type[Component], dict[str, object]] = {
    aggregators.Bulyan: {"byzantine": 1},  # few votes are too few for it to stand two lies
    allocations.Cyclic: {"redundancy": 10},  # five copies, as the cyclic code needs them against two
} | {cls: {"byzantine": BYZANTINE} for cls in members(encoders.Choice).values()}
OTHERWISE: tuple[dict[str, object], ...] = ({"permute": False}, {"weighting": "plain"}, {"anchor": "own"})
"""Fields that decide about what else a part can be used with."""


def table(cls: type[Component], **given: object) -> dict[str, object]:
    """A component in a config, with what it cannot do without."""
    known = KNOWN | SPECIAL.get(cls, {}) | given
    return {"name": cls.name()} | {key: known[key] for key in cls.__struct_fields__ if key in known}


def choices(choice: Any) -> list[dict[str, object]]:
    """Every member; those that have one of these fields also with the other value."""
    found = []
    for cls in members(choice).values():
        found.append(table(cls))
        found += [table(cls, **other) for other in OTHERWISE
                  if set(other) <= set(cls.__struct_fields__)]  # fmt: skip
    return found


def rules() -> list[dict[str, object]]:
    """Every rule, and those that have a base on every base."""
    found = []
    for cls in members(aggregators.Choice).values():
        found.append(table(cls))
        for field, options in nested(cls).items():
            found += [table(cls) | {field: table(option)} for option in options.values()]
    return found


def chains() -> list[list[dict[str, object]]]:
    """No filter, each, and each before each other."""
    each = [table(cls) for cls in members(filters.Choice).values()]
    return [[], *([one] for one in each), *(list(two) for two in itertools.permutations(each, 2))]


AXES: dict[str, list[Any]] = {
    "allocation": choices(allocations.Choice),
    "encoder": choices(encoders.Choice),
    "compressor": COMPRESSORS,
    "memory": choices(memories.Choice),
    "filters": chains(),
    "aggregator": rules(),
    "attack": choices(attacks.Choice),
}
"""Those first that decide most about what is refused."""
SIZES = tuple(len(axis) for axis in AXES.values())
TOTAL = math.prod(SIZES)
SCATTER = 7_368_787  # a prime that is none of the sizes' factors, so that number → number * SCATTER % TOTAL loses none


def row_of(number: int) -> Row:
    """The combination of that number, 0 … TOTAL - 1, in an order in which neighbours have little in common."""
    return tuple(int(place) for place in np.unravel_index(number * SCATTER % TOTAL, SIZES))


def tables_of(row: Row) -> dict[str, Any]:
    """The tables of a config."""
    return {family: axis[place] for (family, axis), place in zip(AXES.items(), row, strict=True)}


def shape_of(allocation: dict[str, object]) -> tuple[int, int]:
    """Devices and subsets for an allocation."""
    part = msgspec.convert(allocation, allocations.Choice)
    for devices, subsets in SHAPES:
        try:
            part.check(devices, subsets)
        except InputError:
            continue
        return devices, subsets
    raise AssertionError(f"SHAPES has none for {allocation}")


Table = dict[tuple[int, ...], np.ndarray]
"""For some axes together, whether something holds for their entries, in an array of the axes' sizes."""


def covering(
    strength: int, accepts: Callable[[Row], bool], rng: np.random.Generator, impossible: Table, tries: int = 6
) -> Iterator[Row]:
    """Rows that ``accepts``, among which every pair (strength 2), triple (3), … of entries of different axes is met.

    Greedy: for entries that are not yet met together, of random rows with them the accepted one that meets most others
    (of ``tries``, those with the least of what is ``impossible``); else a row that was accepted with one of them, or
    the plainest one. Entries for which none is accepted are added to ``impossible``, and tried again in rows without
    any other such, as long as there are some and that changes anything.
    """
    known: dict[tuple[int, int], Row] = {}
    groups = list(itertools.combinations(range(len(SIZES)), strength))
    open_ = {axes: _possible(axes, impossible) for axes in groups}
    impossible |= {axes: np.zeros_like(open_[axes]) for axes in groups}
    todo = [(axes, tuple(entries)) for axes in groups for entries in rng.permutation(np.argwhere(open_[axes])).tolist()]
    first = changed = True
    while changed:
        changed = False
        for axes, entries in todo:
            if open_[axes][entries]:
                impossible[axes][entries] = False
                rows = rng.integers(SIZES, size=(50 * tries, len(SIZES)))
                rows[:, axes] = entries
                doubts = _count(rows, impossible)
                order = np.lexsort((-_count(rows, open_, groups), doubts))
                order = order[:tries] if first else order[doubts[order] == 0][: tries // 2]
                candidates = rows[order].tolist()
                bases = [known.get(entry) for entry in zip(axes, entries, strict=True)] + [(0,) * len(SIZES)]
                for base in bases if first else ():
                    if base is not None:
                        candidates.append(list(base))
                        for axis, entry in zip(axes, entries, strict=True):
                            candidates[-1][axis] = entry
                chosen = next((row for row in map(tuple, candidates) if accepts(row)), None)
                if chosen is None:
                    impossible[axes][entries] = True
                    continue
                known |= {entry: known.get(entry, chosen) for entry in enumerate(chosen)}
                yield chosen
                changed = True
                for group in groups:
                    open_[group][tuple(chosen[axis] for axis in group)] = False
            impossible[axes][entries] = False
        first = False
        todo = [(axes, tuple(entries)) for axes in groups for entries in np.argwhere(impossible[axes]).tolist()]


def _count(rows: np.ndarray, table: Table, groups: Iterable[tuple[int, ...]] | None = None) -> np.ndarray:
    """How much of what a table has each row has."""
    return sum((table[axes][tuple(rows[:, axes].T)].astype(int) for axes in groups or table), np.zeros(len(rows), int))


def _possible(axes: tuple[int, ...], impossible: Table) -> np.ndarray:
    """Entries without anything that is impossible for some of these axes."""
    sizes = [SIZES[axis] for axis in axes]
    rows = np.zeros((math.prod(sizes), len(SIZES)), int)
    rows[:, axes] = np.indices(sizes).reshape(len(axes), -1).T
    inside = [group for group in impossible if set(group) <= set(axes)]
    return np.asarray(_count(rows, impossible, inside) == 0).reshape(sizes) if inside else np.ones(sizes, bool)
