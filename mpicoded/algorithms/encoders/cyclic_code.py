"""An exact code for overlapping tasks: a weighted sum a device, from which lies are located and left out."""

from typing import Any, ClassVar

import numpy as np

from mpicoded.algorithms.component import Count
from mpicoded.algorithms.compressors import Compressor, NoCompression, RandK
from mpicoded.algorithms.encoders.base import Code, Decoded, Decoder, Encoder
from mpicoded.algorithms.encoders.real_code import Locator, hidden, places, tolerance, windows
from mpicoded.algorithms.encoders.tasks import tasks_of
from mpicoded.algorithms.ordering import per_coordinate
from mpicoded.algorithms.products import Rows
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.errors import InputError

_LIMITS = {"float64": 1e-6, "float32": 1e-3}
"""The relative error of the mean that is let pass, by the type of the messages."""
_PROJECTIONS = 4  # of the messages, to look for errors in; one would do but for rounding
_HUGE = 1e140  # squares, and sums of them, do not overflow
_COLUMNS = 512  # of a product whose sum is rounded in the messages' own type


class CyclicCode(Encoder):
    """Devices send weighted sums of cyclic windows of 2s+1 tasks; up to s = ``byzantine`` lies are corrected.

    DRACO's cyclic code made real: one message a device of as many numbers as a gradient has, with weights near the
    binomial ones (``real_code``). A task is the subsets that the same devices hold. The one vote is the mean over
    subsets, to the rounding, whatever at most s devices send; 2s may be missing, less two for each that lies.
    Where more lie than the code can tell, the vote is the coordinate-wise median of the messages, each of which is a
    weighted mean of 2s+1 tasks, and nobody is accused.

    Errors are looked for in random projections of the messages, drawn from the server's stream: whoever knows that can
    hide from them. Rounding sets a limit: liars who are neighbours can hide an error in it that grows fast with N and s
    and is largest where 2s+1 is far below N. Where it could be more than 1e-6 of the messages (1e-3 in float32) the
    code is refused. Whose error could be part of another explanation too is corrected, but not accused.
    """

    source: ClassVar[str] = "DRACO, Chen et al. 2018; real DFT codes, Marshall 1984"
    acronym: ClassVar[str] = "DRACO, cyclic"
    cost: ClassVar[str] = "redundancy × dim for each device; N dim at the server"
    byzantine: Count  # s: how many lies are corrected

    def check(self, assignment: Bool[Array, "devices subsets"], compressor: Compressor, dtype: Any = "float64") -> None:
        """Cyclic windows of 2s+1 tasks, few enough lies, and numbers that arrive as they were computed."""
        devices, dtype = len(assignment), np.dtype(dtype).name
        part = f"encoder {self.name()}: byzantine = {self.byzantine}"
        copies = assignment.sum(axis=0)
        load = 2 * self.byzantine + 1
        if load > devices or (copies != load).any() or order_of(tasks_of(assignment).held) is None:
            raise InputError(
                f"{part} needs subsets that {load} neighbours of {devices} devices in a circle hold, as of allocation "
                f"cyclic with redundancy = {load} x subsets / devices; got subsets with {copies.min()} to "
                f"{copies.max()} copies"
            )
        if not _sound(devices, self.byzantine, dtype):
            near = sorted(range(devices // 2 + devices % 2), key=lambda liars: (abs(liars - self.byzantine), liars))
            fitting = next(liars for liars in near if _sound(devices, liars, dtype))
            raise InputError(
                f"{part} on {devices} devices cannot be decoded in {dtype}: lies could hide a relative error of "
                f"{hidden(devices, self.byzantine, dtype):.1g} in the rounding, more than {_LIMITS[dtype]:g}; the "
                f"nearest byzantine that works is {fitting}; encoder majority_vote has no such limit"
            )
        exact = isinstance(compressor, NoCompression) or (isinstance(compressor, RandK) and compressor.shared)
        if not exact or getattr(compressor, "dtype", None) not in (None, dtype):
            raise InputError(
                f"encoder {self.name()}: needs a compressor that keeps sums exact, none or rand_k with shared = true, "
                f"without a shorter dtype; got {compressor.name()}"
            )

    def code(self, assignment: Bool[Array, "devices subsets"], first: int, stop: int) -> Code:
        """One real message for each device, N times whose mean is N times the mean over subsets."""
        devices, subsets = assignment.shape
        tasks = tasks_of(assignment)
        weights = self._weights(tasks.held) * (devices / subsets)
        device, subset = np.nonzero(assignment[first:stop])
        values = weights[first + device, tasks.of[subset]]
        return Code(Rows.at(device, subset, values, stop - first, subsets), np.arange(first, stop))

    def decoder(self, assignment: Bool[Array, "devices subsets"]) -> Decoder:
        """Locating the lies."""
        order = order_of(tasks_of(assignment).held)
        assert order is not None, "checked"
        return CyclicDecoder(order, self.byzantine)

    def corrupted(self, assignment: Bool[Array, "devices subsets"], byzantine: int) -> int:
        """None up to s, the one there is beyond."""
        return int(byzantine > self.byzantine)

    def _weights(self, held: Bool[Array, "devices tasks"]) -> Float[Array, "devices tasks"]:
        """Weights of sum 1 for each task, along its holders in the circle's order."""
        devices, tasks = held.shape
        order, shapes = order_of(held), windows(devices, self.byzantine)
        assert order is not None, "checked"
        inside = held[order]
        starts = (inside & ~np.roll(inside, 1, axis=0)).argmax(axis=0)
        rows = np.minimum(devices - starts, len(shapes)) - 1
        weights = np.zeros((devices, tasks))
        holders = order[(starts + np.arange(shapes.shape[1])[:, None]) % devices]
        weights[holders, np.arange(tasks)] = shapes[rows].T
        return weights


class CyclicDecoder(Decoder):
    """Locates lies in the messages, and averages the others so that the lies' weights are zero."""

    def __init__(self, order: Int[Array, " devices"], liars: int) -> None:
        super().__init__(np.arange(len(order)), 1)
        self.order, self.liars = order, liars

    def decode(
        self, messages: Float[Array, "messages dim"], usable: Bool[Array, " messages"], stream: np.random.Generator
    ) -> Decoded:
        """One vote, and who sent something else than what was decoded."""
        devices, dim = messages.shape
        length = places(devices)
        erased = np.zeros(length, bool)
        erased[:devices] = ~usable[self.order]
        signals = np.zeros((length, _PROJECTIONS))
        signals[:devices] = _projected(messages, stream.standard_normal((dim, _PROJECTIONS)))[self.order]
        signals /= max(1.0, np.abs(signals).max() / _HUGE)
        locator = Locator(length, self.liars)
        for noise in self._tolerances(messages.dtype.name):
            gone = locator.places(signals, erased, noise)
            if gone is not None:
                weights = np.zeros(devices)
                weights[self.order] = locator.average(gone)[:devices] / devices
                accused = np.zeros(devices, bool)
                accused[self.order] = locator.certain(signals, erased, gone, noise)[:devices]
                return Decoded(_combined(weights, messages), accused=accused)
        heard = messages[usable] if usable.any() else messages
        return Decoded(np.asarray(per_coordinate(heard, lambda xp, ordered: np.median(ordered, axis=-1)))[None])

    def _tolerances(self, dtype: str) -> Float[Array, " tolerances"]:
        """What is taken for noise: first what rounding makes, then what can do no harm beyond the limit."""
        devices = len(self.order)
        noise, error = tolerance(devices, self.liars, dtype), hidden(devices, self.liars, dtype)
        return np.geomspace(noise, noise * max(1, _LIMITS[dtype] / error), 4) if self.liars else np.array([noise])


def order_of(held: Bool[Array, "devices tasks"]) -> Int[Array, " devices"] | None:
    """The devices in an order in which every task's holders are neighbours in a circle; None: not found."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import depth_first_order

    devices = len(held)
    shared = held.astype(np.float32) @ held.astype(np.float32).T
    np.fill_diagonal(shared, -1)
    # In a circle, neighbours share the most tasks.
    order = depth_first_order(csr_array(shared == shared.max(initial=0)), 0, return_predecessors=False)
    if len(order) < devices:
        order = np.arange(devices)
    inside = held[order]
    return order if ((inside & ~np.roll(inside, 1, axis=0)).sum(axis=0) <= 1).all() else None


def _sound(devices: int, liars: int, dtype: str) -> bool:
    return hidden(devices, liars, dtype) <= _LIMITS[dtype]


def _projected(messages: Float[Array, "messages dim"], onto: Float[Array, "dim projections"]) -> Array:
    """messages @ onto in float64; blocks of columns are added with more digits, so that length costs no accuracy."""
    total = np.zeros((len(messages), onto.shape[1]), np.longdouble)
    for start in range(0, len(onto), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        total += messages[:, part].astype(np.float64, copy=False) @ onto[part]
    return total.astype(np.float64)


def _combined(weights: Float[Array, " messages"], messages: Float[Array, "messages dim"]) -> Array:
    """weights @ messages as one row, summed in float64 and in the order of devices."""
    chosen = np.flatnonzero(weights)
    vote = np.empty((1, messages.shape[1]), messages.dtype)
    for start in range(0, messages.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        vote[0, part] = weights[chosen] @ messages[chosen, part].astype(np.float64, copy=False)
    return vote
