"""Compressors that send some of the coordinates: at random (``rand_k``) or the largest (``top_k``)."""

from typing import Any, ClassVar

import numpy as np

from mpicoded.algorithms.arrays import as_type, beside, flat_places, namespace, numpy_type, put_flat, take_flat
from mpicoded.algorithms.component import Component, PositiveCount
from mpicoded.algorithms.compressors.base import Compressor, WireFloat, at_limit, blocks, check_wire, to_wire
from mpicoded.algorithms.compressors.packing import pack_bits, packed_bytes, unpack_bits
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Bool, Float, Int, Integer, UInt8
from mpicoded.errors import InputError


class RandK(Compressor):
    """``kept`` coordinates at random, times p/kept, of each message (or of all: ``shared``).

    The places are drawn on both sides from the seed and never sent. With ``shared = true`` all devices keep the same
    places of a round, which the nonce decides that the server broadcasts with the parameters: honest messages then stay
    as near to each other as they were. Numbers travel unscaled, as ``dtype`` or as they were computed.
    """

    source: ClassVar[str] = "Wangni et al. 2018; Com-LAD, arXiv 2603.28780"
    acronym: ClassVar[str] = "Rand-K"
    wire: ClassVar[str] = "kept × b"
    cost: ClassVar[str] = f"{wire} bits a message; kept random numbers"
    error: ClassVar[str] = "unbiased, delta = p/kept - 1 (shared: one error common to all devices)"
    on_gpu: ClassVar[bool] = True
    kept: PositiveCount  # coordinates that are sent
    shared: bool = False  # the same coordinates for all devices of a round
    dtype: WireFloat | None = None  # what numbers travel as; unset: as they are computed

    @property
    def common(self) -> bool:
        """Where the places are shared."""
        return self.shared

    def check(self, dim: int, dtype: Any) -> None:
        """At most all of the coordinates."""
        _check_kept(self, self.kept, dim)
        check_wire(f"compressor {self.name()}", self.dtype, dtype)

    def layout(self, dim: int, dtype: Any) -> np.dtype[Any]:
        """``kept`` numbers, in the order of their places."""
        return np.dtype([("values", self.dtype or dtype, (self.kept,))])

    def compress(self, vectors: Float[Array, "messages dim"], streams: Streams, out: Array | None = None) -> Array:
        """Pick the numbers at the places."""
        count, dim = vectors.shape
        records = np.empty(count, self.layout(dim, numpy_type(vectors))) if out is None else out
        values = records["values"]
        if self.shared:
            places, xp = self._places(streams.shared(), dim)[0], namespace(vectors)
            if xp is np and values.dtype == vectors.dtype and values.flags.c_contiguous:
                np.take(vectors, places, axis=1, out=values, mode="clip")
            else:
                to_wire(xp.take(vectors, beside(places, vectors), axis=1), values)
            return records
        for rows in blocks(count, 2 * self.kept, vectors):
            places = self._places(streams.of(streams.ids[rows]), dim)
            to_wire(take_flat(vectors[rows, :], flat_places(places, dim)), values[rows])
        return records

    def decompress(
        self, records: Array, dim: int, streams: Streams, out: Float[Array, "messages dim"] | None = None
    ) -> Float[Array, "messages dim"]:
        """The numbers times p/kept at their places, zero elsewhere."""
        if out is None:
            out = np.empty((len(records), dim))
        scale = numpy_type(out).type(dim / self.kept)
        out[...] = 0
        if self.shared:
            places, values = self._places(streams.shared(), dim)[0], _scaled(records["values"], scale)
            out[:, beside(places, out)] = beside(values, out)
            return out
        for rows in blocks(len(records), 2 * self.kept, out):
            places = self._places(streams.of(streams.ids[rows]), dim)
            put_flat(out[rows, :], flat_places(places, dim), _scaled(records["values"][rows], scale))
        return out

    def saturated(self, records: Array) -> Int[Array, " messages"]:
        """Numbers at the limit of a shorter type."""
        return at_limit(records["values"]) if self.dtype else super().saturated(records)

    def variance(self, dim: int) -> float | None:
        """p/kept - 1."""
        return dim / self.kept - 1

    def _places(self, streams: Streams, dim: int) -> Int[Array, "messages kept"]:
        return streams.choices("rand_k", dim, self.kept)


