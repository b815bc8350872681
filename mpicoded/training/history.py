"""What the server has measured and counted so far."""

from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array, Float
from mpicoded.training.faults import Faults
from mpicoded.transport.base import Transport

_COUNTS = ("gradients", "up", "down", "overhead", "saturated")


_FEWEST, _MOST, _NUMBERS = 16, 256, 1_000_000  # rows of scores that are kept, and numbers in them


class Scores:
    """How suspicious devices were: after all evaluations, or after each second, fourth, … of many."""

    def __init__(self) -> None:
        self.round = np.empty(0, np.int64)
        self.score = np.empty((0, 0), np.float32)
        self._step, self._met = 1, 0

    def append(self, round: int, score: Float[Array, " devices"]) -> None:
        """Keep this row if it is its turn; where there is no room for it, half of the earlier ones go."""
        self._met += 1
        if len(self.round) >= max(_FEWEST, min(_MOST, _NUMBERS // len(score))):
            self.round, self.score, self._step = self.round[::2], self.score[::2], 2 * self._step
        if (self._met - 1) % self._step == 0:
            self.round = np.append(self.round, round)
            self.score = np.concatenate([self.score.reshape(-1, len(score)), score[None].astype(np.float32)])

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {"round": self.round, "score": self.score, "step": self._step, "met": self._met}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.round, self.score = state["round"], state["score"]
        self._step, self._met = int(state["step"]), int(state["met"])


class History:
    """Rows of the history, and what was counted between them. ``seconds``: of the rounds before this process."""

    def __init__(self, transport: Transport) -> None:
        self.rows: list[dict[str, float]] = []
        self.scores = Scores()
        self.seconds = 0.0
        self._transport = transport
        self._counts = dict.fromkeys(_COUNTS, 0)

    def count(self, gradients: int, up: int, down: int, saturated: int) -> None:
        """What a round took: subset gradients, bytes of records and of what devices were told, numbers cut in that."""
        counts = self._counts
        counts["gradients"] += gradients
        counts["up"] += up
        counts["down"] += down
        counts["saturated"] += saturated

    def append(
        self, round: int, values: dict[str, float], seconds: float, faults: Faults, scores: Float[Array, " devices"]
    ) -> dict[str, float]:
        """A row after so many rounds, which took so many seconds; ``scores``: how suspicious the devices are."""
        row = {
            "round": round,
            **values,
            "gradients": self._counts["gradients"],
            "bytes_up": self._counts["up"],
            "bytes_down": self._counts["down"],
            "bytes_overhead": self._overhead,
            "seconds": seconds,
            "bad_records": int(faults.bad.sum()),
            "missing_records": int(faults.missing.sum()),
            "saturated": faults.saturated + self._counts["saturated"],
        }
        self.rows.append(row)
        self.scores.append(round, scores)
        return row

    def state(self, seconds: float) -> dict[str, Any]:
        """All of it, for a checkpoint after so many seconds."""
        columns = {name: np.array([row[name] for row in self.rows]) for name in (self.rows or [{}])[0]}
        return {
            "rows": columns,
            "scores": self.scores.state(),
            "seconds": seconds,
            **self._counts,
            "overhead": self._overhead,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        columns = {name: values.tolist() for name, values in state["rows"].items()}
        self.rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self.scores.restore(state["scores"])
        self.seconds = float(state["seconds"])
        self._counts = {name: int(state[name]) for name in _COUNTS}

    @property
    def _overhead(self) -> int:
        return self._counts["overhead"] + self._transport.overhead_bytes
