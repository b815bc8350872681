"""The batteries of tests that every member of a family passes, for pytest; needs the extra ``test``.

A test class names the parts, and what does not hold for them with the reason::

    from mpicoded.testing import AggregatorBattery

    class TestMine(AggregatorBattery):
        parts = [Mine(byzantine=2), Mine(byzantine=2, sharp=True)]
        but = {"test_translation_moves_the_result_along": {"*": "it drops by the distance from the origin"}}
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"mpicoded.testing.{module}"
        for module in (
            "aggregators",
            "allocations",
            "attacks",
            "battery",
            "compressors",
            "filters",
            "optimizers",
            "vectors",
            "votes",
        )
    )
)

from mpicoded.testing.aggregators import AggregatorBattery
from mpicoded.testing.allocations import AllocationBattery, Case
from mpicoded.testing.attacks import AttackBattery
from mpicoded.testing.battery import Battery, ComponentBattery
from mpicoded.testing.compressors import CompressorBattery
from mpicoded.testing.filters import FilterBattery
from mpicoded.testing.optimizers import OptimizerBattery

__all__ = [
    "AggregatorBattery",
    "AllocationBattery",
    "AttackBattery",
    "Battery",
    "Case",
    "ComponentBattery",
    "CompressorBattery",
    "FilterBattery",
    "OptimizerBattery",
]
