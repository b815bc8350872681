"""Streams are the same whoever draws them, differ by what they are for, and stay what they are."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpicoded.algorithms.randomness import Streams, generator, generators

from .building import LIGHT

STREAMS = Streams(3, 7)


def few(streams, purpose, width):
    return streams.choices(purpose, 3 * width, width)


def most(streams, purpose, width):
    return streams.choices(purpose, width + 1, width)


DRAWS = (Streams.words, Streams.half_words, Streams.uniform, Streams.normal, few, most)


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
    own = STREAMS.of(np.array([0, 5]))
    assert own.half_words("qsgd", 2).tolist() == [[2106415923, 2225928938], [2425405044, 1622958191]]
    assert own.choices("rand_k", 50, 4).tolist() == [[19, 35, 36, 46], [25, 28, 38, 48]]
    assert own.choices("rand_k", 6, 4).tolist() == [[0, 1, 2, 3], [0, 1, 2, 4]]
    assert STREAMS._replace(nonce=11).shared().choices("rand_k", 50, 4).tolist() == [[18, 28, 35, 41]]
    assert generator(0, "permutation", 1).permutation(8).tolist() == [1, 3, 4, 5, 7, 2, 6, 0]
    assert generator(0, "allocation").integers(0, 1000, 4).tolist() == [220, 928, 149, 486]


@LIGHT
@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 13))
def test_a_row_does_not_depend_on_the_rows_beside_it(ids, width):
    chosen = np.array(sorted(ids))
    for draw in DRAWS:
        whole = draw(STREAMS.of(np.arange(61)), "gaussian", width)
        np.testing.assert_array_equal(draw(STREAMS.of(chosen), "gaussian", width), whole[chosen])


def test_no_rows():
    for draw in DRAWS:
        assert draw(STREAMS, "gaussian", 5).shape == (0, 5)


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


def test_the_nonce_is_the_seed_of_what_is_shared():
    ids = np.arange(4)
    shared = Streams(3, 7, ids, nonce=11).shared()
    words = shared.words("rand_k", 5)
    assert words.shape == (1, 5)
    for same in (Streams(3, 7, ids[2:], 11), Streams(4, 7, ids, 11)):
        np.testing.assert_array_equal(same.shared().words("rand_k", 5), words)
    for other in (Streams(3, 7, ids, 12), Streams(3, 8, ids, 11), Streams(3, 7, ids)):
        assert not np.isin(other.shared().words("rand_k", 5), words).any()
    np.testing.assert_array_equal(Streams(3, 7, ids, 11).words("rand_k", 5), Streams(3, 7, ids).words("rand_k", 5))


@pytest.mark.parametrize("nonce", [0, 2**64 - 1])
def test_a_nonce_may_have_64_bits(nonce):
    assert Streams(3, 7, nonce=nonce).shared().choices("rand_k", 10, 3).shape == (1, 3)


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_half_words_are_the_halves_of_words(width):
    own = STREAMS.of(np.array([2, 5]))
    halves = own.half_words("qsgd", width)
    assert halves.dtype == np.uint32
    for row, words in zip(halves, own.words("qsgd", (width + 1) // 2), strict=True):
        expected = [int(word) >> shift & 0xFFFFFFFF for word in words for shift in (0, 32)]
        assert row.tolist() == expected[:width]


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
    def words(self, purpose, width):
        return np.full((len(self.ids), width), word, np.uint64)

    monkeypatch.setattr(Streams, "words", words)
    assert (STREAMS.of(np.arange(3)).uniform("gaussian", 4) < 1).all()
    assert np.abs(STREAMS.of(np.arange(3)).normal("gaussian", 4)).max() < 9


# Sets of numbers


def chosen(total, count, rows, purpose="rand_k"):
    return STREAMS.of(np.arange(rows)).choices(purpose, total, count)


def assert_sets(sets, total, count):
    """Ascending, so that the numbers are distinct as well, and in range."""
    assert sets.shape[1] == count
    assert np.issubdtype(sets.dtype, np.integer)
    assert (np.diff(sets, axis=1) > 0).all()
    assert ((sets >= 0) & (sets < total)).all()


def indicators(sets, total):
    held = np.zeros((len(sets), total))
    np.put_along_axis(held, sets, 1, axis=1)
    return held


def assert_all_sets_equally_often(sets, total, count):
    """Chi-square over all sets, which says all of inclusions and pairs as well."""
    codes = (1 << sets).sum(axis=1)
    _, seen = np.unique(codes, return_counts=True)
    assert len(seen) == math.comb(total, count)
    assert stats.chisquare(seen).pvalue > 1e-3


@LIGHT
@given(st.integers(1, 60), st.data(), st.integers(0, 10**6))
def test_choices_are_sets_of_numbers_in_order(total, data, seed):
    count = data.draw(st.integers(0, total))
    sets = Streams(seed, 0, np.arange(5)).choices("rand_k", total, count)
    assert sets.shape[0] == 5
    assert_sets(sets, total, count)


@pytest.mark.parametrize(("total", "count"), [(100_000, 1), (100_000, 1000), (100_000, 99_000), (70_000, 35_000)])
def test_choices_of_many_numbers(total, count):
    sets = chosen(total, count, 4)
    assert_sets(sets, total, count)
    assert len({row.tobytes() for row in sets}) == 4
    deviation = total / math.sqrt(12 * count * 4) * math.sqrt(1 - count / total)
    assert abs(sets.mean() - (total - 1) / 2) < 5 * deviation


@pytest.mark.parametrize(("total", "count"), [(5, 1), (6, 2), (6, 3), (6, 4), (8, 5), (5, 4)])
def test_all_sets_are_chosen_equally_often(total, count):
    assert_all_sets_equally_often(chosen(total, count, 30_000), total, count)


@pytest.mark.parametrize(("total", "count"), [(40, 3), (40, 20), (40, 21), (40, 37), (300, 30), (300, 280)])
def test_numbers_and_pairs_are_chosen_equally_often(total, count):
    """Chi-square of the numbers, whose counts in a row sum to ``count``; pairs by their largest and mean deviation."""
    rows = 20_000
    held = indicators(chosen(total, count, rows), total)
    share = count / total
    statistic = np.sum((held.sum(axis=0) - rows * share) ** 2) / (rows * share * (1 - share)) * (total - 1) / total
    assert 1e-3 < stats.chi2.sf(statistic, total - 1) < 1 - 1e-3
    both = (held.T @ held)[np.triu_indices(total, 1)]
    share = count * (count - 1) / (total * (total - 1))
    deviations = (both - rows * share) / math.sqrt(rows * share * (1 - share))
    assert np.abs(deviations).max() < stats.norm.isf(1e-3 / len(both))
    assert np.mean(deviations**2) == pytest.approx(1, abs=0.3)


def test_choices_differ_by_device_and_purpose():
    sets = chosen(1000, 20, 50)
    assert len({row.tobytes() for row in sets}) == 50
    assert not (chosen(1000, 20, 50, "other") == sets).all(axis=1).any()


@pytest.mark.parametrize(("total", "count"), [(30, 10), (30, 25)])
def test_rows_with_too_few_different_numbers_are_drawn_again(monkeypatch, total, count):
    """By devices of odd number, whose first draws are made equal; the others do not notice."""
    expected, instead = chosen(total, count, 9), chosen(total, count, 9, "rand_k, again")
    draw = Streams.half_words

    def half_words(self, purpose, width):
        words = draw(self, purpose, width).copy()
        if purpose == "rand_k":
            words[np.asarray(self.ids) % 2 == 1] = 7
        return words

    monkeypatch.setattr(Streams, "half_words", half_words)
    sets = chosen(total, count, 9)
    np.testing.assert_array_equal(sets[::2], expected[::2])
    np.testing.assert_array_equal(sets[1::2], instead[1::2])
    alone = STREAMS.of(np.array([3, 4, 7])).choices("rand_k", total, count)
    np.testing.assert_array_equal(alone, sets[[3, 4, 7]])


@pytest.mark.parametrize(("total", "count"), [(6, 3), (8, 5)])
def test_sets_that_were_drawn_again_are_chosen_equally_often(monkeypatch, total, count):
    """With one draw more than numbers are needed, most rows take several rounds of drawing."""
    draw, purposes, short = Streams.half_words, set(), min(count, total - count) + 1

    def half_words(self, purpose, width):
        purposes.add(purpose)
        words = draw(self, purpose, width).copy()
        words[:, short:] = words[:, :1]
        return words

    monkeypatch.setattr(Streams, "half_words", half_words)
    sets = chosen(total, count, 30_000)
    assert len(purposes) > 3
    assert_sets(sets, total, count)
    assert_all_sets_equally_often(sets, total, count)


SEEDS = st.integers(0, 2**200) | st.sampled_from([2**32 - 1, 2**32, 2**64 - 1, 2**64, 2**128 - 1, 2**128])
INDICES = st.integers(0, 2**33) | st.sampled_from([63, 64, 2**32 - 1, 2**32])


@given(SEEDS, st.text(max_size=8), INDICES, st.integers(0, 5))
def test_streams_that_are_keyed_together_are_those_of_numpys_seed_sequence(seed, purpose, index, count):
    with np.errstate(all="raise"):
        found = [each.bit_generator.random_raw(5) for each in generators(seed, purpose, range(index, index + count))]
    assert len(found) == count
    for number, words in enumerate(found):
        sequence = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), index + number))
        assert words.tolist() == np.random.Philox(sequence).random_raw(5).tolist()


def test_generators_one_after_another_are_those_of_each_index():
    """Also where one was left in the middle of a word of 64 bits, or of a block of four."""
    for index, found in zip(range(60, 70), generators(3, "permutation", range(60, 70)), strict=True):
        alone = generator(3, "permutation", index)
        for stream in (found, alone):
            stream.integers(0, 100, size=3, dtype=np.uint32)
        assert found.permutation(7).tolist() == alone.permutation(7).tolist()
        assert found.normal() == alone.normal()
