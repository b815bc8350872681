"""The same rules in other packages, where these are installed: ByzFL (NumPy and PyTorch) and ByzPy (PyTorch).

Into an environment of their own, PyTorch first, from its index of CPU wheels, for PyPI's brings several GB of CUDA:

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install -e ".[fast]" byzfl matplotlib seaborn cloudpickle && pip install --no-deps byzpy

Conventions differ, and are pinned here: the peers' Krum scores count n - f - 1 neighbours, ours n - f - 2, so that ours
is told one lie less; ByzPy's median, and what it averages around, is the lower of the middle two; ByzFL's geometric
median stops after three steps unless told to go on. What a peer makes of the votes is compared with ours before it is
timed.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from mpicoded.algorithms import aggregators, filters
from mpicoded.algorithms.ordering import middle_mean, nearest_mean

Call = Callable[[], Any]
_CLOSE = {"float32": 1e-4, "float64": 1e-6}
_COMPARED = 2000  # coordinates


def peers_of(votes: np.ndarray, byzantine: int) -> dict[str, dict[str, Call]]:
    """For each of our rules: the peers that have it. Raises where a peer's result is not ours, on some coordinates."""
    some = np.ascontiguousarray(votes[:, :_COMPARED])
    ours = _ours(some, byzantine)
    for rule, peer, call in _calls(some, byzantine):
        theirs = call()
        theirs = np.stack([np.asarray(row) for row in theirs]) if isinstance(theirs, list) else np.asarray(theirs)
        expected = ours.get(f"{peer}: {rule}", ours[rule])
        np.testing.assert_allclose(theirs, expected, atol=_CLOSE[votes.dtype.name], err_msg=f"{peer}: {rule}")
    found: dict[str, dict[str, Call]] = {}
    for rule, peer, call in _calls(votes, byzantine):
        found.setdefault(rule, {})[peer] = call
    return found


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("byzfl", "byzpy", "torch", "llvmlite"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _ours(votes: np.ndarray, byzantine: int) -> dict[str, Any]:
    """Our results by the peers' conventions."""
    kept, lower = len(votes) - byzantine, (len(votes) - 1) // 2
    return {
        "trimmed_mean": aggregators.TrimmedMean(byzantine=byzantine).aggregate(votes),
        "coordinate_median": aggregators.CoordinateMedian().aggregate(votes),
        "ByzPy: coordinate_median": middle_mean(votes, lower, lower),
        "ByzPy: mean_around_median": nearest_mean(votes, lower, lower, kept),
        "mean_around_median": aggregators.MeanAroundMedian(byzantine=byzantine).aggregate(votes),
        "krum": aggregators.Krum(byzantine=byzantine - 1).aggregate(votes),
        "multi_krum": aggregators.MultiKrum(byzantine=byzantine - 1, selected=kept).aggregate(votes),
        "geometric_median": aggregators.GeometricMedian().aggregate(votes),
        "nearest_neighbor_mixing": filters.NearestNeighborMixing(byzantine=byzantine).apply(votes),
    }


def _calls(votes: np.ndarray, byzantine: int) -> Iterator[tuple[str, str, Call]]:
    """Rule, peer and call."""
    yield from _byzfl(votes, byzantine)
    yield from _byzpy(votes, byzantine)


def without_torchvision(name: str) -> Any:
    """A module that wants torchvision for what no rule needs; its wheel on PyPI is for CUDA alone."""
    missing = {f"torchvision{part}" for part in ("", ".datasets", ".transforms", ".models")} - set(sys.modules)
    sys.modules.update({part: mock.MagicMock() for part in missing})
    try:
        return importlib.import_module(name)
    finally:
        for part in missing:
            del sys.modules[part]


def _byzfl(votes: np.ndarray, byzantine: int) -> Iterator[tuple[str, str, Call]]:
    try:
        byzfl, torch = without_torchvision("byzfl"), importlib.import_module("torch")
    except ImportError:
        return
    torch.set_num_threads(1)
    rules = {
        "trimmed_mean": byzfl.TrMean(byzantine),
        "coordinate_median": byzfl.Median(),
        "mean_around_median": byzfl.Meamed(byzantine),
        "krum": byzfl.Krum(byzantine),
        "multi_krum": byzfl.MultiKrum(byzantine),
        "geometric_median": byzfl.GeometricMedian(nu=1e-9, T=100),
        "nearest_neighbor_mixing": byzfl.NNM(byzantine),
    }
    for kind, array in {"NumPy": votes, "PyTorch": torch.from_numpy(votes)}.items():
        for rule, peer in rules.items():
            yield rule, f"ByzFL, {kind}", partial(peer, array)


def _byzpy(votes: np.ndarray, byzantine: int) -> Iterator[tuple[str, str, Call]]:
    try:
        torch = importlib.import_module("torch")
        coordinate = importlib.import_module("byzpy.aggregators.coordinate_wise")
        geometric = importlib.import_module("byzpy.aggregators.geometric_wise")
        before = importlib.import_module("byzpy.pre_aggregators")
    except ImportError:
        return
    torch.set_num_threads(1)
    rows = list(torch.from_numpy(votes))
    rules = {
        "trimmed_mean": coordinate.CoordinateWiseTrimmedMean(f=byzantine),
        "coordinate_median": coordinate.CoordinateWiseMedian(),
        "mean_around_median": coordinate.MeanOfMedians(f=byzantine),
        "krum": geometric.Krum(f=byzantine),
        "multi_krum": geometric.MultiKrum(f=byzantine, q=len(votes) - byzantine),
        "geometric_median": geometric.GeometricMedian(),
    }
    for rule, peer in rules.items():
        yield rule, "ByzPy", partial(peer.aggregate, rows)
    mixing = before.NearestNeighborMixing(f=byzantine)
    yield "nearest_neighbor_mixing", "ByzPy", partial(mixing.pre_aggregate, rows)
