"""Small integers lie in bytes without gaps: against the same in Python's integers, of which none is too large."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms.compressors.packing import Digits, pack_bits, packed_bytes, unpack_bits

from .building import LIGHT

BASES = st.one_of(st.integers(2, 20), st.sampled_from([3, 9, 15, 31, 255, 8191, 8192, 8193, 65535, 65536]))


def slow_words(digits, base):
    """The digits of one row as bytes: as many to a 64-bit word as fit, lowest first, the last word cut."""
    per_word = max(n for n in range(1, 65) if base**n <= 2**64)
    packed = b""
    for start in range(0, len(digits), per_word):
        part = digits[start : start + per_word]
        most = base ** len(part) - 1
        nbytes = 8 if len(part) == per_word else -(-most.bit_length() // 8)
        packed += sum(int(digit) * base**place for place, digit in enumerate(part)).to_bytes(nbytes, "little")
    return packed


def packed_digits(digits, base):
    packing = Digits.of(base, digits.shape[1])
    padded = np.zeros((len(digits), packing.words * packing.per_word))
    padded[:, : digits.shape[1]] = digits
    out = np.full((len(digits), packing.nbytes), 0xA5, np.uint8)
    packing.pack(padded, out)
    return packing, out


def drawn_digits(seed, base, rows, count):
    """Random ones, none and the largest."""
    digits = np.random.default_rng(seed).integers(0, base, (rows + 2, count))
    digits[0], digits[1] = 0, base - 1
    return digits


@LIGHT
@given(BASES, st.integers(1, 140), st.integers(1, 3), st.integers(0, 10**6))
def test_digits_by_python_integers(base, count, rows, seed):
    digits = drawn_digits(seed, base, rows, count)
    packing, packed = packed_digits(digits, base)
    assert [row.tobytes() for row in packed] == [slow_words(row, base) for row in digits]
    assert packing.in_range(packed).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@LIGHT
@given(BASES, st.integers(1, 140), st.integers(0, 10**6), st.sampled_from([0, 1, 7, 32767]))
def test_digits_come_back_less_their_offset(dtype, base, count, seed, offset):
    digits = drawn_digits(seed, base, 2, count)
    packing, packed = packed_digits(digits, base)
    result = packing.unpack(packing.load(packed), offset, np.dtype(dtype))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result[:, :count], digits - offset)


@LIGHT
@given(BASES, st.integers(1, 140), st.integers(0, 10**6))
def test_rows_are_in_range_where_each_word_is_one_that_digits_write(base, count, seed):
    rng = np.random.default_rng(seed)
    packing, packed = packed_digits(drawn_digits(seed, base, 30, count), base)
    damaged = packed.copy()
    places = rng.integers(0, packing.nbytes, len(packed))
    damaged[np.arange(len(packed)), places] = rng.choice([0x00, 0x80, 0xFE, 0xFF], len(packed))
    expected = []
    for row in damaged:
        words = [int.from_bytes(row[start : start + 8].tobytes(), "little") for start in range(0, packing.nbytes, 8)]
        lengths = [min(packing.per_word, count - start) for start in range(0, count, packing.per_word)]
        expected.append(all(word < base**length for word, length in zip(words, lengths, strict=True)))
    assert packing.in_range(damaged).tolist() == expected


@LIGHT
@given(BASES, st.integers(1, 140), st.integers(0, 10**6))
def test_any_bytes_are_unpacked_to_digits_of_the_base(base, count, seed):
    packing = Digits.of(base, count)
    packed = np.random.default_rng(seed).integers(0, 256, (20, packing.nbytes), dtype=np.uint8)
    packed[0] = 0xFF
    digits = packing.unpack(packing.load(packed), 0, np.dtype(float))[:, :count]
    assert ((digits >= 0) & (digits < base)).all()
    np.testing.assert_array_equal(digits, np.rint(digits))


@pytest.mark.parametrize("base", [3, 9, 255, 65535, 2, 65536])
def test_the_word_after_the_largest_is_out_of_range(base):
    packing = Digits.of(base, 200)
    largest = base**packing.per_word
    packed = np.zeros((2, packing.nbytes), np.uint8)
    packed[0, :8] = np.frombuffer((largest - 1).to_bytes(8, "little"), np.uint8)
    packed[1, :8] = np.frombuffer(min(largest, 2**64 - 1).to_bytes(8, "little"), np.uint8)
    assert packing.in_range(packed).tolist() == [True, largest == 2**64]


def test_a_word_holds_as_many_digits_as_fit():
    words = [(base, Digits.of(base, 1).per_word) for base in (2, 3, 9, 15, 255, 256, 65535)]
    assert words == [(2, 64), (3, 40), (9, 20), (15, 16), (255, 8), (256, 8), (65535, 4)]
    assert [Digits.of(3, count).nbytes for count in (1, 5, 6, 39, 40, 41, 80)] == [1, 1, 2, 8, 8, 9, 16]


@LIGHT
@given(st.integers(0, 32), st.integers(0, 70), st.integers(0, 3), st.integers(0, 10**6))
def test_codes_by_python_integers(bits, count, rows, seed):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, count), dtype=np.uint64)
    codes[:1] = (1 << bits) - 1
    assert packed_bytes(count, bits) == -(-count * bits // 8)
    packed = np.full((rows, packed_bytes(count, bits)), 0xA5, np.uint8)
    pack_bits(codes, bits, packed)
    expected = [sum(int(code) << (bits * place) for place, code in enumerate(row)) for row in codes]
    assert [int.from_bytes(row.tobytes(), "little") for row in packed] == expected
    np.testing.assert_array_equal(unpack_bits(packed, count, bits), codes)


@pytest.mark.parametrize("bits", [1, 5, 9, 12, 17])
def test_bits_past_the_last_code_mean_nothing(bits):
    count = 3
    packed = np.full((1, packed_bytes(count, bits)), 0xFF, np.uint8)
    assert unpack_bits(packed, count, bits).tolist() == [[(1 << bits) - 1] * count]
