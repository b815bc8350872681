"""Every combination of parts that an experiment accepts runs, and every one that it refuses says why.

There are too many to run (``combinations.TOTAL``, tens of millions). In CI: every pair of parts that can be. With
MPICODED_ALL=1 also every triple, in twenty parts; with MPICODED_PART=17/20000 (any part of any number of them) one part
of all combinations, so that all can be run one after the other, or side by side.
"""

import itertools
import json
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mpicoded.algorithms.component import members
from mpicoded.configs import FAMILIES
from mpicoded.transport.local import LocalTransport

sys.path.insert(0, str(Path(__file__).parent))
import combinations
import matrix
from combinations import AXES, SIZES, TOTAL, Row, Table, tables_of

only_all = pytest.mark.skipif(not matrix.ALL, reason="takes long: MPICODED_ALL=1")
PART = os.environ.get("MPICODED_PART")


@pytest.fixture(scope="module")
def refusals(tmp_path_factory) -> matrix.Refusals:
    folder = tmp_path_factory.mktemp("data")
    matrix.make_files(folder)
    return matrix.Refusals(folder)


@pytest.fixture(scope="module")
def pairs(refusals) -> tuple[list[Row], Table]:
    return matrix.pairs(refusals)


@pytest.fixture(scope="module")
def alone(refusals, pairs, checks) -> list[np.ndarray]:
    ends = []
    for number, row in enumerate(pairs[0]):
        checks.wanted = number % 4 == 0  # every part is in some of these
        ends += matrix.ends(refusals.folder, [(number, row)], LocalTransport())
    return ends


@pytest.fixture(scope="module")
def triples(refusals) -> list[Row]:
    return matrix.triples(refusals)


def on_ranks(program, tmp_path, refusals, numbered, ranks: int, timeout: float) -> list[np.ndarray]:
    """What the rows end with on so many ranks."""
    given, target = tmp_path / "rows.json", tmp_path / "ends.npz"
    given.write_text(json.dumps([str(refusals.folder), numbered]))
    ended = program.python(matrix.__file__, target, given, ranks=ranks, timeout=timeout)
    assert ended.code == 0, ended.err
    with np.load(target) as ends:
        return [ends[f"arr_{place}"] for place in range(len(numbered))]


def never(impossible: Table) -> set[tuple[tuple[int, ...], Row]]:
    """The pairs that no accepted combination has."""
    return {(axes, tuple(entries)) for axes, bad in impossible.items() for entries in np.argwhere(bad).tolist()}


@pytest.mark.unchecked
def test_every_pair_of_parts_is_run_or_was_never_accepted(pairs):
    rows, impossible = pairs
    both = list(itertools.combinations(range(len(SIZES)), 2))
    met = {(axes, tuple(row[axis] for axis in axes)) for row in rows for axes in both}
    every = {(axes, entries) for axes in both for entries in itertools.product(*(range(SIZES[axis]) for axis in axes))}
    assert met.isdisjoint(never(impossible))
    assert met | never(impossible) == every
    assert 20 < len(never(impossible)) < len(every) / 10


def test_numbers_enumerate_all_combinations():
    assert math.gcd(combinations.SCATTER, TOTAL) == 1
    assert len({combinations.row_of(number) for number in range(5000)}) == 5000
    assert all(0 <= place < size for number in (0, 1, TOTAL - 1)
               for place, size in zip(combinations.row_of(number), SIZES, strict=True))  # fmt: skip


def test_every_part_is_in_some_combination(pairs):
    rows, _ = pairs
    for axis, places in enumerate(zip(*rows[::4], strict=True)):
        assert set(places) == set(range(SIZES[axis]))
    names = {family: {item["name"] for one in axis for item in (one if family == "filters" else [one])}
             for family, axis in AXES.items()}  # fmt: skip
    assert names == {family: set(members(FAMILIES[family])) for family in AXES}


@pytest.mark.timeout(600)
def test_every_pair_of_parts_ends_finite(alone, pairs):
    assert len(alone) == len(pairs[0])
    assert all(np.isfinite(end).all() for end in alone)


