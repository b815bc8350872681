import numpy as np
import pytest

from mpicoded.algorithms import allocations, encoders
from mpicoded.algorithms.encoders import least_squares_factors


def weights_of(allocation, devices: int, subsets: int):
    assignment = allocation.assignment(devices, subsets, 0, 3)
    return encoders.Mean().code(assignment, 0, devices).weights


def test_with_one_of_each_group_left_nothing_is_lost():
    """Repetition: groups of 4 devices with equal messages, from each of which another number is left."""
    rng = np.random.default_rng(0)
    weights = weights_of(allocations.Repetition(copies=4, permute=False), 12, 12)
    there = np.isin(np.arange(12), [0, 1, 2, 4, 9, 10])
    gradients = rng.standard_normal((12, 5))
    messages = (weights @ gradients)[there]
    factors = least_squares_factors(weights[there])
    np.testing.assert_allclose((factors[:, None] * messages).mean(axis=0), gradients.mean(axis=0), rtol=1e-12)
    assert np.abs(messages.mean(axis=0) - gradients.mean(axis=0)).max() > 0.05  # as they are, they are not the mean


@pytest.mark.parametrize("gone", [1, 3, 6])
def test_nothing_is_nearer(gone):
    rng = np.random.default_rng(1)
    weights = weights_of(allocations.Cyclic(redundancy=4, permute=False), 13, 13)
    there = rng.permutation(13) >= gone
    code = weights.toarray()[there]
    factors = least_squares_factors(weights[there])
    combined = factors @ code / len(code)
    # Normal equations: what is left of the target is orthogonal to all that can be combined.
    np.testing.assert_allclose(code @ (combined - 1 / 13), 0, atol=1e-15)
    np.testing.assert_allclose(factors, len(code) * np.linalg.pinv(code.T) @ np.full(13, 1 / 13), rtol=1e-9, atol=1e-12)


def test_where_all_are_there_they_stay_as_they_are():
    weights = weights_of(allocations.Cyclic(redundancy=3, permute=False), 10, 10)
    np.testing.assert_allclose(least_squares_factors(weights), 1.0, rtol=1e-12)
