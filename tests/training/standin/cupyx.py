"""A stand-in for what is used of CuPy's own additions."""

import numpy as np


def empty_pinned(shape, dtype):
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 77, dtype)
