"""The helpers under the rules: blocks, distances, and what becomes of unusable messages."""

import array_api_strict
import numpy as np
import pytest

from mpicoded.algorithms import arrays
from mpicoded.algorithms.arrays import replace_unusable, store
from mpicoded.algorithms.ordering import per_coordinate
from mpicoded.algorithms.slices import centred_gram, squared_distances

LIBRARIES = pytest.mark.parametrize("library", [np, array_api_strict], ids=["numpy", "strict"])


def draw(shape, seed=0, dtype=float):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(dtype)


def distances_by_loops(votes):
    return np.array([[sum((a - b) ** 2) for b in votes] for a in votes])


def test_namespace_is_the_arrays_library():
    assert arrays.namespace(array_api_strict.zeros(3)) is array_api_strict
    assert arrays.namespace(np.zeros(3)).asarray([1]).dtype == np.int64


def test_store_without_out_gives_the_result_itself():
    result = np.ones(3)
    assert store(result, None) is result
    assert store(result, result) is result
    out = np.zeros(3)
    assert store(result, out) is out
    assert out.tolist() == [1, 1, 1]


# One vote has 65536 columns in a block of doubles, a hundred have 655, twenty thousand the least of 16.
@LIBRARIES
@pytest.mark.parametrize(
    "shape", [(1, 3), (100, 654), (100, 655), (100, 656), (100, 2000), (3, 25000), (20000, 40)], ids=str
)
def test_coordinates_are_sorted_in_every_block(shape, library):
    votes = draw(shape)
    middle = shape[0] // 2
    result = per_coordinate(library.asarray(votes), lambda xp, x: x[:, 0] + 2 * x[:, middle])
    ordered = np.sort(votes, axis=0)
    np.testing.assert_array_equal(np.asarray(result), ordered[0] + 2 * ordered[middle])


def test_blocks_do_not_touch_the_votes():
    votes = draw((100, 1000))
    votes.flags.writeable = False
    out = np.empty(1000)
    assert per_coordinate(votes, lambda xp, x: x[:, 0], out) is out
    np.testing.assert_array_equal(out, votes.min(axis=0))


@LIBRARIES
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 1), (9, 4)], ids=str)
def test_squared_distances_by_loops(shape, library):
    votes = draw(shape)
    result = np.asarray(squared_distances(library.asarray(votes)))
    np.testing.assert_allclose(result, distances_by_loops(votes), rtol=1e-12, atol=1e-12)


def test_squared_distances_are_a_metrics():
    result = squared_distances(np.repeat(draw((6, 3)), 2, axis=0))
    assert (result >= 0).all()
    assert (np.diag(result) == 0).all()
    np.testing.assert_allclose(result, result.T, atol=1e-12)
    assert np.abs(np.diag(result[::2, 1::2])).max() < 1e-14  # duplicates


@pytest.mark.parametrize("shift", [1e3, 1e7, 1e12])
def test_small_distances_survive_far_from_the_origin(shift):
    votes = np.round(draw((9, 4)) * 2**10) / 2**10 + shift
    np.testing.assert_allclose(squared_distances(votes), distances_by_loops(votes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e3, 1e30, 1e100])
def test_small_distances_survive_beside_outliers(scale):
    votes = draw((9, 4))
    votes[:4] *= scale
    honest = squared_distances(votes)[4:, 4:]
    np.testing.assert_allclose(honest, distances_by_loops(votes[4:]), rtol=1e-10, atol=1e-12)


def test_small_distances_survive_beside_a_negated_vote():
    """A negated vote has an honest norm: a centre that is chosen by norm alone may lie on the other side."""
    for seed in range(20):
        votes = np.round(draw((9, 4), seed) * 2**10) / 2**10 + 1e7
        votes[:4] *= -1
        honest = squared_distances(votes)[4:, 4:]
        np.testing.assert_allclose(honest, distances_by_loops(votes[4:]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_inner_products_are_those_of_the_offsets(shift):
    votes = draw((9, 4)) + shift
    centre, gram = centred_gram(votes)
    if shift:
        assert (votes == centre).all(axis=1).sum() == 1
    else:
        assert centre is None  # votes that differ as much as they are long: no copy of them is made
        centre = np.zeros(4)
    np.testing.assert_allclose(gram, [[sum((a - centre) * (b - centre)) for b in votes] for a in votes], atol=1e-12)


BAD = [np.nan, np.inf, -np.inf, 1e200]


@LIBRARIES
@pytest.mark.parametrize("value", BAD)
def test_unusable_votes_become_zero_and_are_counted(value, library):
    votes = draw((6, 4))
    votes[2, 1] = value
    votes[4] = value
    arrived = np.ones(6, bool)
    result, bad = replace_unusable(library.asarray(votes.copy()), arrived, len(votes))
    expected = votes.copy()
    expected[[2, 4]] = 0.0
    np.testing.assert_array_equal(np.asarray(result), expected)
    assert bad.tolist() == [False, False, True, False, True, False]


def test_missing_votes_become_zero_and_are_not_bad():
    votes = draw((4, 3))
    votes[1] = np.nan  # what lay in the memory
    arrived = np.array([True, False, True, False])
    result, bad = replace_unusable(votes.copy(), arrived, len(votes))
    assert not bad.any()
    assert not result[~arrived].any()
    np.testing.assert_array_equal(result[arrived], votes[arrived])


def test_usable_votes_are_left_alone():
    votes = draw((4, 3))
    result, bad = replace_unusable(votes, np.ones(4, bool), 4)
    assert result is votes
    np.testing.assert_array_equal(result, draw((4, 3)))
    assert not bad.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_usable_votes_have_finite_distances(dtype):
    votes = draw((9, 4), dtype=dtype)
    limit = np.sqrt(np.finfo(dtype).max / (16 * 9))
    huge = (votes / np.linalg.norm(votes, axis=1, keepdims=True) * limit * 0.99).astype(dtype)
    huge[1] = -huge[0]
    kept, bad = replace_unusable(huge, np.ones(9, bool), 9)
    assert not bad.any()
    assert np.isfinite(squared_distances(kept).sum(axis=1)).all()
    _, bad = replace_unusable((1.02 * huge).astype(dtype), np.ones(9, bool), 9)
    assert bad.all()
