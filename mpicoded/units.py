"""Quantities as users write them."""

import math
import re


def seconds(text: str) -> float | None:
    """``"30s"``, ``"5m"`` or ``"1.5h"`` in seconds; None where it is nothing of the kind, or no time at all."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    time = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    return time if 0 < time < math.inf else None


def nbytes(text: str) -> int | None:
    """``"512 MB"``, ``"1.5GB"`` or ``"64 GiB"`` in bytes; None where it is nothing of the kind, or less than one."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([kMGT]?)B|([KMGT])iB)", text)
    if not found:
        return None
    power = "kMGT".find(found[2]) + 1 if found[2] else "KMGT".find(found[3] or "-") + 1
    size = float(found[1]) * (1024 if found[3] else 1000) ** power
    return int(size) if 1 <= size < 2**63 else None
