"""Counter-based random streams, keyed by what a number is for and never by the rank that draws it.

A stream is named by (seed, purpose, indices…), so whoever needs a number gets the same one: all holders
of a subset draw the same mini-batch, and an experiment has the same bits on any number of ranks.
"""

from typing import NamedTuple
from zlib import crc32

import numpy as np

from mpicoded.algorithms.shapes import Array, Float, Int, UInt64

_BLOCK = 4  # 64-bit words that one step of Philox's counter yields


def _philox(seed: int, purpose: str, indices: tuple[int, ...]) -> np.random.Philox:
    key = np.random.SeedSequence(seed, spawn_key=(crc32(purpose.encode()), *indices))
    return np.random.Philox(key)


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """The generator of one stream, e.g. ``generator(seed, "permutation", round)``."""
    return np.random.Generator(_philox(seed, purpose, indices))


class Streams(NamedTuple):
    """The streams of one round: one row of random numbers for each device or subset.

    Row i belongs to device (or subset) i and is the same whichever other rows are drawn beside it.
    """

    seed: int
    round: int

    def generator(self, purpose: str) -> np.random.Generator:
        """A stream that is common to all devices of the round."""
        return generator(self.seed, purpose, self.round)

    def words(self, purpose: str, ids: Int[Array, " rows"], width: int) -> UInt64[Array, "rows width"]:
        """Random 64-bit words, ``width`` for each of the given devices or subsets (ascending ids)."""
        blocks = -(-width // _BLOCK)
        if len(ids) == 0:
            return np.empty((0, width), np.uint64)
        first, last = int(ids[0]), int(ids[-1])
        philox = _philox(self.seed, purpose, (self.round,))
        philox.advance(first * blocks)
        rows = philox.random_raw((last - first + 1) * blocks * _BLOCK).reshape(-1, blocks * _BLOCK)
        if len(ids) < len(rows):
            rows = rows[np.asarray(ids) - first]
        return rows[:, :width]

    def uniform(self, purpose: str, ids: Int[Array, " rows"], width: int) -> Float[Array, "rows width"]:
        """Uniform numbers in [0, 1), with 53 random bits each."""
        return (self.words(purpose, ids, width) >> np.uint64(11)) * 2.0**-53

    def normal(self, purpose: str, ids: Int[Array, " rows"], width: int) -> Float[Array, "rows width"]:
        """Standard normal numbers (Box and Muller 1958: two uniforms for two normals, none rejected)."""
        half = -(-width // 2)
        uniform = self.uniform(purpose, ids, 2 * half)
        radius = np.sqrt(-2.0 * np.log1p(-uniform[:, :half]))
        angle = (2.0 * np.pi) * uniform[:, half:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :width]