class TopK(Compressor):
    """The ``kept`` coordinates of largest absolute value, with their places; biased."""

    source: ClassVar[str] = "Aji and Heafield 2017; Stich et al. 2018"
    acronym: ClassVar[str] = "Top-K"
    wire: ClassVar[str] = "kept × (b + ceil(log2 p))"
    cost: ClassVar[str] = f"{wire} bits a message; dim for the selection"
    error: ClassVar[str] = "biased, contraction kept/p"
    on_gpu: ClassVar[bool] = True
    kept: PositiveCount  # coordinates that are sent
    dtype: WireFloat | None = None  # what numbers travel as; unset: as they are computed

    def check(self, dim: int, dtype: Any) -> None:
        """At most all of the coordinates."""
        _check_kept(self, self.kept, dim)
        check_wire(f"compressor {self.name()}", self.dtype, dtype)

    def layout(self, dim: int, dtype: Any) -> np.dtype[Any]:
        """``kept`` numbers and their places, ascending, in as few bits as write dim - 1."""
        places = packed_bytes(self.kept, _place_bits(dim))
        return np.dtype([("values", self.dtype or dtype, (self.kept,)), ("places", "u1", (places,))])

    def compress(self, vectors: Float[Array, "messages dim"], streams: Streams, out: Array | None = None) -> Array:
        """Select (NaN counts as largest, so that it is seen), and put the places in order."""
        count, dim = vectors.shape
        records = np.empty(count, self.layout(dim, numpy_type(vectors))) if out is None else out
        for rows in blocks(count, dim, vectors):
            part = vectors[rows, :]
            places = _largest(part, self.kept)
            to_wire(take_flat(part, flat_places(places, dim)), records["values"][rows])
            pack_bits(places, _place_bits(dim), records["places"][rows])
        return records

    def decompress(
        self, records: Array, dim: int, streams: Streams, out: Float[Array, "messages dim"] | None = None
    ) -> Float[Array, "messages dim"]:
        """The numbers at their places, zero elsewhere."""
        if out is None:
            out = np.empty((len(records), dim))
        out[...] = 0
        xp = namespace(out)
        for rows in blocks(len(records), self.kept, out):
            values, packed = beside(records["values"][rows], out), beside(records["places"][rows], out)
            places = xp.minimum(self._places(packed, dim), dim - 1)  # whatever a bad record says
            put_flat(out[rows, :], flat_places(places, dim), as_type(values, out.dtype))
        return out

    def sound(self, records: Array, dim: int) -> Bool[Array, " messages"]:
        """Places below dim, each of them once."""
        places = self._places(records["places"], dim)
        return np.asarray((places[:, -1] < dim) & (places[:, 1:] > places[:, :-1]).all(axis=1))

    def saturated(self, records: Array) -> Int[Array, " messages"]:
        """Numbers at the limit of a shorter type."""
        return at_limit(records["values"]) if self.dtype else super().saturated(records)

    def variance(self, dim: int) -> float | None:
        """Biased."""
        return None

    def contraction(self, dim: int) -> float | None:
        """kept/p: what is left out is smaller than what is sent."""
        return self.kept / dim

    def _places(self, packed: UInt8[Array, "messages bytes"], dim: int) -> Int[Array, "messages kept"]:
        xp = namespace(packed)
        return as_type(unpack_bits(packed, self.kept, _place_bits(dim)), xp.int64)


def _place_bits(dim: int) -> int:
    """ceil(log2 dim)."""
    return (dim - 1).bit_length()


def _largest(vectors: Float[Array, "rows dim"], kept: int) -> Integer[Array, "rows kept"]:
    """The places of the numbers of largest absolute value, NaN before all, ascending.

    Which of equal numbers at the border are among them is NumPy's choice; elsewhere the last ones are.
    """
    xp, sizes, most = namespace(vectors), abs(vectors), vectors.shape[1] - kept
    order = np.argpartition(sizes, most, axis=1) if xp is np else xp.argsort(sizes, axis=1)  # which has no partition
    return xp.sort(as_type(order[:, most:], xp.uint32), axis=1)


def _scaled(values: Array, scale: Any) -> Array:
    """Values times scale in the scale's type; finite ones stay finite."""
    values = values.astype(scale.dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * scale
        if np.isinf(scaled).any():
            limit = np.finfo(scale.dtype).max
            scaled = np.where(np.isfinite(values), np.clip(scaled, -limit, limit), values)
    return scaled


def _check_kept(part: Component, kept: int, dim: int) -> None:
    if kept > dim:
        raise InputError(f"compressor {part.name()}: kept must be at most the model's dimension, {dim}, got {kept}")
