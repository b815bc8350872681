"""Orders as they travel, with what goes beside them."""

from typing import Any

import numpy as np

from mpicoded.transport.base import Kind, Order, order_layout

_ALIGNED = 64  # bytes: where a record beside an order begins, as NumPy's own arrays do


class OrderRoom:
    """Memory for an order, ``whole``: the ``order`` itself, see ``order_layout``, and a record ``beside`` it."""

    def __init__(self, ranks: int, beside: np.dtype[Any] | None = None) -> None:
        self.accompanied = beside is not None
        layout, beside = order_layout(ranks), beside or np.dtype("V0")
        start = -(-layout.itemsize // _ALIGNED) * _ALIGNED
        self.whole = np.zeros(start + beside.itemsize, np.uint8)
        self.order, self.beside = self.whole[: layout.itemsize].view(layout), self.whole[start:].view(beside)
        self._numbers = [self.order[name] for name in Order._fields]  # in its memory: names take long to be found

    def write(self, order: Order) -> None:
        """What is told next."""
        for number, value in zip(self._numbers, order, strict=True):
            number[0] = value

    def read(self) -> Order:
        """What has been told."""
        kind, round, value = (int(number[0]) for number in self._numbers)
        return Order(Kind(kind), round, value)
