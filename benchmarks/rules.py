"""The rules beside a plain mean of the votes, one product of the votes with themselves, and peers where installed."""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.peers import peers_of, versions
from benchmarks.report import table
from benchmarks.timing import fastest
from mpicoded.algorithms import aggregators, ordering
from mpicoded.algorithms.filters import NearestNeighborMixing

LARGE = (100, 200_000)
WIDE = (20, 1_000_000)
SMALL = (100, 100)


@dataclass(frozen=True)
class Target:
    """At most so many times a mean or a product; at least so many times as fast as the fastest peer."""

    mean: float = math.inf
    product: float = math.inf
    peer: float = 0.0

    def met(self, figure: dict[str, Any]) -> str:
        over = figure["peer_over_ours"]
        if figure["of_mean"] > self.mean or figure["of_product"] > self.product or (over or self.peer) < self.peer:
            return "no"
        return "yes" if over or not self.peer else "no peer"

    def __str__(self) -> str:
        limits = {"<= {:g} means": self.mean, "<= {:g} products": self.product}
        parts = [text.format(value) for text, value in limits.items() if value < math.inf]
        return ", ".join([*parts, f">= {self.peer:g} peers"] if self.peer else parts)


# For 100 votes of 200,000 float32, 20 of them Byzantine, on one core. A rule's name is the peers' as well.
TARGETS = {
    "trimmed_mean": Target(mean=3, peer=4),
    "trimmed_mean, NumPy": Target(peer=1),
    "coordinate_median": Target(mean=3.5, peer=12),
    "phocas": Target(mean=8),
    "mean_around_median": Target(mean=8, peer=15),
    "krum": Target(product=1.2, peer=2.5),
    "multi_krum": Target(product=1.2, peer=2.5),
    "geometric_median": Target(product=1.5),
    "nearest_neighbor_mixing, trimmed_mean": Target(product=3.5, peer=2),
}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    shapes = (LARGE, WIDE, *([SMALL] if options.small else []))
    rounds = 3 if options.quick else 9
    return [figure for shape in shapes for figure in _of_shape(shape, np.dtype(options.dtype), rounds)]


def show(figures: list[dict[str, Any]]) -> str:
    tables = []
    for shape in {tuple(figure["shape"]): None for figure in figures}:
        rows = [figure for figure in figures if tuple(figure["shape"]) == shape]
        known = " ".join(f"{name} {number}" for name, number in versions().items())
        tables.append(table(f"rules, votes {shape} {rows[0]['dtype']}; {known}", _COLUMNS, map(_row, rows)))
    return "\n\n".join(tables)


_COLUMNS = ("rule", "ms", "of a mean", "of a product", "fastest peer", "its time over ours", "target", "met")


def _row(figure: dict[str, Any]) -> list[str]:
    over = figure["peer_over_ours"]
    peer = ["", ""] if over is None else [figure["fastest_peer"], f"{over:.1f}"]
    ratios = [f"{figure[name]:.2f}" for name in ("of_mean", "of_product")]
    return [figure["rule"], f"{1e3 * figure['seconds']:.3g}", *ratios, *peer, figure["target"], figure["met"]]


def _rules(votes: np.ndarray, byzantine: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    out = np.empty(votes.shape[1], votes.dtype)
    trimmed = aggregators.TrimmedMean(byzantine=byzantine)
    mixing = NearestNeighborMixing(byzantine=byzantine)

    def without_llvmlite() -> Any:
        with mock.patch.object(ordering, "_WORTH_COMPILING", math.inf):
            return trimmed.aggregate(votes, out=out)

    yield "trimmed_mean", partial(trimmed.aggregate, votes, out=out)
    yield "trimmed_mean, NumPy", without_llvmlite
    for rule in (
        aggregators.CoordinateMedian(),
        aggregators.Phocas(byzantine=byzantine),
        aggregators.MeanAroundMedian(byzantine=byzantine),
        aggregators.Krum(byzantine=byzantine),
        aggregators.MultiKrum(byzantine=byzantine),
        aggregators.GeometricMedian(),
    ):
        yield rule.name(), partial(rule.aggregate, votes, out=out)
    yield "nearest_neighbor_mixing, trimmed_mean", lambda: trimmed.aggregate(mixing.apply(votes), out=out)


def _of_shape(shape: tuple[int, int], dtype: np.dtype[Any], rounds: int) -> Iterator[dict[str, Any]]:
    votes = np.random.default_rng(0).standard_normal(shape, dtype=dtype)
    byzantine = shape[0] // 5
    ordering.expect(shape[0], 1 << 40)  # so that no call is one of NumPy that counts
    peers = peers_of(votes, byzantine) if shape == LARGE else {}
    for name, call in _rules(votes, byzantine):
        others = peers.get(name.split(",")[0], {})
        calls = {"mean": partial(np.mean, votes, axis=0), "product": lambda: votes @ votes.T, "ours": call}
        seconds = fastest(calls, rounds) | (fastest(others, 1 if rounds < 9 else 3) if others else {})
        fastest_peer = min(others, key=lambda peer: seconds[peer], default=None)
        target = TARGETS[name] if shape == LARGE and dtype == np.float32 else None
        figure = {
            "rule": name,
            "shape": list(shape),
            "dtype": str(dtype),
            "byzantine": byzantine,
            "seconds": seconds["ours"],
            "of_mean": seconds["ours"] / seconds["mean"],
            "of_product": seconds["ours"] / seconds["product"],
            "fastest_peer": fastest_peer,
            "peer_over_ours": None if fastest_peer is None else seconds[fastest_peer] / seconds["ours"],
            "peers": {peer: seconds[peer] for peer in others},
            "target": str(target) if target else "",
        }
        yield figure | {"met": "" if target is None else target.met(figure)}
