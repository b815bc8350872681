"""Messages are unbiased, the same on any rank, and spread as the theory of the coded schemes says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms import encoders
from mpicoded.algorithms.allocations import (
    AllSubsets,
    Balanced,
    Cyclic,
    LatinSquare,
    Partition,
    Repetition,
    Uniform,
)
from mpicoded.algorithms.compressors import NoCompression
from mpicoded.algorithms.encoders import Mean
from mpicoded.errors import InputError

from .building import LIGHT, family

ENCODERS = family(encoders.Choice, byzantine=1) | {"mean, plain": Mean(weighting="plain")}


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


ALLOCATED = [
    *COVERED,
    pytest.param(Cyclic(redundancy=6, permute=False).assignment(9, 18, 0, 0), id="cyclic, not permuted"),
    pytest.param(Cyclic(redundancy=3).assignment(3, 3, 0, 0), id="all on each"),
    pytest.param(Repetition(copies=3).assignment(9, 10, 0, 0), id="repetition, uneven"),
    pytest.param(LatinSquare().assignment(9, 18, 0, 0), id="latin square"),
    pytest.param(AllSubsets(copies=3).assignment(5, 20, 0, 0), id="all subsets"),
]


def accepts(encoder, assignment):
    try:
        encoder.check(assignment, NoCompression())
    except InputError:
        return False
    return True


ENCODED = [
    pytest.param(part, *case.values, id=f"{name}, {case.id}")
    for name, part in ENCODERS.items()
    for case in ALLOCATED
    if accepts(part, *case.values)
]


def test_every_encoder_meets_several_allocations():
    for part in ENCODERS.values():
        assert sum(case.values[0] == part for case in ENCODED) >= 3


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
@pytest.mark.parametrize(("part", "assignment"), ENCODED)
def test_a_block_of_devices_sends_the_bits_of_the_whole(part, assignment, dtype):
    devices, each = len(assignment), part.messages(assignment)
    gradients = draw_gradients(assignment.shape[1], dim=37).astype(dtype)
    everything = part.code(assignment, 0, devices)
    whole = everything.weights.astype(dtype) @ gradients
    assert whole.dtype == dtype
    assert len(everything.keys) == len(whole) == devices * each
    for first in range(devices):
        for stop in range(first, devices + 1):
            code, sent = part.code(assignment, first, stop), slice(each * first, each * stop)
            np.testing.assert_array_equal(code.keys, everything.keys[sent])
            assert code.weights.shape == (each * (stop - first), assignment.shape[1])
            np.testing.assert_array_equal(code.weights.astype(dtype) @ gradients, whole[sent])


@pytest.mark.parametrize(("part", "assignment"), ENCODED)
def test_each_subset_of_a_device_is_in_one_of_its_messages(part, assignment):
    weights = part.code(assignment, 0, len(assignment)).weights
    used = (weights.toarray() != 0).reshape(len(assignment), -1, assignment.shape[1])
    np.testing.assert_array_equal(used.sum(axis=1), assignment)
    assert weights.has_sorted_indices


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("part", "assignment"), ENCODED)
def test_messages_of_one_key_are_equal(part, assignment, dtype):
    code = part.code(assignment, 0, len(assignment))
    messages = code.weights.astype(dtype) @ draw_gradients(assignment.shape[1], dim=37).astype(dtype)
    _, first, key = np.unique(code.keys, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(messages, messages[first][key])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("part", "assignment"), ENCODED)
def test_mean_of_the_votes_is_the_mean_of_the_gradients(part, assignment, dtype):
    if part == ENCODERS["mean, plain"]:
        return  # biased where copies are uneven
    gradients = draw_gradients(assignment.shape[1]).astype(dtype)
    code, decoder = part.code(assignment, 0, len(assignment)), part.decoder(assignment)
    np.testing.assert_array_equal(decoder.keys, code.keys)
    messages = code.weights.astype(dtype) @ gradients
    before = messages.copy()
    decoded = decoder.decode(messages, np.ones(len(messages), bool), np.random.default_rng(0))
    assert decoded.votes.dtype == dtype
    assert decoded.votes.shape == (decoder.votes, gradients.shape[1])
    np.testing.assert_allclose(
        decoded.votes.mean(axis=0), gradients.mean(axis=0), rtol=2e-4 if dtype == np.float32 else 1e-12
    )
    np.testing.assert_array_equal(messages, before)
    for found in (decoded.conflicts, decoded.accused):
        assert found is None or not found.any()
    assert part.corrupted(assignment, 0) == 0
    assert decoder.votes >= part.corrupted(assignment, 2) >= part.corrupted(assignment, 1)


def test_messages_are_the_votes():
    messages = draw_gradients(5)
    for part in (Mean(), Mean(weighting="plain")):
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
            assignment = allocation.assignment(20, 20, 0, 0)
            if not accepts(encoder, assignment):
                assert encoder.name() == "cyclic_code"
                continue
            messages = encode(encoder, assignment, gradients)
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
