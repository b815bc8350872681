"""Vectors and records for the battery of the compressors."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mpicoded.algorithms.compressors import Compressor, receive
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array

DEVICES = 100
DIM = 16  # of what is drawn many times

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def draw(shape: tuple[int, ...], dtype: Any = float, seed: int = 0) -> Array:
    """Vectors that nobody may write to."""
    vectors = np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(dtype)
    vectors.flags.writeable = False
    return vectors


def streams(rows: int | list[int] | Array, seed: int = 3, round: int = 5, nonce: int = 11) -> Streams:
    """Streams for this many devices, or for those with these ids."""
    return Streams(seed, round, np.arange(rows) if isinstance(rows, int) else np.asarray(rows), nonce)


def unpacked(part: Compressor, records: Array, dim: int, own: Streams, dtype: Any = float) -> Array:
    """What the server makes of records, in this precision."""
    with np.errstate(over="ignore"):
        return part.decompress(records, dim, own, np.full((len(records), dim), np.nan, dtype))


def through(part: Compressor, vectors: Array, own: Streams | None = None) -> Array:
    """C(x), in the precision of x."""
    own = streams(len(vectors)) if own is None else own
    return unpacked(part, part.compress(vectors, own), vectors.shape[1], own, vectors.dtype)


def received(part: Compressor, records: Array, dim: int, own: Streams | None = None, arrived: Array | None = None,
             dtype: Any = float) -> tuple[Array, Array]:  # fmt: skip
    """What the server takes of records, and which were bad."""
    own = streams(len(records)) if own is None else own
    arrived = np.ones(len(records), bool) if arrived is None else arrived
    out = np.full((len(records), dim), np.nan, dtype)
    with np.errstate(all="ignore"):
        vectors, bad = receive(part, records, dim, own, arrived, DEVICES, out)
    assert vectors is out
    return vectors, bad


def wire(part: Compressor, dtype: Any) -> Any:
    """The type that numbers travel as."""
    return np.finfo(getattr(part, "dtype", None) or dtype)


def vectors_of_all_kinds(dtype: Any) -> Array:
    """All within what float16 holds with its full precision."""
    rng = np.random.default_rng(1)
    return np.stack(
        [
            rng.normal(1, 2, DIM),
            np.eye(DIM)[5] * -3,
            np.clip(rng.standard_t(1.5, DIM), -1e4, 1e4),
            10 ** rng.uniform(-4, 4, DIM) * rng.choice([-1, 1], DIM),
            np.full(DIM, 0.1),
        ]
    ).astype(dtype)


def repeated(part: Compressor, vectors: Array) -> Iterator[tuple[Array, Array]]:
    """Each vector with as many independent draws of its C(x), in float64: (draws, dim).

    The draws are those of many devices, or of as many rounds where all devices share the random numbers.
    """
    if part.common:
        drawn = np.stack([through(part, vectors, streams(len(vectors), nonce=nonce)) for nonce in range(400)], axis=1)
    else:
        drawn = np.stack([through(part, np.tile(x, (10_000, 1)), streams(10_000)) for x in vectors])
    for x, draws in zip(vectors, drawn, strict=True):
        yield x.astype(float), draws.astype(float)


def relative_errors(x: Array, drawn: Array) -> Array:
    """||C(x) - x||^2 / ||x||^2 of each draw."""
    return np.asarray(np.sum((drawn - x) ** 2, axis=-1) / np.sum(x**2))


def standard_error(values: Array) -> Array:
    """Of the mean of some draws."""
    return np.asarray(np.std(values, axis=0) / math.sqrt(len(values)))


def extremes(dim: int, dtype: Any) -> Iterator[Array]:
    """From the smallest subnormal number to nearly the largest of all."""
    info = np.finfo(dtype)
    small = (info.smallest_subnormal, info.smallest_normal / 8, info.smallest_normal)
    for size in (*small, info.max / 2, info.max * 0.999):
        yield from (np.full(dim, size), -size * np.eye(dim, dtype=dtype)[dim // 2])
        yield size * np.linspace(-1, 1, dim, dtype=dtype)


def untrusted(part: Compressor, dim: int, dtype: Any, rng: np.random.Generator, count: int) -> Array:
    """Records of random bytes, and honest ones with up to three bytes changed."""
    layout = part.layout(dim, dtype)
    data = rng.integers(0, 256, (count, layout.itemsize), dtype=np.uint8)
    honest = part.compress(rng.normal(size=(count // 2, dim)).astype(dtype), streams(count // 2))
    damaged = np.frombuffer(honest.tobytes(), np.uint8).reshape(len(honest), layout.itemsize).copy()
    changed = rng.integers(0, layout.itemsize, (count // 2, 3))
    damaged[np.arange(count // 2)[:, None], changed] = rng.integers(0, 256, changed.shape, dtype=np.uint8)
    data[: count // 2] = damaged
    return data.view(layout)[:, 0]
