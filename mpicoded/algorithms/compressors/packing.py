"""Small integers without gaps: digits of any base in 64-bit words, and codes of a fixed number of bits."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Float, Integer, UInt8, UInt64

_TABLE = 1 << 18  # numbers in the table that turns part of a word into digits


class Digits(NamedTuple):
    """How ``digits`` digits of base ``base`` lie in bytes: as many to a 64-bit word as fit, the last word cut."""

    base: int
    digits: int
    per_word: int
    words: int  # the last one may be cut
    nbytes: int

    @classmethod
    @functools.cache
    def of(cls, base: int, digits: int) -> "Digits":
        """The packing of this many digits."""
        per_word = 1
        while base ** (per_word + 1) <= 1 << 64:
            per_word += 1
        full, rest = divmod(digits, per_word)
        nbytes = 8 * full + -(-(base**rest - 1).bit_length() // 8)
        return cls(base, digits, per_word, full + (rest > 0), nbytes)

    def pack(self, digits: Float[Array, "rows padded"], out: UInt8[Array, "rows bytes"]) -> None:
        """Pack whole numbers 0 … base-1; ``digits`` has columns for whole words, those past ``digits`` zero.

        A word is two halves of at most 2^53, each an exact product of floats, which is as fast as reading them.
        """
        low = (self.per_word + 1) // 2
        powers = np.array([float(self.base**i) for i in range(low)])
        by_word = digits.reshape(-1, self.per_word)
        words = (by_word[:, low:] @ powers[: self.per_word - low]).astype(np.uint64)
        words *= np.uint64(self.base**low)
        words += (by_word[:, :low] @ powers).astype(np.uint64)
        self.store(words.reshape(len(digits), -1), out)

    def store(self, words: UInt64[Array, "rows words"], out: UInt8[Array, "rows bytes"]) -> None:
        """Put whole words where they belong, the last one cut."""
        out[...] = _as_bytes(words)[:, : self.nbytes]

    def unpack(
        self, packed: UInt8[Array, "rows bytes"], offset: int, dtype: np.dtype, unit: int = 1
    ) -> Float[Array, "rows padded"]:
        """(digit - ``offset``) / ``unit``; columns past ``digits`` mean nothing."""
        at_once, table = _digit_table(self.base, self.per_word, offset, dtype, unit)
        base, steps = np.uint64(self.base**at_once), self.per_word // at_once
        words = self._words(packed)
        parts = np.empty((*words.shape, steps), np.intp)
        for step in range(steps - 1):
            rest = words // base
            parts[:, :, step] = words - rest * base
            words = rest
        parts[:, :, -1] = np.minimum(words, base - np.uint64(1))  # a bad record's word may be too large
        digits = np.empty((*parts.shape, at_once), table.dtype)
        np.take(table, parts, axis=0, out=digits, mode="clip")
        return digits.reshape(len(packed), -1)

    def in_range(self, packed: UInt8[Array, "rows bytes"]) -> Bool[Array, " rows"]:
        """Which rows hold digits below the base only."""
        words = self._words(packed)
        limit = np.full(self.words, self.base**self.per_word - 1, np.uint64)
        if rest := self.digits % self.per_word:
            limit[-1] = self.base**rest - 1
        return np.asarray((words <= limit).all(axis=1))

    def _words(self, packed: UInt8[Array, "rows bytes"]) -> Array:
        whole = np.zeros((len(packed), 8 * self.words), np.uint8)
        whole[:, : self.nbytes] = packed
        return whole.view("<u8").astype(np.uint64, copy=False)


@functools.cache
def _digit_table(base: int, per_word: int, offset: int, dtype: np.dtype, unit: int) -> tuple[int, Array]:
    """How many digits are looked up at once, and those of every number that so many can write."""
    at_once = max(n for n in range(1, per_word + 1) if n == 1 or (per_word % n == 0 and n * base**n <= _TABLE))
    places = base ** np.arange(at_once)
    table = ((np.arange(base**at_once)[:, None] // places % base - offset) / unit).astype(dtype)
    table.flags.writeable = False
    return at_once, table


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` codes of ``bits`` bits without gaps."""
    return -(-count * bits // 8)


def pack_bits(codes: Integer[Array, "rows count"], bits: int, out: UInt8[Array, "rows bytes"]) -> None:
    """Pack codes below 2^bits, the lowest bits of the first code first."""
    rows, count = codes.shape
    group, width, unsigned = _group(bits)
    groups = -(-count // group)
    padded = np.zeros((rows, groups * group), codes.dtype)
    padded[:, :count] = codes
    lanes = padded.reshape(rows, groups, group)
    packed = np.empty((rows, groups, width), np.uint8)
    held, bits_held, byte = np.zeros((rows, groups), unsigned), 0, 0  # of every group: what no byte has yet
    for place in range(group):
        held |= lanes[:, :, place].astype(unsigned) << unsigned.type(bits_held)
        bits_held += bits
        while bits_held >= 8:
            packed[:, :, byte] = held  # its lowest 8 bits
            held >>= unsigned.type(8)
            bits_held, byte = bits_held - 8, byte + 1
    out[...] = packed.reshape(rows, groups * width)[:, : packed_bytes(count, bits)]


def unpack_bits(packed: UInt8[Array, "rows bytes"], count: int, bits: int) -> Array:
    """The codes of ``pack_bits``, as (rows, count) uint32."""
    rows = len(packed)
    group, width, unsigned = _group(bits)
    groups = -(-count // group)
    padded = np.zeros((rows, groups * width), np.uint8)
    padded[:, : packed.shape[1]] = packed
    lanes = padded.reshape(rows, groups, width)
    codes = np.zeros((rows, groups, group), np.uint32)
    held, bits_held, place = np.zeros((rows, groups), unsigned), 0, 0
    for byte in range(width):
        held |= lanes[:, :, byte].astype(unsigned) << unsigned.type(bits_held)
        bits_held += 8
        while bits_held >= bits:
            codes[:, :, place] = held & unsigned.type((1 << bits) - 1)
            held >>= unsigned.type(bits)
            bits_held, place = bits_held - bits, place + 1
    return codes.reshape(rows, groups * group)[:, :count]


def _group(bits: int) -> tuple[int, int, np.dtype[Any]]:
    """How many codes fill whole bytes, how many bytes, and integers that hold a code above 7 bits that wait."""
    group = 8 // math.gcd(bits, 8) if bits else 1
    return group, group * bits // 8, np.min_scalar_type((1 << bits + 7) - 1)


def _as_bytes(words: Array) -> Array:
    return np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
