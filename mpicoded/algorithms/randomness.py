"""Counter-based random streams, keyed by what a number is for and never by the rank that draws it.

A stream is named by (seed, purpose, indices…), so whoever needs a number gets the same one: all holders
of a subset draw the same mini-batch, device and server draw the same mask, and an experiment has the same bits
on any number of ranks.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from mpicoded.algorithms.shapes import Array, Float, Int, UInt32, UInt64

_BLOCK = 4  # 64-bit words that one step of Philox's counter yields
_HASH = 0x931E8875  # one of SeedSequence's constants
_NOBODY = np.empty(0, np.int64)
_TOGETHER = 128  # indices whose keys are made together, which takes as long as four take by themselves


def _sequence(seed: int, purpose: str, *indices: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(crc32(purpose.encode()), *indices))


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """The generator of one stream, e.g. ``generator(seed, "permutation", round)``."""
    return np.random.Generator(np.random.Philox(_sequence(seed, purpose, *indices)))


def generators(seed: int, purpose: str, indices: range) -> Iterator[np.random.Generator]:
    """The generators of streams that differ by one index, each to be used before the next: it is one, keyed anew.

    Keys are made for many indices together, and kept for the next call: also a single one takes a third of the time.
    """
    if indices.stop > 1 << 32:  # larger indices are of another number of words
        yield from (generator(seed, purpose, index) for index in indices)
        return
    state: Any = None
    for index in indices:
        block, place = divmod(index, _TOGETHER)
        key = _block_of_keys(seed, purpose, block)[place]
        if state is None:
            known: Any = _Known(key)  # NumPy's hints name SeedSequence alone
            philox = np.random.Philox(known)
            found, state = np.random.Generator(philox), dict(philox.state)
        else:
            state["state"] = state["state"] | {"key": key}
            philox.state = state
        yield found


class _Known(np.random.bit_generator.ISeedSequence):
    """What SeedSequence would make for Philox, which is known already."""

    def __init__(self, key: UInt64[Array, "2"]) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> UInt64[Array, "2"]:
        """The key: Philox asks for two words of 64 bits."""
        return self._key


@functools.lru_cache(maxsize=16)  # a run has two or three purposes by round
def _block_of_keys(seed: int, purpose: str, block: int) -> UInt64[Array, "indices 2"]:
    """The keys of a block of indices."""
    first = block * _TOGETHER
    return _keys(seed, purpose, np.arange(first, first + _TOGETHER, dtype=np.int64).astype(np.uint32))


def _keys(seed: int, purpose: str, indices: UInt32[Array, " indices"]) -> UInt64[Array, "indices 2"]:
    """What SeedSequence(seed, spawn_key=(purpose, index)) makes of each index for Philox.

    NumPy promises to keep that arithmetic (O'Neill 2015, "Developing a seed_seq alternative"). The index is the last
    word mixed in: NumPy does all before it, once for all of them.
    """
    pool = list(_sequence(seed, purpose).pool[:, None])
    words = max(len(pool), -(-seed.bit_length() // 32)) + 1  # mixed in so far, each into all of the pool
    hashed = len(pool) ** 2 + len(pool) * (words - len(pool))
    constant = 0x43B0D7E5 * pow(_HASH, hashed, 1 << 32) % (1 << 32)
    for i, old in enumerate(pool):
        found, constant = _hashed(indices, constant, _HASH)
        pool[i] = _folded(old * np.uint32(0xCA01F9DD) - found * np.uint32(0x4973F715))
    constant, state = 0x8B51F9DD, np.empty((len(indices), len(pool)), "<u4")
    for i, mixed in enumerate(pool):
        state[:, i], constant = _hashed(mixed, constant, 0x58F38DED)
    return state.view("<u8").astype(np.uint64, copy=False)


def _hashed(words: UInt32[Array, " words"], constant: int, factor: int) -> tuple[UInt32[Array, " words"], int]:
    """SeedSequence's hash of each, and the constant for the next one."""
    following = constant * factor % (1 << 32)
    return _folded((words ^ np.uint32(constant)) * np.uint32(following)), following


def _folded(words: UInt32[Array, " words"]) -> UInt32[Array, " words"]:
    return words ^ (words >> np.uint32(16))


class Streams(NamedTuple):
    """The streams of one round: a row of random numbers for each of some devices or subsets.

    The row of a device (or subset) is the same whichever others are drawn beside it.
    """

    seed: int
    round: int
    ids: Int[Array, " rows"] = _NOBODY  # whose rows, in any order; who is named twice gets equal rows
    nonce: int = 0  # what the server told all devices with the parameters of the round

    def of(self, ids: Int[Array, " rows"]) -> "Streams":
        """The same streams, for these devices or subsets."""
        return self._replace(ids=ids)

    def shared(self) -> "Streams":
        """One row for all, which follows from the server's nonce and from nothing that was known before it."""
        return self._replace(seed=self.nonce, ids=np.zeros(1, np.int64))

    def generator(self, purpose: str) -> np.random.Generator:
        """A stream that is common to all devices of the round."""
        return generator(self.seed, purpose, self.round)

    def words(self, purpose: str, width: int) -> UInt64[Array, "rows width"]:
        """Random 64-bit words, ``width`` in a row."""
        blocks = -(-width // _BLOCK)
        ids = self.ids
        if len(ids) == 0:
            return np.empty((0, width), np.uint64)
        first, last = int(ids.min()), int(ids.max())
        philox = np.random.Philox(_sequence(self.seed, purpose, self.round))
        philox.advance(first * blocks)
        rows = philox.random_raw((last - first + 1) * blocks * _BLOCK).reshape(-1, blocks * _BLOCK)
        if len(ids) != len(rows) or (np.diff(ids) != 1).any():
            rows = rows[ids - first]
        return rows[:, :width]

    def half_words(self, purpose: str, width: int) -> UInt32[Array, "rows width"]:
        """Random 32-bit words, ``width`` in a row: half the cost of ``words``."""
        return self.words(purpose, -(-width // 2)).astype("<u8", copy=False).view("<u4")[:, :width]

    def uniform(self, purpose: str, width: int) -> Float[Array, "rows width"]:
        """Uniform numbers in [0, 1), with 53 random bits each."""
        return (self.words(purpose, width) >> np.uint64(11)) * 2.0**-53

    def normal(self, purpose: str, width: int) -> Float[Array, "rows width"]:
        """Standard normal numbers (Box and Muller 1958: two uniforms for two normals, none rejected)."""
        half = -(-width // 2)
        uniform = self.uniform(purpose, 2 * half)
        radius = np.sqrt(-2.0 * np.log1p(-uniform[:, :half]))
        angle = (2.0 * np.pi) * uniform[:, half:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :width]

    def choices(self, purpose: str, total: int, count: int) -> Int[Array, "rows count"]:
        """A uniformly random set of ``count`` of the numbers 0 … total-1 in each row, ascending."""
        if 2 * count <= total:
            return self._few(purpose, total, count)
        left_out = np.ones((len(self.ids), total), bool)
        np.put_along_axis(left_out, self._few(purpose, total, total - count), False, axis=1)
        return np.nonzero(left_out)[1].reshape(len(self.ids), count)

    def _below(self, purpose: str, total: int, width: int) -> UInt64[Array, "rows width"]:
        """Random numbers below ``total`` < 2^32, uniform up to a share of total/2^32, and total/2^64 for large ones."""
        half, low, large = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(total)
        if total <= 1 << 20:
            return self.half_words(purpose, width) * large >> half
        words = self.words(purpose, width)
        return ((words >> half) * large + ((words & low) * large >> half)) >> half

    def _few(self, purpose: str, total: int, count: int) -> Int[Array, "rows count"]:
        """The first ``count`` different ones of random draws: a cost that grows with ``count``, not ``total``."""
        if count == 0 or len(self.ids) == 0:
            return np.empty((len(self.ids), count), np.int64)
        draws = _enough_draws(total, count)
        # The number drawn stands above when it was drawn: sorted by number, the first of equals is the earliest. The
        # shorter word is sorted in half the time.
        bits = draws.bit_length()
        word = np.uint32 if (total - 1).bit_length() + bits <= 32 else np.uint64
        drawn = self._below(purpose, total, draws).astype(word)
        drawn <<= word(bits)
        drawn |= np.arange(draws, dtype=word)
        drawn.sort(axis=1)
        numbers, when = drawn >> word(bits), drawn & word((1 << bits) - 1)
        when[:, 1:][numbers[:, 1:] == numbers[:, :-1]] = draws  # drawn before
        latest = np.partition(when, count - 1, axis=1)[:, count - 1, None]
        enough = latest[:, 0] < draws
        if enough.all():
            return numbers[when <= latest].astype(np.int64).reshape(-1, count)
        found = np.empty((len(self.ids), count), np.int64)
        found[enough] = numbers[enough][(when <= latest)[enough]].reshape(-1, count)
        found[~enough] = self.of(np.asarray(self.ids)[~enough])._few(f"{purpose}, again", total, count)
        return found


@functools.cache
def _enough_draws(total: int, count: int) -> int:
    """How many draws from ``total`` numbers nearly always hold ``count`` different ones."""
    # The number of draws until then has this mean and variance; six deviations more are nearly always enough.
    missing = total - np.arange(count)
    mean, variance = np.sum(total / missing), np.sum(total * (total - missing) / missing**2.0)
    return int(np.ceil(mean + 6 * np.sqrt(variance))) + 8
