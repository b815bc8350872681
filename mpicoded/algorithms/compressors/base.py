"""What all compressors share, dense messages, and how the server takes records that nobody vouches for."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import numpy as np

from mpicoded.algorithms.arrays import assign, clear, fetched, namespace, numpy_type, short
from mpicoded.algorithms.component import Component
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.errors import InputError

WireFloat = Literal["float64", "float32", "float16"]
"""What a number may travel as."""

_BLOCK = 1 << 17  # numbers worked at a time: a few arrays of them stay in cache, and what a block costs is shared
_BLOCK_THERE = 1 << 24  # on a GPU: what is made beside the vectors stays small, and no call is too short


class Compressor(Component):
    """Base of the compressors.

    Each row of ``vectors`` gives a record of its own: the same one whatever rows stand beside it. ``streams`` hold the
    random rows of the devices that send; both sides have them, so no random number is ever sent.
    """

    wire: ClassVar[str] = ""
    """Bits of a record, for dim p and b bits a float."""
    error: ClassVar[str] = ""
    """Unbiased with which delta, or biased with which contraction."""
    on_gpu: ClassVar[bool] = False
    """Whether vectors may be on a GPU too, ``out`` of ``decompress`` likewise. Records are NumPy's."""

    @classmethod
    def facts(cls) -> list[str]:
        """Size and error."""
        return [f"bits of a record: {cls.wire}", f"error: {cls.error}"]

    @property
    def common(self) -> bool:
        """Whether all devices use the same random numbers in a round, those that the server's nonce decides."""
        return False

    def check(self, dim: int, dtype: Any) -> None:
        """Raise InputError where vectors of ``dim`` numbers of type ``dtype`` cannot be compressed so."""

    def layout(self, dim: int, dtype: Any) -> np.dtype[Any]:
        """The record of one message."""
        raise NotImplementedError

    def compress(self, vectors: Float[Array, "messages dim"], streams: Streams, out: Array | None = None) -> Array:
        """One record for each vector, in ``out`` where it is given."""
        raise NotImplementedError

    def decompress(
        self, records: Array, dim: int, streams: Streams, out: Float[Array, "messages dim"] | None = None
    ) -> Float[Array, "messages dim"]:
        """The vectors that the records stand for, in ``out`` or as new float64.

        Any bytes are taken without an error; what is not ``sound`` gives vectors that mean nothing.
        """
        raise NotImplementedError

    def sound(self, records: Array, dim: int) -> Bool[Array, " messages"]:
        """Which records hold nothing that ``compress`` never sends; what vectors show, as NaN does, is left to them.

        Bits that pad a record to whole bytes may be anything.
        """
        return np.ones(len(records), bool)

    def saturated(self, records: Array) -> Int[Array, " messages"]:
        """How many numbers of each record stand at the limit of a wire's type shorter than what is computed."""
        return np.zeros(len(records), np.int64)

    def variance(self, dim: int) -> float | None:
        """delta, the bound of E ||C(x) - x||^2 / ||x||^2 of an unbiased compressor; None for a biased one."""
        raise NotImplementedError

    def contraction(self, dim: int) -> float | None:
        """alpha in E ||c C(x) - x||^2 <= (1 - alpha) ||x||^2 with c = ``damping``; None where there is none above 0."""
        delta = self.variance(dim)
        return None if delta is None else 1 / (1 + delta)

    def damping(self, dim: int) -> float:
        """The factor that makes the compressor contractive: 1/(1 + delta) for an unbiased one."""
        delta = self.variance(dim)
        return 1.0 if delta is None else 1 / (1 + delta)


class NoCompression(Compressor, tag="none"):
    """Dense vectors; as they are, without a copy on either side, unless ``dtype`` makes them shorter on the wire."""

    source: ClassVar[str] = "baseline"
    wire: ClassVar[str] = "p b"
    cost: ClassVar[str] = f"{wire} bits a message; no work"
    error: ClassVar[str] = (
        "none, or that of rounding to a shorter type: 2^-24 of each number (float32), 2^-11 (float16)"
    )
    on_gpu: ClassVar[bool] = True
    dtype: WireFloat | None = None  # what numbers travel as; unset: as they are computed

    def check(self, dim: int, dtype: Any) -> None:
        """Not wider than what is computed."""
        check_wire(f"compressor {self.name()}", self.dtype, dtype)

    def layout(self, dim: int, dtype: Any) -> np.dtype[Any]:
        """``dim`` numbers."""
        return _dense(self.dtype or dtype, dim)

    def compress(self, vectors: Float[Array, "messages dim"], streams: Streams, out: Array | None = None) -> Array:
        """The same memory, seen as records, or numbers of the wire's type."""
        dtype = numpy_type(vectors)
        layout = self.layout(vectors.shape[1], dtype)
        if out is None and (self.dtype is None or layout["values"].base == dtype):
            return fetched(vectors).view(layout)[:, 0]
        records = np.empty(vectors.shape[0], layout) if out is None else out
        to_wire(vectors, records["values"])
        return records

    def decompress(
        self, records: Array, dim: int, streams: Streams, out: Float[Array, "messages dim"] | None = None
    ) -> Float[Array, "messages dim"]:
        """The same memory, seen as vectors, where ``out`` is not given."""
        values: Array = records["values"]
        if out is None:
            return values.astype(np.float64) if self.dtype else values
        assign(out, values)
        return out

    def saturated(self, records: Array) -> Int[Array, " messages"]:
        """Numbers at the limit of a shorter type."""
        return at_limit(records["values"]) if self.dtype else super().saturated(records)

    def variance(self, dim: int) -> float | None:
        """Zero; rounding to a shorter type is biased."""
        return None if self.dtype in ("float32", "float16") else 0.0

    def contraction(self, dim: int) -> float | None:
        """1 up to the rounding of the wire's type."""
        return 1 - float(np.finfo(self.dtype or "float64").eps / 2) ** 2


