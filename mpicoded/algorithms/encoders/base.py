"""What a code is: messages that are sparse combinations of subset gradients, and how votes come out of them."""

from typing import Any, ClassVar, NamedTuple

import numpy as np

from mpicoded.algorithms.component import Component
from mpicoded.algorithms.compressors import Compressor
from mpicoded.algorithms.products import Rows
from mpicoded.algorithms.shapes import Array, Bool, Float, Int


class Code(NamedTuple):
    """The messages of some devices: message m is ``weights[m] @ gradients``.

    They are ordered by device; every device sends as many as any other.
    """

    rows: Rows
    """The weights, (messages, subsets), columns ascending in each row."""
    keys: Int[Array, " messages"]
    """What each message says: honest messages of one key are equal, and are compressed by the same random numbers."""

    @property
    def weights(self) -> Any:
        """The weights as SciPy's csr_array."""
        return self.rows.sparse()


class Decoded(NamedTuple):
    """What comes out of one round's messages."""

    votes: Float[Array, "votes dim"]
    conflicts: Bool[Array, "devices devices"] | None = None
    """Which two devices contradict each other, so that at least one of them lies; None: the code cannot tell."""
    accused: Bool[Array, " devices"] | None = None
    """Which devices contradict what was decoded; None: the code cannot tell."""


class Decoder:
    """The server's side of a code under one assignment: here, every message is a vote."""

    def __init__(self, keys: Int[Array, " messages"], votes: int) -> None:
        self.keys = keys  # of the messages of all devices
        self.votes = votes  # how many come out

    def decode(
        self, messages: Float[Array, "messages dim"], usable: Bool[Array, " messages"], stream: np.random.Generator
    ) -> Decoded:
        """Votes from the messages of all devices, of which those that are not usable (missing, bad) are zero."""
        return Decoded(messages)


class Encoder(Component):
    """Base of the encoders: what devices send of their subsets' gradients, and what the server makes of it."""

    decodes: ClassVar[bool] = True
    """Whether there is more to decoding than taking every message of a device for its vote."""
    replicates: ClassVar[bool] = False
    """Whether honest devices must send the same bits, whichever ranks have computed them."""

    @property
    def reweighs(self) -> bool:
        """Whether messages are weighted where others are missing (see ``least_squares_factors``)."""
        return False

    def check(self, assignment: Bool[Array, "devices subsets"], compressor: Compressor, dtype: Any = "float64") -> None:
        """Raise InputError where this assignment cannot be encoded so, or decoding would not stand the compressor.

        ``dtype``: what messages are computed in.
        """

    def messages(self, assignment: Bool[Array, "devices subsets"]) -> int:
        """How many messages each device sends in a round."""
        return 1

    def code(self, assignment: Bool[Array, "devices subsets"], first: int, stop: int) -> Code:
        """The messages of devices first … stop-1 under this assignment."""
        raise NotImplementedError

    def even_weight(self, held: int) -> float | None:
        """What a gradient weighs where every device sends the mean of so many, and every subset has as many copies.

        None: messages are another thing, and ``code`` has to be asked.
        """
        return None

    def decoder(self, assignment: Bool[Array, "devices subsets"]) -> Decoder:
        """How the server turns the messages of all devices into votes."""
        return Decoder(np.arange(len(assignment)), len(assignment))

    def corrupted(self, assignment: Bool[Array, "devices subsets"], byzantine: int) -> int:
        """The most votes that so many Byzantine devices can change, wherever they sit (or a bound of it)."""
        return byzantine
