"""Small integers without gaps: digits of any base in 64-bit words, and codes of a fixed number of bits."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.arrays import as_type, assign, beside, fetched, namespace, shaped
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

        On a GPU the words are made there and fetched.

        A word is two halves of at most 2^53, each an exact product of floats, which is as fast as reading them.
        """
        low = (self.per_word + 1) // 2
        xp, powers = namespace(digits), beside(np.array([float(self.base**i) for i in range(low)]), digits)
        by_word = shaped(digits, -1, self.per_word)
        words = as_type(by_word[:, low:] @ powers[: self.per_word - low], xp.uint64)
        words *= self.base**low
        words += as_type(by_word[:, :low] @ powers, xp.uint64)
        self.store(fetched(words).reshape(digits.shape[0], -1), out)

    def store(self, words: UInt64[Array, "rows words"], out: UInt8[Array, "rows bytes"]) -> None:
        """Put whole words where they belong, the last one cut."""
        out[...] = _as_bytes(words)[:, : self.nbytes]

    def load(self, packed: UInt8[Array, "rows bytes"]) -> UInt64[Array, "rows words"]:
        """The words again."""
        whole = np.zeros((len(packed), 8 * self.words), np.uint8)
        whole[:, : self.nbytes] = packed
        return whole.view("<u8").astype(np.uint64, copy=False)

    def unpack(
        self, words: UInt64[Array, "rows words"], offset: int, dtype: Any, unit: int = 1
    ) -> Float[Array, "rows padded"]:
        """(digit - ``offset``) / ``unit``, where the words are; columns past ``digits`` mean nothing."""
        xp, at_once = namespace(words), _at_once(self.base, self.per_word)
        base, steps = self.base**at_once, self.per_word // at_once
        parts = xp.empty((*words.shape, steps), dtype=xp.int64, device=words.device)
        for step in range(steps - 1):
            rest = words // base
            assign(parts[:, :, step], words - rest * base)
            words = rest
        assign(parts[:, :, -1], xp.minimum(words, base - 1))  # a bad record's word may be too large
        about = self.base, at_once, offset, dtype, unit
        if xp is np:
            table = _numpy_table(*about)
            digits = np.empty((*parts.shape, at_once), table.dtype)
            np.take(table, parts, axis=0, out=digits, mode="clip")
        else:
            digits = xp.take(_table(xp, words.device, *about), shaped(parts, -1), axis=0)
        return shaped(digits, parts.shape[0], -1)

    def in_range(self, packed: UInt8[Array, "rows bytes"]) -> Bool[Array, " rows"]:
        """Which rows hold digits below the base only."""
        words = self.load(packed)
        limit = np.full(self.words, self.base**self.per_word - 1, np.uint64)
        if rest := self.digits % self.per_word:
            limit[-1] = self.base**rest - 1
        return np.asarray((words <= limit).all(axis=1))


@functools.cache
def _at_once(base: int, per_word: int) -> int:
    """How many digits are looked up at once."""
    return max(n for n in range(1, per_word + 1) if n == 1 or (per_word % n == 0 and n * base**n <= _TABLE))


def _table(xp: Any, device: Any, base: int, at_once: int, offset: int, dtype: Any, unit: int) -> Array:
    """(digit - ``offset``) / ``unit`` for the digits of every number that so many can write."""
    places = xp.asarray([base**place for place in range(at_once)], device=device)
    digits = xp.arange(base**at_once, device=device)[:, None] // places % base
    return as_type(as_type(digits - offset, xp.float64) / unit, dtype)


@functools.cache
def _numpy_table(base: int, at_once: int, offset: int, dtype: np.dtype[Any], unit: int) -> Array:
    table = _table(np, "cpu", base, at_once, offset, dtype, unit)
    table.flags.writeable = False
    return table


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` codes of ``bits`` bits without gaps."""
    return -(-count * bits // 8)


def pack_bits(codes: Integer[Array, "rows count"], bits: int, out: UInt8[Array, "rows bytes"]) -> None:
    """Pack codes below 2^bits, the lowest bits of the first code first; on a GPU there, and the bytes are fetched."""
    xp, (rows, count) = namespace(codes), codes.shape
    group, width, unsigned = _group(xp, bits)
    groups, there = -(-count // group), codes.device
    padded = xp.zeros((rows, groups * group), dtype=codes.dtype, device=there)
    padded[:, :count] = codes
    lanes = shaped(padded, rows, groups, group)
    packed = xp.empty((rows, groups, width), dtype=xp.uint8, device=there)
    held, bits_held, byte = xp.zeros((rows, groups), dtype=unsigned, device=there), 0, 0  # what no byte has yet
    for place in range(group):
        held |= as_type(lanes[:, :, place], unsigned) << bits_held
        bits_held += bits
        while bits_held >= 8:
            assign(packed[:, :, byte], held)  # its lowest 8 bits
            held >>= 8
            bits_held, byte = bits_held - 8, byte + 1
    out[...] = fetched(shaped(packed, rows, groups * width)[:, : packed_bytes(count, bits)])


def unpack_bits(packed: UInt8[Array, "rows bytes"], count: int, bits: int) -> Array:
    """The codes of ``pack_bits``, as (rows, count) uint32, where the bytes are."""
    xp, rows, there = namespace(packed), packed.shape[0], packed.device
    group, width, unsigned = _group(xp, bits)
    groups = -(-count // group)
    padded = xp.zeros((rows, groups * width), dtype=xp.uint8, device=there)
    padded[:, : packed.shape[1]] = packed
    lanes = shaped(padded, rows, groups, width)
    codes = xp.zeros((rows, groups, group), dtype=xp.uint32, device=there)
    held, bits_held, place = xp.zeros((rows, groups), dtype=unsigned, device=there), 0, 0
    for byte in range(width):
        held |= as_type(lanes[:, :, byte], unsigned) << bits_held
        bits_held += 8
        while bits_held >= bits:
            assign(codes[:, :, place], held & ((1 << bits) - 1))
            held >>= bits
            bits_held, place = bits_held - bits, place + 1
    return shaped(codes, rows, groups * group)[:, :count]


def pack_mask(mask: Bool[Array, "rows count"], out: UInt8[Array, "rows bytes"]) -> None:
    """``pack_bits`` of single bits."""
    if isinstance(mask, np.ndarray):
        out[...] = np.packbits(mask, axis=1, bitorder="little")
    else:
        pack_bits(namespace(mask).astype(mask, namespace(mask).uint8), 1, out)


def unpack_mask(packed: UInt8[Array, "rows bytes"], count: int) -> Integer[Array, "rows count"]:
    """Zeros and ones again, where the bytes are."""
    if isinstance(packed, np.ndarray):
        return np.unpackbits(packed, axis=1, count=count, bitorder="little")
    return unpack_bits(packed, count, 1)


@functools.cache
def _group(xp: Any, bits: int) -> tuple[int, int, Any]:
    """How many codes fill whole bytes, how many bytes, and integers that hold a code above 7 bits that wait."""
    group = 8 // math.gcd(bits, 8) if bits else 1
    return group, group * bits // 8, getattr(xp, np.min_scalar_type((1 << bits + 7) - 1).name)


def _as_bytes(words: Array) -> Array:
    return np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
