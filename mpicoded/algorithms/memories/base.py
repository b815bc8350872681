"""What a memory is: vectors that devices and server keep of the messages from round to round."""

from typing import Annotated, ClassVar, NamedTuple

import msgspec
import numpy as np

from mpicoded.algorithms.allocations import Allocation
from mpicoded.algorithms.arrays import replace_unusable
from mpicoded.algorithms.component import Component
from mpicoded.algorithms.compressors import Compressor, NoCompression
from mpicoded.algorithms.encoders import Encoder
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.errors import InputError

Messages = Float[Array, "messages dim"]
State = Float[Array, "slots messages dim"]
Vector = Float[Array, " dim"]
Mask = Bool[Array, " messages"]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Turn(NamedTuple):
    """What a memory wants of one round; devices and server know the same."""

    round: int
    total: int
    """Messages of all devices, also where arrays hold some."""
    compressor: Compressor
    """That of this round's records."""
    dense: bool = False
    """Whether the records are dense, whatever compressor the experiment has."""
    looks_back: bool = False
    """Whether devices compute at the previous round's parameters too, on the same samples."""
    whole: bool = False
    """Whether devices use all of their samples instead of a mini-batch."""


class Memory(Component):
    """Base of the memories.

    A round of a message: ``prepare`` turns what a device has computed into what an honest device says; an attack may
    say something else instead; ``residual`` makes of it what is compressed; ``update`` takes in what came out of the
    decompressor. The server makes a vote of that (``votes``). A state holds ``device_slots`` vectors of every message
    at the device, ``server_slots`` at the server, all zero before the first round. Arrays are changed in place,
    wherever they are; masks are NumPy's, and so is ``last``.
    """

    on_gpu: ClassVar[bool] = True
    """Whether messages and states may be on a GPU in this class's methods that change them; else they are NumPy's."""

    @property
    def device_slots(self) -> int:
        """Vectors that a device keeps of each of its messages."""
        return 0

    @property
    def server_slots(self) -> int:
        """Vectors that the server keeps of each message."""
        return 0

    @property
    def remembers(self) -> bool:
        """Whether a round depends on earlier ones otherwise than by the parameters."""
        return bool(self.device_slots or self.server_slots)

    @property
    def looks_back(self) -> bool:
        """Whether there are rounds in which devices compute at the previous parameters too."""
        return False

    @property
    def wants_fixed(self) -> str:
        """What goes wrong where other devices are Byzantine in each round; empty: nothing."""
        if not self.server_slots:
            return ""
        return (
            "keeps what a device sent while it was Byzantine: with resampled identities, lies add up in more memories "
            "than the rule tolerates"
        )

    def check(self, allocation: Allocation, compressor: Compressor, dim: int) -> None:
        """Raise InputError where the memory would be of no use with these parts."""

    def check_encoder(self, encoder: Encoder, allocation: Allocation) -> None:
        """Raise InputError where votes could not be decoded from what is remembered."""
        if encoder.decodes and allocation.varies and (self.device_slots or self.server_slots):
            raise InputError(
                f"memory {self.name()}: encoder {encoder.name()} needs messages of one task, but allocation "
                f"{allocation.name()} gives a device another one in each round, and what is remembered is of "
                "several; use a fixed one (cyclic with permute = false) or encoder mean"
            )

    def dense(self, seed: int, rounds: Int[Array, " rounds"]) -> Bool[Array, " rounds"]:
        """In which of these rounds messages are not compressed."""
        return np.zeros(len(rounds), bool)

    def turn(self, seed: int, round: int, compressor: Compressor, total: int) -> Turn:
        """What is wanted of this round. ``compressor``: the experiment's; ``total``: messages of all devices."""
        dense = type(self).dense is not Memory.dense and bool(self.dense(seed, np.array([round]))[0])
        return Turn(round, total, NoCompression() if dense else compressor, dense)

    def prepare(self, messages: Messages, before: Messages | None, state: State, turn: Turn) -> None:
        """Turn honest messages into what is said. ``before``: the same at the previous parameters; it is used up."""

    def residual(self, said: Messages, state: State, turn: Turn) -> None:
        """Turn what is said, by honest devices and others, into what is compressed."""

    def update(self, state: State, residuals: Messages, received: Messages, usable: Mask, turn: Turn) -> None:
        """Take in what the server got of the residuals (zero where nothing usable came); it is used up."""

    def votes(self, received: Messages, state: State, last: Vector, usable: Mask, turn: Turn) -> None:
        """Turn what the server got into votes, zero where nothing usable came. ``last``: the previous aggregate."""


class NoMemory(Memory, tag="none"):
    """Messages are compressed as they are."""

    source: ClassVar[str] = "baseline"
    cost: ClassVar[str] = "none"


def coins(seed: int, rounds: Int[Array, " rounds"], probability: float) -> Bool[Array, " rounds"]:
    """A coin of each round, common to all devices: heads with this probability, and always in the first round."""
    drawn = Streams(seed, 0, rounds).uniform("coin", 1)[:, 0] < probability
    return np.asarray(drawn | (rounds == 0))


def settle(vectors: Messages, total: int) -> Mask:
    """Start again from zero where lies or overflows have made a vector too long for any rule; where that was."""
    return np.asarray(replace_unusable(vectors, np.ones(vectors.shape[0], bool), total)[1])


def follow(estimates: Messages, received: Messages, total: int) -> Mask:
    """estimates += received, the same on both sides; which had grown too long and start again."""
    estimates += received
    return settle(estimates, total)


def need_task(memory: Memory, allocation: Allocation) -> None:
    """Raise InputError where a device gets another task in each round."""
    if allocation.varies:
        raise InputError(
            f"memory {memory.name()}: allocation {allocation.name()} gives a device another task in each round, so "
            "that what it remembers would be of another gradient; use a fixed one (cyclic with permute = false, "
            "balanced)"
        )


def need_contraction(memory: Memory, compressor: Compressor, dim: int) -> None:
    """Raise InputError where errors that are fed back would grow."""
    if compressor.contraction(dim) is None:
        raise InputError(
            f"memory {memory.name()}: compressor {compressor.name()} is not contractive as it is set, so that errors "
            "would add up (sign: scaled = true)"
        )


def need_unbiased(memory: Memory, compressor: Compressor, dim: int) -> None:
    """Raise InputError where the mean of what is received is not what was sent."""
    if compressor.variance(dim) is None:
        raise InputError(
            f"memory {memory.name()}: compressor {compressor.name()} is biased as it is set, so that errors of "
            "differences would add up; use an unbiased one (rand_k, qsgd, natural), or memory ef21"
        )