@pytest.mark.timeout(900)
@pytest.mark.mpi
@pytest.mark.parametrize(("ranks", "every"), [(2, 1 if matrix.ALL else 2), (3, 10), (5, 14)])
def test_combinations_have_the_same_bits_on_any_number_of_ranks(
    program, tmp_path, refusals, pairs, alone, ranks, every
):
    numbered = list(enumerate(pairs[0]))[ranks % every :: every]
    ends = on_ranks(program, tmp_path, refusals, numbered, ranks, timeout=800)
    for (number, row), end in zip(numbered, ends, strict=True):
        np.testing.assert_array_equal(end, alone[number], err_msg=str(tables_of(row)))


# --- what is refused


def named(row: Row) -> list[str]:
    """How a message may name a part of a combination: ``memory ef21`` or ``Krum(byzantine=2``."""
    found = []
    for family, tables in tables_of(row).items():
        for item in tables if family == "filters" else [tables]:
            name = item["name"]
            found += [rf"\b{family.removesuffix('s')} {name}\b", rf"\b{members(FAMILIES[family])[name].__name__}\("]
    return found


REASON = re.compile(r"\b(needs?|must|so that|without|cannot|but|than|has no)\b")


@pytest.mark.unchecked
def test_a_refusal_names_a_part_and_the_reason(refusals, pairs):
    drawn = np.random.default_rng(2).integers(TOTAL, size=300)
    for number in drawn:
        refusals.accepts(combinations.row_of(int(number)))
    assert len(refusals) > 100
    for row, message in refusals.items():
        said = message.removeprefix("config matrix: ")
        assert any(re.search(name, said) for name in named(row)), said
        assert REASON.search(said), said
        assert "\n" not in said


def test_a_pair_that_is_never_accepted_is_what_the_refusal_is_about(refusals, pairs):
    """Of the refusals of rows with it, one at least names one of the two (others are of other pairs)."""
    _, impossible = pairs
    for axes, entries in never(impossible):
        said = "\n".join(text for row, text in refusals.items() if tuple(row[axis] for axis in axes) == entries)
        chosen = [list(AXES.values())[axis][entry] for axis, entry in zip(axes, entries, strict=True)]
        words = [item["name"] for one in chosen for item in (one if isinstance(one, list) else [one])]
        assert any(re.search(rf"\b({word}|{camel(word)})\b", said) for word in words), (words, said)


def camel(word: str) -> str:
    return "".join(piece.capitalize() for piece in word.split("_"))


def test_a_combination_that_is_not_accepted_is_noticed(refusals):
    """A rule that needs thirteen votes, where there are ten devices, is refused with both numbers."""
    row = next(row for row in map(combinations.row_of, range(TOTAL)) if refusals.accepts(row))
    tables = tables_of(row) | {"aggregator": {"name": "krum", "byzantine": 5}, "filters": []}
    path = str(matrix.files_of(refusals.folder, 20)[0])
    with pytest.raises(matrix.InputError, match=r"Krum\(byzantine=5\) needs at least 13 votes, got 10"):
        matrix.experiment_of(path, 0, tables).check(matrix.describe(path), 2)


# --- too many for CI


@only_all
@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("place", range(20))
def test_every_triple_of_parts_has_the_same_bits_on_2_ranks(program, tmp_path, refusals, triples, place):
    """Part by part: what failed, or was not reached, is run again with ``pytest --last-failed`` or ``-k``."""
    check_on_2_ranks(program, tmp_path, refusals, list(enumerate(triples))[place::20])


@pytest.mark.skipif(PART is None, reason="takes for ever: MPICODED_PART=17/20000 runs a part of all combinations")
@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.timeout(36000)
def test_a_part_of_all_combinations_has_the_same_bits_on_2_ranks(program, tmp_path, refusals):
    check_on_2_ranks(program, tmp_path, refusals, list(enumerate(matrix.part(refusals, PART))))


def check_on_2_ranks(program, tmp_path, refusals, numbered: list[tuple[int, Row]]) -> None:
    assert numbered
    alone = matrix.ends(refusals.folder, numbered, LocalTransport())
    ends = on_ranks(program, tmp_path, refusals, numbered, 2, timeout=30000)
    for (_, row), one, two in zip(numbered, alone, ends, strict=True):
        assert np.isfinite(one).all(), tables_of(row)
        np.testing.assert_array_equal(two, one, err_msg=str(tables_of(row)))
