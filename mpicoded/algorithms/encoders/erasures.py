"""What to make of the messages that came, where some did not."""

from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array, Float


def least_squares_factors(weights: Any) -> Float[Array, " messages"]:
    """Factors by which the mean of some messages comes nearest to the mean of all subset gradients.

    ``weights``: csr_array (messages, subsets), what those messages are combinations of. The factors are n w for n
    messages, w the shortest vector that makes ||w A - 1/M|| least: the optimal decoding of approximate gradient codes.
    Where gradients are of about the same length and independent, that is the least expected error.
    """
    code = weights.toarray()
    count, subsets = code.shape
    return count * np.linalg.lstsq(code.T, np.full(subsets, 1 / subsets), rcond=None)[0]
