"""Small integers without gaps: digits of any base in 64-bit words, and codes of a fixed number of bits."""

import functools
import math
from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Float, Integer, UInt8

_TABLE = 8192  # rows of the table that turns part of a word into digits


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
        powers = np.zeros((self.per_word, 2))
        powers[:low, 0] = [float(self.base**i) for i in range(low)]
        powers[low:, 1] = [float(self.base**i) for i in range(self.per_word - low)]
        halves = (digits.reshape(-1, self.per_word) @ powers).astype(np.uint64)
        words = halves[:, 1] * np.uint64(self.base**low) + halves[:, 0]
        out[...] = _as_bytes(words.reshape(len(digits), -1))[:, : self.nbytes]

    def unpack(self, packed: UInt8[Array, "rows bytes"], offset: int, dtype: np.dtype) -> Float[Array, "rows padded"]:
        """The digits less ``offset``; columns past ``digits`` mean nothing."""
        at_once, table = _digit_table(self.base, self.per_word, offset, dtype)
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
def _digit_table(base: int, per_word: int, offset: int, dtype: np.dtype) -> tuple[int, Array]:
    """How many digits are looked up at once, and those of every number that so many can write."""
    at_once = max(n for n in range(1, per_word + 1) if n == 1 or (per_word % n == 0 and base**n <= _TABLE))
    places = base ** np.arange(at_once)
    table = (np.arange(base**at_once)[:, None] // places % base - offset).astype(dtype)
    table.flags.writeable = False
    return at_once, table


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` codes of ``bits`` bits without gaps."""
    return -(-count * bits // 8)


def pack_bits(codes: Integer[Array, "rows count"], bits: int, out: UInt8[Array, "rows bytes"]) -> None:
    """Pack codes below 2^bits, the lowest bits of the first code first."""
    rows, count = codes.shape
    group = 8 // math.gcd(bits, 8) if bits else 1  # so many codes fill whole bytes
    width = group * bits // 8
    groups = -(-count // group)
    padded = np.zeros((rows, groups, group), np.uint32)
    padded.reshape(rows, groups * group)[:, :count] = codes
    packed = np.zeros((rows, groups, width), np.uint8)
    for place in range(group):
        for byte in range(place * bits // 8, -(-(place + 1) * bits // 8)):
            shift = 8 * byte - place * bits
            code = padded[:, :, place]
            part = code >> np.uint32(shift) if shift >= 0 else code << np.uint32(-shift)
            packed[:, :, byte] |= part.astype(np.uint8)
    out[...] = packed.reshape(rows, groups * width)[:, : packed_bytes(count, bits)]


def unpack_bits(packed: UInt8[Array, "rows bytes"], count: int, bits: int) -> Array:
    """The codes of ``pack_bits``, as (rows, count) uint32."""
    rows = len(packed)
    group = 8 // math.gcd(bits, 8) if bits else 1
    width = group * bits // 8
    groups = -(-count // group)
    padded = np.zeros((rows, groups, width), np.uint8)
    padded.reshape(rows, groups * width)[:, : packed.shape[1]] = packed
    codes = np.zeros((rows, groups, group), np.uint32)
    for place in range(group):
        for byte in range(place * bits // 8, -(-(place + 1) * bits // 8)):
            shift = 8 * byte - place * bits
            part = padded[:, :, byte].astype(np.uint32)
            codes[:, :, place] |= part << np.uint32(shift) if shift >= 0 else part >> np.uint32(-shift)
    codes &= np.uint32((1 << bits) - 1)
    return codes.reshape(rows, groups * group)[:, :count]


def _as_bytes(words: Array) -> Array:
    return np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