@functools.cache
def _dense(number: Any, dim: int) -> np.dtype[Any]:
    """Made once: it takes as long as to send a short vector."""
    return np.dtype([("values", np.dtype(number), (dim,))])


def receive(
    compressor: Compressor,
    records: Array,
    dim: int,
    streams: Streams,
    arrived: Bool[Array, " messages"],
    devices: int,
    out: Float[Array, "messages dim"] | None = None,
    put: Callable[[Array], Array] = lambda vectors: vectors,
) -> tuple[Float[Array, "messages dim"], Bool[Array, " messages"]]:
    """The vectors of records that nobody vouches for, and which records were bad although they arrived.

    Every vector is finite, and short enough that distances between ``devices`` of them are: those of bad and of
    missing records are zero. ``out``: where the vectors are put, in its type; ``put`` takes them on from there, to
    where they are looked at. A bad record may hold anything: let NumPy ignore all floating-point errors meanwhile.
    """
    vectors = compressor.decompress(records, dim, streams, out)
    if out is not None and vectors is not out:  # a compressor may make new ones
        out[...] = vectors
        vectors = out
    vectors = put(vectors)
    usable = short(vectors, devices)
    usable &= arrived
    if type(compressor).sound is not Compressor.sound:  # to make a mask and take it in costs as much as a short row
        usable &= compressor.sound(records, dim)
    if np.count_nonzero(usable) == len(usable):  # as in nearly all rounds
        return vectors, np.zeros(len(usable), bool)
    clear(vectors, ~usable)
    return vectors, arrived & ~usable


def blocks(rows: int, dim: int, array: Array | None = None) -> Iterator[slice]:
    """Slices of rows that together hold about as many numbers as the cache takes, at least one row each.

    More where the ``array`` that is worked on is on a GPU.
    """
    step = max(1, (_BLOCK if array is None or isinstance(array, np.ndarray) else _BLOCK_THERE) // max(dim, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def to_wire(values: Float[Array, "*shape"], out: Float[Array, "*shape"]) -> None:
    """Copy numbers into ``out``, in its type; finite ones that it cannot hold become its largest, of the same sign.

    ``out`` is NumPy's, the numbers may be on a GPU.
    """
    if not isinstance(values, np.ndarray):
        values = fetched(_as_float32(values) if out.dtype == np.float32 else values)
    if out.dtype.itemsize >= values.dtype.itemsize:
        out[...] = values
        return
    limit = values.dtype.type(np.finfo(out.dtype).max)
    with np.errstate(over="ignore"):  # comparisons with NaN are false, and infinite values stay what they are
        out[...] = values
        if np.isinf(out).any():
            beyond = np.isinf(out) & np.isfinite(values)
            out[beyond] = np.copysign(limit, values[beyond]).astype(out.dtype)


def _as_float32(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The same of numbers on a GPU, so that no more leaves it than is sent.

    To float16 they are shortened on the CPU: a GPU may round twice on the way from float64.
    """
    xp = namespace(values)
    rounded, limit = xp.astype(values, xp.float32), xp.finfo(xp.float32).max
    nearest = xp.where(values > 0, xp.full_like(rounded, limit), xp.full_like(rounded, -limit))
    return xp.where(xp.isinf(rounded) & xp.isfinite(values), nearest, rounded)


def at_limit(values: Float[Array, "messages numbers"]) -> Int[Array, " messages"]:
    """How many numbers of each row are the largest of their type."""
    return np.count_nonzero(np.abs(values) == np.finfo(values.dtype).max, axis=1)


def check_wire(part: str, wire: str | None, dtype: Any) -> None:
    """Raise InputError where numbers would travel in a wider type than they are computed in."""
    if wire is not None and np.dtype(wire).itemsize > np.dtype(dtype).itemsize:
        raise InputError(f"{part}: {wire} on the wire is wider than the {np.dtype(dtype)} that is computed")
