"""How the batteries make the members of a family: by listing them."""

from typing import Any

import pytest
from hypothesis import settings

from mpicoded.algorithms.component import Component, members

LIGHT = settings(derandomize=True, database=None, deadline=None, max_examples=40)


REQUIRED = {"tau": 3.0, "module": "mpicoded.networks:mlp"}
"""Fields without a default that no battery cares for."""


def build(cls: type[Component], **fields: Any) -> Any:
    """A member with those of the fields that it has."""
    return cls(**{name: value for name, value in (REQUIRED | fields).items() if name in cls.__struct_fields__})


def family(choice: Any, **fields: Any) -> dict[str, Any]:
    """One object of every member, by config name."""
    return {name: build(cls, **fields) for name, cls in members(choice).items()}


def each(parts: dict[str, Any], but: tuple[str, ...] = ()) -> Any:
    """Run a test for each of the parts, as its argument ``part``, but for those named."""
    chosen = {name: part for name, part in parts.items() if name not in but}
    return pytest.mark.parametrize("part", list(chosen.values()), ids=list(chosen))
