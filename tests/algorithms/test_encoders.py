"""Messages are unbiased, the same on any rank, and spread as the theory of the coded schemes says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms import encoders
from mpicoded.algorithms.allocations import Balanced, Cyclic, Partition, Uniform
from mpicoded.algorithms.encoders import Mean

from .building import LIGHT, each, family

ENCODERS = family(encoders.Choice) | {"mean, plain": Mean(weighting="plain")}


def draw_gradients(subsets, dim=6, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, (subsets, dim))


def encode(encoder, assignment, gradients):
    return encoder.code(assignment, 0, len(assignment)).weights @ gradients


UNEVEN = Uniform(redundancy=5).assignment(12, 10, 0, 1)
COVERED = [
    pytest.param(Partition().assignment(4, 10, 0, 0), id="partition, uneven"),
    pytest.param(Cyclic(redundancy=3).assignment(10, 10, 0, 0), id="cyclic"),
    pytest.param(Cyclic(redundancy=8).assignment(5, 20, 0, 0), id="cyclic, blocks"),
    pytest.param(Balanced(redundancy=6).assignment(10, 15, 0, 0), id="balanced"),
    pytest.param(UNEVEN, id="uniform"),
    pytest.param(np.eye(4, dtype=bool)[[0, 1, 2, 3, 3]], id="a subset twice"),
    pytest.param(np.array([[1, 1, 1], [0, 0, 0], [0, 1, 0]], bool), id="a device without subsets"),
]


@pytest.mark.parametrize("assignment", COVERED)
def test_mean_of_the_messages_is_the_mean_of_the_gradients(assignment):
    assert assignment.any(axis=0).all()
    gradients = draw_gradients(assignment.shape[1])
    messages = encode(Mean(), assignment, gradients)
    np.testing.assert_allclose(messages.mean(axis=0), gradients.mean(axis=0), rtol=1e-12)


@LIGHT
@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 10**6))
def test_messages_are_unbiased_for_any_allocation_without_lost_subsets(devices, subsets, seed):
    rng = np.random.default_rng(seed)
    assignment = rng.random((devices, subsets)) < 0.4
    assignment[rng.integers(devices, size=subsets), np.arange(subsets)] = True
    gradients = draw_gradients(subsets, seed=seed)
    messages = encode(Mean(), assignment, gradients)
    np.testing.assert_allclose(messages.mean(axis=0), gradients.mean(axis=0), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("assignment", COVERED)
def test_unbiased_weights_by_loops(assignment):
    devices, subsets = assignment.shape
    gradients = draw_gradients(subsets)
    messages = encode(Mean(), assignment, gradients)
    for row, message in zip(assignment, messages, strict=True):
        expected = sum(gradients[k] / assignment[:, k].sum() for k in range(subsets) if row[k])
        np.testing.assert_allclose(message, devices / subsets * expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("assignment", [*COVERED[:-1], pytest.param(UNEVEN[:3], id="subsets lost")])
def test_plain_weights_are_the_mean_of_each_devices_gradients(assignment):
    gradients = draw_gradients(assignment.shape[1])
    messages = encode(Mean(weighting="plain"), assignment, gradients)
    for row, message in zip(assignment, messages, strict=True):
        np.testing.assert_allclose(message, gradients[row].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("assignment", COVERED[1:4])
def test_even_allocations_have_the_same_bits_under_both_weightings(assignment):
    gradients = draw_gradients(assignment.shape[1])
    plain = encode(Mean(weighting="plain"), assignment, gradients)
    np.testing.assert_array_equal(encode(Mean(), assignment, gradients), plain)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("assignment", COVERED)
@each(ENCODERS)
def test_a_block_of_devices_sends_the_bits_of_the_whole(part, assignment, dtype):
    devices = len(assignment)
    gradients = draw_gradients(assignment.shape[1], dim=37).astype(dtype)
    whole = part.code(assignment, 0, devices).weights.astype(dtype) @ gradients
    assert whole.dtype == dtype
    for first in range(devices):
        for stop in range(first, devices + 1):
            code = part.code(assignment, first, stop)
            np.testing.assert_array_equal(code.keys, np.arange(first, stop))
            assert code.weights.shape == (stop - first, assignment.shape[1])
            np.testing.assert_array_equal(code.weights.astype(dtype) @ gradients, whole[first:stop])


@pytest.mark.parametrize("assignment", COVERED)
@each(ENCODERS)
def test_weights_are_where_the_assignment_is_and_ascend(part, assignment):
    weights = part.code(assignment, 0, len(assignment)).weights
    np.testing.assert_array_equal(weights.toarray() != 0, assignment)
    assert weights.has_sorted_indices


@each(ENCODERS)
def test_messages_are_the_votes(part):
    messages = draw_gradients(5)
    decoder = part.decoder(np.eye(5, dtype=bool))
    decoded = decoder.decode(messages, np.ones(5, bool), np.random.default_rng(0))
    np.testing.assert_array_equal(decoded.votes, messages)
    assert decoder.votes == 5


def test_full_redundancy_makes_all_messages_equal():
    gradients = draw_gradients(20)
    for encoder in ENCODERS.values():
        for allocation in (
            Cyclic(redundancy=20),
            Cyclic(redundancy=20, permute=False),
            Uniform(redundancy=20),
        ):
            messages = encode(encoder, allocation.assignment(20, 20, 0, 0), gradients)
            np.testing.assert_allclose(messages, np.tile(gradients.mean(axis=0), (20, 1)), rtol=1e-12)


def centred(subsets, dim, seed):
    """Gradients, their mean and their heterogeneity."""
    gradients = draw_gradients(subsets, dim, seed)
    mean = gradients.mean(axis=0)
    return gradients, mean, ((gradients - mean) ** 2).sum(axis=1).mean()


@pytest.mark.parametrize(("redundancy", "rho"), [(1, 1), (5, 0.192), (10, 0.0909), (20, 0.0404), (41, 0.0145)])
def test_spread_of_lads_messages(redundancy, rho):
    """Closed forms for random permuted windows; 150 rounds leave a relative error of about two percent."""
    devices, honest, dim, rounds = 100, 70, 60, 150
    exact = (devices - redundancy) / (redundancy * (devices - 1))
    assert exact == pytest.approx(rho, abs=5e-4)
    gradients, mean, heterogeneity = centred(devices, dim, 2)
    rng = np.random.default_rng(4)
    one, honest_mean, within = [], [], []
    for round in range(rounds):
        assignment = Cyclic(redundancy=redundancy).assignment(devices, devices, round, 3)
        messages = encode(Mean(), assignment, gradients)
        kept = messages[rng.permutation(devices)[:honest]]
        one.append(((messages[0] - mean) ** 2).sum())
        honest_mean.append(((kept.mean(axis=0) - mean) ** 2).sum())
        within.append(((kept - kept.mean(axis=0)) ** 2).sum(axis=1).mean())
    variance = heterogeneity * exact
    assert np.mean(one) == pytest.approx(variance, rel=0.06)
    assert np.mean(honest_mean) == pytest.approx(variance * (devices - honest) / (honest * (devices - 1)), rel=0.06)
    assert np.mean(within) == pytest.approx(variance * devices * (honest - 1) / (honest * (devices - 1)), rel=0.01)


@pytest.mark.parametrize("redundancy", [1, 7, 30, 60])
def test_spread_of_random_subsets(redundancy):
    """CRA-DL: E||g_i - grad F||^2 = beta^2 (M - r) / (r (M - 1))."""
    subsets = 60
    gradients, mean, heterogeneity = centred(subsets, 40, 5)
    squares = []
    for seed in range(40):
        assignment = Uniform(redundancy=redundancy).assignment(50, subsets, 0, seed)
        messages = encode(Mean(weighting="plain"), assignment, gradients)
        squares.append(((messages - mean) ** 2).sum(axis=1))
    expected = heterogeneity * (subsets - redundancy) / (redundancy * (subsets - 1))
    assert np.mean(squares) == pytest.approx(expected, rel=0.02, abs=1e-20)
