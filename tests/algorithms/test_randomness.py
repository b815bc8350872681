"""Streams are the same whoever draws them, differ by what they are for, and stay what they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpicoded.algorithms.randomness import Streams, generator

from .building import LIGHT

STREAMS = Streams(3, 7)


def test_words_stay_what_they_are():
    """An experiment of today must have the same bits tomorrow."""
    assert STREAMS.of(np.array([5])).words("gaussian", 3)[0].tolist() == [
        0x8273670C50A26805,
        0x74BD97833FD21F8B,
        0x4C1036289F7C948F,
    ]
    assert STREAMS.of(np.array([5])).words("gaussian", 9)[0, [0, 8]].tolist() == [
        0x6022D03019C19A45,
        0x5AA4D76EDD70981A,
    ]
    words = generator(2**63 - 1, "permutation", 2).bit_generator.random_raw(2)
    assert words.tolist() == [0xBF0D0CEEC18B1958, 0x0E3F9173B0AF71BF]


def test_numbers_stay_what_they_are():
    expected = [[-1.4755044822971928, -0.017823903482297298], [-0.348292678130892, -0.9826449132476087]]
    np.testing.assert_allclose(STREAMS.of(np.array([0, 5])).normal("gaussian", 3)[:, :2], expected, rtol=1e-13)
    assert generator(0, "permutation", 1).permutation(8).tolist() == [1, 3, 4, 5, 7, 2, 6, 0]
    assert generator(0, "allocation").integers(0, 1000, 4).tolist() == [220, 928, 149, 486]


@LIGHT
@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 13))
def test_a_row_does_not_depend_on_the_rows_beside_it(ids, width):
    chosen = np.array(sorted(ids))
    for draw in (STREAMS.words, STREAMS.uniform, STREAMS.normal):
        whole = draw("gaussian", np.arange(61), width)
        np.testing.assert_array_equal(draw("gaussian", chosen, width), whole[chosen])


def test_no_rows():
    none = np.empty(0, np.int64)
    for draw in (STREAMS.words, STREAMS.uniform, STREAMS.normal):
        assert draw("gaussian", none, 5).shape == (0, 5)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 9])
def test_no_word_comes_twice(width):
    words = STREAMS.of(np.arange(200)).words("gaussian", width)
    assert len(np.unique(words)) == words.size


def test_seed_round_and_purpose_name_the_stream():
    ids = np.arange(4)
    others = [Streams(4, 7), Streams(3, 8), Streams(7, 3), Streams(3, 0)]
    words = [streams.of(ids).words("gaussian", 4) for streams in (STREAMS, *others)]
    words += [STREAMS.of(ids).words("mini_batch", 4)]
    assert len(np.unique(words)) == 6 * 16


def test_generators_are_named_by_seed_purpose_and_indices():
    names = [
        (0, "a"),
        (1, "a"),
        (0, "b"),
        (0, "a", 0),
        (0, "a", 1),
        (0, "a", 1, 0),
        (0, "a", 0, 1),
        (2**40, "a"),
    ]
    first = {int(generator(*name).bit_generator.random_raw()) for name in names}
    assert len(first) == len(names)
    assert generator(5, "a", 1).random() == generator(5, "a", 1).random()


def test_the_rounds_generator_is_that_of_its_number():
    assert STREAMS.generator("permutation").random() == generator(3, "permutation", 7).random()


def test_uniform_numbers():
    numbers = STREAMS.of(np.arange(400)).uniform("mini_batch", 501)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("width", [501, 500])
def test_normal_numbers(width):
    numbers = STREAMS.of(np.arange(400)).normal("gaussian", width)
    assert numbers.shape == (400, width)
    assert stats.kstest(numbers.ravel(), "norm").pvalue > 1e-3
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert (numbers**power).mean() == pytest.approx(moment, abs=0.03)


def test_normal_numbers_are_uncorrelated():
    numbers = STREAMS.of(np.arange(5000)).normal("gaussian", 20)
    columns = np.concatenate([numbers, numbers**2], axis=1)
    assert np.abs(np.corrcoef(columns.T) - np.eye(40)).max() < 5 / np.sqrt(5000)


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_extreme_words_give_finite_numbers(monkeypatch, word):
    def words(self, purpose, ids, width):
        return np.full((len(ids), width), word, np.uint64)

    monkeypatch.setattr(Streams, "words", words)
    assert (STREAMS.of(np.arange(3)).uniform("gaussian", 4) < 1).all()
    assert np.abs(STREAMS.of(np.arange(3)).normal("gaussian", 4)).max() < 9
