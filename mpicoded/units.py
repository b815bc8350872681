"""Quantities as users write them."""

import math
import re


def seconds(text: str) -> float | None:
    """``"30s"``, ``"5m"`` or ``"1.5h"`` in seconds; None where it is nothing of the kind, or no time at all."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    time = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    return time if 0 < time < math.inf else None
