"""What the server has measured and counted so far."""

from typing import Any

import numpy as np

from mpicoded.training.faults import Faults
from mpicoded.transport.base import Transport

_COUNTS = ("up", "down", "overhead", "saturated")


class History:
    """Rows of the history, and what was counted between them. ``seconds``: of the rounds before this process."""

    def __init__(self, transport: Transport) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self._transport = transport
        self._counts = dict.fromkeys(_COUNTS, 0)

    def count(self, up: int, down: int, saturated: int) -> None:
        """Bytes of a round's records and of what was told to the devices, and numbers that were cut in the latter."""
        for name, more in (("up", up), ("down", down), ("saturated", saturated)):
            self._counts[name] += more

    def append(self, round: int, values: dict[str, float], seconds: float, faults: Faults) -> dict[str, float]:
        """A row after so many rounds, which took so many seconds."""
        row = {
            "round": round,
            **values,
            "bytes_up": self._counts["up"],
            "bytes_down": self._counts["down"],
            "bytes_overhead": self._overhead,
            "seconds": seconds,
            "bad_records": int(faults.bad.sum()),
            "missing_records": int(faults.missing.sum()),
            "saturated": faults.saturated + self._counts["saturated"],
        }
        self.rows.append(row)
        return row

    def state(self, seconds: float) -> dict[str, Any]:
        """All of it, for a checkpoint after so many seconds."""
        columns = {name: np.array([row[name] for row in self.rows]) for name in (self.rows or [{}])[0]}
        return {"rows": columns, "seconds": seconds, **self._counts, "overhead": self._overhead}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        columns = {name: values.tolist() for name, values in state["rows"].items()}
        self.rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self.seconds = float(state["seconds"])
        self._counts = {name: int(state[name]) for name in _COUNTS}

    @property
    def _overhead(self) -> int:
        return self._counts["overhead"] + self._transport.overhead_bytes
