"""Sparse weights times gradients: each message by itself, whoever sums it up."""

import subprocess
import sys

import numpy as np
import pytest

from mpicoded.algorithms import products
from mpicoded.algorithms.products import Rows, SparseProduct, worth_gathering


def draw(height, width, held, dtype, gathered=False):
    """Rows with as many values each; places in any order."""
    rng = np.random.default_rng(height)
    columns = np.argsort(rng.random((height, width)), axis=1)[:, :held].ravel()
    values = np.full(height * held, 1 / held) if gathered else rng.normal(size=height * held)
    return Rows(values.astype(dtype), columns, np.arange(0, height * held + 1, held), width, gathered)


def one_by_one(weights, gradients):
    """The sum of each row, first to last, in the gradients' type."""
    found = np.zeros((weights.height, gradients.shape[1]), gradients.dtype)
    for row in range(weights.height):
        for at in range(weights.starts[row], weights.starts[row + 1]):
            found[row] += weights.values[at] * gradients[weights.columns[at]]
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 7, 1000])
def test_products_by_loops(dtype, gathered, dim):
    weights = draw(9, 14, 5, dtype, gathered)
    gradients = np.random.default_rng(1).normal(size=(14, dim)).astype(dtype)
    out = np.full((9, dim), np.nan, dtype)
    assert SparseProduct()(weights, gradients, out) is out
    np.testing.assert_allclose(out, one_by_one(weights, gradients), rtol=20 * np.finfo(dtype).eps, atol=1e-6)
    np.testing.assert_allclose(out, weights.dense() @ gradients, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(weights.sparse().toarray(), weights.dense())


@pytest.mark.parametrize("gathered", [False, True])
def test_a_message_is_the_same_sum_whatever_others_there_are(gathered):
    weights, product = draw(9, 14, 5, np.float64, gathered), SparseProduct()
    gradients = np.random.default_rng(1).normal(size=(14, 333))
    whole = product(weights, gradients, np.empty((9, 333)))
    for first in range(9):
        some = Rows(
            weights.values[5 * first :], weights.columns[5 * first :], weights.starts[: 10 - first], 14, gathered
        )
        np.testing.assert_array_equal(product(some, gradients, np.empty((9 - first, 333))), whole[first:])


def test_rows_of_any_length_and_none():
    weights = Rows(np.array([2.0, 3.0, -1.0]), np.array([1, 0, 1]), np.array([0, 2, 2, 3]), 2)
    gradients, none = np.array([[1.0, 10.0], [5.0, 7.0]]), np.empty((0, 2))
    found = SparseProduct()(weights, gradients, np.empty((3, 2)))
    assert found.tolist() == [[13.0, 44.0], [0.0, 0.0], [-5.0, -7.0]]
    empty = Rows(np.empty(0), np.empty(0, np.int64), np.zeros(1, np.int64), 2)
    assert SparseProduct()(empty, gradients, none).shape == (0, 2)
    assert empty.dense().shape == (0, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_gradients_are_worked_in_pieces_with_the_same_bits(monkeypatch, dtype):
    weights, gradients = draw(9, 14, 5, dtype), np.random.default_rng(1).normal(size=(14, 1003)).astype(dtype)
    whole = SparseProduct()(weights, gradients, np.empty((9, 1003), dtype))
    monkeypatch.setattr(products, "_WHOLE", 1000)
    monkeypatch.setattr(products, "_PIECE", 64 * 23 * np.dtype(dtype).itemsize)
    np.testing.assert_array_equal(SparseProduct()(weights, gradients, np.empty((9, 1003), dtype)), whole)


def test_short_runs_load_no_scipy(tmp_path):
    """Loading its sparse package takes longer than such a run."""
    config = tmp_path / "short.toml"
    config.write_text(
        'devices = 10\nrounds = 3\ndata.path = "data.h5"\nmodel.name = "linear_regression"\n'
        'allocation = { name = "cyclic", redundancy = 4 }\naggregator = { name = "trimmed_mean", byzantine = 2 }\n'
        "optimizer.step_size = 1e-4\n"
    )
    program = (
        "import sys; from mpicoded.cli import main\n"
        "assert main(['data', 'linear_regression', '-o', 'data.h5', '--subsets', '10']) == 0\n"
        "before = set(sys.modules)\n"
        "assert main(['run', 'short.toml', '-o', 'out.h5', '--quiet']) == 0\n"
        "loaded = set(sys.modules) - before\n"
        "assert not {name for name in loaded if name.startswith(('scipy', 'llvmlite', 'matplotlib'))}\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_long_runs_and_large_messages_are_not_gathered():
    assert worth_gathering(200_000, 1000)
    assert not worth_gathering(200_000, 10_000)
    assert not worth_gathering(10**7, 1)
