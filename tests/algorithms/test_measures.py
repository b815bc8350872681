"""How much pairs of devices share, counted in two ways."""

import numpy as np
import pytest

from mpicoded.algorithms.allocations import measures


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("devices", "subsets", "density"),
    [(30, 40, 0.1), (30, 400, 0.004), (12, 12, 0.8), (9, 5, 1.0), (6, 8, 0.0), (2, 5, 0.5), (1, 4, 0.5)],
)
def test_overlaps_are_those_of_each_pair(monkeypatch, sparse, devices, subsets, density):
    held = np.random.default_rng(devices).random((devices, subsets)) < density
    monkeypatch.setattr(measures, "_SPARSE", 0 if sparse else 1e18)
    shared = [int((held[i] & held[j]).sum()) for i in range(devices) for j in range(i)] or [0]
    found = measures.overlaps(held)
    assert (found.min, found.max) == (min(shared), max(shared))
    assert found.mean == pytest.approx(np.mean(shared))
