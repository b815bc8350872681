"""Error feedback: what a device and the server remember of its messages, so that only the change is compressed."""

from typing import ClassVar

import numpy as np

from mpicoded.algorithms.allocations import Allocation
from mpicoded.algorithms.arrays import replace_unusable
from mpicoded.algorithms.component import Component
from mpicoded.algorithms.compressors import Compressor
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.errors import InputError


class Memory(Component):
    """Base of the memories. State is one row a device, the same at the device and at the server."""

    remembers: ClassVar[bool] = True
    """Whether there is any state."""

    def check(self, allocation: Allocation, compressor: Compressor, dim: int) -> None:
        """Raise InputError where the memory would be of no use with these parts."""

    def residual(self, messages: Float[Array, "devices dim"], state: Float[Array, "devices dim"]) -> None:
        """Turn messages into what is compressed, in place."""

    def update(
        self, state: Float[Array, "devices dim"], received: Float[Array, "devices dim"], damping: float, devices: int
    ) -> None:
        """Take in what came out of the decompressor (zero where nothing sound did), in place; it is used up.

        ``devices``: all of them, also where these are some.
        """


class NoMemory(Memory, tag="none"):
    """Messages are compressed as they are."""

    source: ClassVar[str] = "baseline"
    cost: ClassVar[str] = "none"
    remembers: ClassVar[bool] = False


class Ef21(Memory):
    """g_i <- g_i + c C(x_i - g_i) on both sides, and g_i is the vote: what is lost now is sent later.

    c = 1 for contractive compressors, 1/(1 + delta) for unbiased ones, which makes them contractive.
    """

    source: ClassVar[str] = "Richtarik et al. 2021"
    acronym: ClassVar[str] = "EF21"
    cost: ClassVar[str] = "N dim, and as many numbers kept by the server and by all devices together"

    def check(self, allocation: Allocation, compressor: Compressor, dim: int) -> None:
        """A task that stays the device's, and a contractive compressor."""
        if allocation.varies:
            raise InputError(
                f"memory ef21: allocation {allocation.name()} gives a device another task in each round, so that what "
                "it remembers would be of another gradient; use a fixed one (cyclic with permute = false, balanced)"
            )
        if compressor.contraction(dim) is None:
            raise InputError(
                f"memory ef21: compressor {compressor.name()} is not contractive as it is set, so that errors would "
                "add up (sign: scaled = true)"
            )

    def residual(self, messages: Float[Array, "devices dim"], state: Float[Array, "devices dim"]) -> None:
        """x_i - g_i."""
        np.subtract(messages, state, out=messages)

    def update(
        self, state: Float[Array, "devices dim"], received: Float[Array, "devices dim"], damping: float, devices: int
    ) -> None:
        """g_i += c received; what lies have made too long for any rule starts again from zero."""
        if damping != 1:
            received *= damping
        state += received
        replace_unusable(state, np.ones(len(state), bool), devices)


Choice = NoMemory | Ef21
