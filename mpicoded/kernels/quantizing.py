"""Rounding at random and packing, in one pass: what NumPy needs six for."""

from typing import Any

import numpy as np

from mpicoded.kernels.compiling import compiled


@compiled()
def quantize(levels_of: Any, random: Any, levels: int, per_word: int, words: Any) -> None:
    """Round coordinates (rows, dim), in units of a level, at random, and pack them as digits into 64-bit words.

    ``random``: (rows, dim) 32-bit words. Digit level + ``levels`` of base 2 ``levels`` + 1, the first the lowest of a
    word.
    """
    base = np.uint64(2 * levels + 1)
    rows, dim = levels_of.shape
    for row in range(rows):
        for number in range(words.shape[1]):
            first = number * per_word
            word = np.uint64(0)
            for place in range(min(first + per_word, dim) - 1, first - 1, -1):
                level = np.floor(np.float64(random[row, place]) * 2.0**-32 + np.float64(levels_of[row, place]))
                word = word * base + np.uint64(np.int64(level) + levels)
            words[row, number] = word
