"""Compressing and decompressing messages, beside a plain copy of them."""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.report import table
from benchmarks.timing import fastest
from mpicoded.algorithms.compressors import Compressor, Natural, NoCompression, Qsgd, RandK, Sign, TopK
from mpicoded.algorithms.randomness import Streams

LARGE = (100, 100_000)
SMALL = ((100, 100), (100, 7850))  # linear regression and softmax regression on digits of 28 × 28


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    shapes = (LARGE, *SMALL) if options.small else (LARGE,)
    rounds = 2 if options.quick else 9
    return [figures for shape in shapes for figures in _of_shape(shape, np.dtype(options.dtype), rounds)]


def show(figures: list[dict[str, Any]]) -> str:
    tables = []
    for shape in {tuple(figure["shape"]): None for figure in figures}:
        of_shape = [figure for figure in figures if tuple(figure["shape"]) == shape]
        columns, row = (_LARGE_COLUMNS, _large_row) if shape == LARGE else (_SMALL_COLUMNS, _small_row)
        title = f"compression of {shape} {of_shape[0]['dtype']}"
        tables.append(table(title, columns, map(row, of_shape)))
    return "\n\n".join(tables)


_LARGE_COLUMNS = (
    *("compressor", "bytes", "of dense", "copy GB/s", "compress", "of copy", "decompress", "of copy"),
    *("target", "compress", "decompress"),
)


def _large_row(figure: dict[str, Any]) -> list[str]:
    row = [figure["compressor"], *_size(figure), f"{figure['copy_gb_s']:.1f}"]
    for side in ("compress", "decompress"):
        row += [f"{figure[f'{side}_gb_s']:.2f}", _fraction(figure[f"{side}_of_copy"])]
    if figure["target"] is None:
        return [*row, "", "", ""]
    met = ["met" if figure[f"{side}_of_copy"] >= figure["target"] else "missed" for side in ("compress", "decompress")]
    return [*row, _fraction(figure["target"]), *met]


_SMALL_COLUMNS = ("compressor", "bytes", "of dense", "copies/s", "compressed/s", "decompressed/s")


def _small_row(figure: dict[str, Any]) -> list[str]:
    sides = ("copy", "compress", "decompress")
    return [figure["compressor"], *_size(figure), *(f"{figure[f'{side}_messages_s']:,.0f}" for side in sides)]


def _size(figure: dict[str, Any]) -> list[str]:
    return [f"{figure['record_bytes']:,}", f"{figure['record_of_dense']:.4f}"]


def _fraction(value: float) -> str:
    return f"{value:.2f}" if value > 2 / 3 else f"1/{1 / value:.1f}".removesuffix(".0")


def _configurations(dim: int, dtype: np.dtype[Any]) -> Iterator[tuple[str, Compressor, float | None]]:
    """What is measured, and the fraction of a copy's speed that each side of it should reach."""
    yield f"none, {dtype}", NoCompression(), None
    for wire in ("float32", "float16"):
        if np.dtype(wire).itemsize < dtype.itemsize:
            yield f"none, {wire}", NoCompression(dtype=wire), None
    tenth, hundredth = dim // 10, dim // 100
    yield "rand_k, kept p/10, shared", RandK(kept=tenth, shared=True), 1 / 2
    yield "rand_k, kept p/10", RandK(kept=tenth), 1 / 10
    yield "rand_k, kept p/100", RandK(kept=hundredth), None
    for levels in (1, 4, 7, 127):
        yield f"qsgd, levels {levels}", Qsgd(levels=levels), 1 / 40
    yield "natural", Natural(), None
    yield "top_k, kept p/10", TopK(kept=tenth), None
    yield "sign", Sign(), None


def _of_shape(shape: tuple[int, int], dtype: np.dtype[Any], rounds: int) -> Iterator[dict[str, Any]]:
    count, dim = shape
    vectors = np.random.default_rng(0).standard_normal(shape, dtype=dtype)
    unpacked = np.empty_like(vectors)
    streams = Streams(seed=3, round=5, ids=np.arange(count), nonce=7)
    for name, compressor, target in _configurations(dim, dtype):
        records = np.empty(count, compressor.layout(dim, dtype))
        calls = {
            "copy": partial(np.copyto, unpacked, vectors),
            "compress": partial(compressor.compress, vectors, streams, records),
            "decompress": partial(compressor.decompress, records, dim, streams, unpacked),
        }
        seconds = fastest(calls, rounds)
        yield {
            "compressor": name,
            "shape": list(shape),
            "dtype": str(dtype),
            "record_bytes": records.itemsize,
            "record_of_dense": records.nbytes / vectors.nbytes,
            **{f"{side}_gb_s": vectors.nbytes / taken / 1e9 for side, taken in seconds.items()},
            **{f"{side}_messages_s": count / taken for side, taken in seconds.items()},
            **{f"{side}_of_copy": seconds["copy"] / seconds[side] for side in ("compress", "decompress")},
            "target": target if shape == LARGE else None,
        }
