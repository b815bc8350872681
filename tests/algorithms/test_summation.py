"""Sums have the same bits however the terms are split, and are as good as the best float sum."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms.summation import grid_exponent, partial_sum, total

from .building import LIGHT


def draw(terms, dim, seed, spread):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(terms, dim)) * 10.0 ** rng.uniform(-spread, spread, (terms, dim))


def summed(parts, exponent):
    return total(np.stack([partial_sum(part, exponent) for part in parts]), exponent)


@LIGHT
@given(
    st.integers(1, 50),
    st.integers(1, 5),
    st.integers(0, 10**6),
    st.sampled_from([0, 3, 30, 250]),
    st.lists(st.integers(0, 50), max_size=8),
)
def test_any_split_gives_the_same_bits(terms, dim, seed, spread, cuts):
    values = draw(terms, dim, seed, spread)
    exponent = grid_exponent(float(np.abs(values).max()), terms)
    whole = summed([values], exponent)
    shuffled = np.random.default_rng(seed).permutation(values)
    np.testing.assert_array_equal(summed(np.split(values, sorted(cuts)), exponent), whole)
    np.testing.assert_array_equal(summed(np.split(shuffled, sorted(cuts)), exponent), whole)


@LIGHT
@given(st.integers(1, 200), st.integers(0, 10**6), st.sampled_from([0, 3, 30, 250]))
def test_sums_are_accurate(terms, seed, spread):
    values = draw(terms, 3, seed, spread)
    largest = float(np.abs(values).max())
    result = summed([values], grid_exponent(largest, terms))
    for column, value in zip(values.T, result, strict=True):
        exact = math.fsum(column)
        assert abs(value - exact) <= abs(exact) * 2**-52 + terms**2 * largest * 2.0**-60


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 5, 1000, 1024, 1025])
@pytest.mark.parametrize("largest", [1.0, math.nextafter(1.0, 0.0), 1.5, 1e300, 1e-300, 5e-324])
def test_the_largest_terms_do_not_overflow(largest, terms):
    exponent = grid_exponent(largest, terms)
    for sign in (1, -1):
        values = np.full((terms, 2), sign * largest)
        partial = partial_sum(values, exponent)
        assert all(abs(int(x)) <= 2**62 for x in partial)
        if terms * largest < 1e300:
            np.testing.assert_allclose(total(partial[None], exponent), sign * terms * largest, rtol=1e-15)


@pytest.mark.parametrize("terms", [1, 3, 1000])
def test_the_grid_is_as_fine_as_it_can_be(terms):
    """At most one bit is given away where the number of terms is no power of two."""
    exponent = grid_exponent(math.nextafter(1.0, 0.0), terms)
    assert 2.0**61 < terms * 2.0**exponent <= 2.0**62


def test_nothing_but_zeros_is_zero():
    values = np.zeros((4, 3))
    assert summed([values], grid_exponent(0.0, 4)).tolist() == [0, 0, 0]


def test_a_part_may_have_no_terms():
    assert partial_sum(np.empty((0, 3)), 10).tolist() == [0, 0, 0]


def test_single_precision_terms_are_summed_in_double():
    values = np.array([[1.0], [2.0**-24], [2.0**-24]], np.float32)
    assert summed([values], grid_exponent(1.0, 3))[0] == 1 + 2.0**-23
