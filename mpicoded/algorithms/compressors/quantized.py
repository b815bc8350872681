"""Compressors that send every coordinate in few bits: levels (``qsgd``), powers of two (``natural``), ``sign``."""

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, cast

import msgspec
import numpy as np

from mpicoded.algorithms.arrays import as_type, assign, beside, fetched, into, namespace, numpy_type
from mpicoded.algorithms.compressors.base import Compressor, blocks
from mpicoded.algorithms.compressors.packing import (
    Digits,
    pack_bits,
    pack_mask,
    packed_bytes,
    unpack_bits,
    unpack_mask,
)
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Bool, Float

_WORTH_COMPILING = 1 << 13  # parameters; below, loading the compiled loop costs more than it saves
_MANTISSA = {"float64": 52, "float32": 23}


class Qsgd(Compressor):
    """The norm, and each coordinate's share of it rounded at random to one of 2 levels + 1 multiples of 1/levels.

    C(x) = ||x|| l / s with l = floor(s x / ||x|| + u), u uniform in [0, 1): E l = s x / ||x||. The digits l + s of base
    2s + 1 lie in 64-bit words, as many as fit, the last word cut to bytes.
    """

    source: ClassVar[str] = "Alistarh et al. 2017"
    acronym: ClassVar[str] = "QSGD"
    wire: ClassVar[str] = (
        "b + p log2(2 levels + 1), and what 64-bit words leave unused: 0.95 % for 1 level, 0.95 % for 4, 2.4 % for 7, "
        "0.07 % for 127; at most 9.8 % up to 32 levels, 25 % with any (3566)"
    )
    cost: ClassVar[str] = f"{wire} bits a message; dim random numbers"
    error: ClassVar[str] = "unbiased, delta <= min(p/levels^2, sqrt(p)/levels)"
    on_gpu: ClassVar[bool] = True
    levels: Annotated[int, msgspec.Meta(ge=1, le=32767)] = 1  # steps from zero to the norm

    def layout(self, dim: int, dtype: Any) -> np.dtype[Any]:
        """The norm and the packed digits."""
        return np.dtype([("norm", dtype), ("digits", "u1", (self._digits(dim).nbytes,))])

    def compress(self, vectors: Float[Array, "messages dim"], streams: Streams, out: Array | None = None) -> Array:
        """Round at random, with 32 random bits a coordinate."""
        xp, (count, dim) = namespace(vectors), vectors.shape
        records = np.empty(count, self.layout(dim, numpy_type(vectors))) if out is None else out
        packing = self._digits(dim)
        columns = packing.words * packing.per_word
        quantize = _compiled_quantize() if dim >= _WORTH_COMPILING and xp is np else None
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # what an attacker forged may be NaN or inf
            for rows in blocks(count, dim, vectors):
                norm, unit = _norms(vectors[rows, :])
                records["norm"][rows] = fetched(norm)
                unit *= float(self.levels)
                random = beside(streams.of(streams.ids[rows]).half_words("qsgd", dim), vectors)
                if quantize is not None:
                    words = np.empty((len(norm), packing.words), np.uint64)
                    quantize(unit, random, self.levels, packing.per_word, words)
                    packing.store(words, records["digits"][rows])
                    continue
                digits = xp.empty((unit.shape[0], columns), dtype=xp.float64, device=vectors.device)
                digits[:, dim:] = 0
                place = digits[:, :dim]
                into(xp.multiply, random if xp is np else as_type(random, xp.float64), 2.0**-32, out=place)
                place += unit
                into(xp.floor, place, out=place)
                # 0 … 2 levels, since no size is above 1 and no uniform number above 1 - 2^-32
                place += float(self.levels)
                packing.pack(digits, records["digits"][rows])
        return records

    def decompress(
        self, records: Array, dim: int, streams: Streams, out: Float[Array, "messages dim"] | None = None
    ) -> Float[Array, "messages dim"]:
        """The norm times each level."""
        if out is None:
            out = np.empty((len(records), dim))
        xp, packing = namespace(out), self._digits(dim)
        norms = as_type(beside(records["norm"], out), out.dtype)[:, None]
        for rows in blocks(len(records), dim, out):
            words = beside(packing.load(records["digits"][rows]), out)
            shares = packing.unpack(words, self.levels, out.dtype, unit=self.levels)[:, :dim]
            into(xp.multiply, shares, norms[rows, :], out=out[rows, :])
        return out

    def sound(self, records: Array, dim: int) -> Bool[Array, " messages"]:
        """A finite norm that is not negative, and levels in range."""
        norm = records["norm"]
        return np.isfinite(norm) & (norm >= 0) & self._digits(dim).in_range(records["digits"])

    def variance(self, dim: int) -> float | None:
        """min(p/s^2, sqrt(p)/s)."""
        return float(min(dim / self.levels**2, dim**0.5 / self.levels))

    def _digits(self, dim: int) -> Digits:
        return Digits.of(2 * self.levels + 1, dim)


class Natural(Compressor):
    """The sign, and the size rounded at random to one of the two powers of two around it, as its exponent alone.

    Below the smallest normal number the two are zero and that number: unbiased too, with a larger delta. An exponent of
    NaN or inf, which no finite number gets, is not looked for in the records: it gives a vector that is not finite.
    """

    source: ClassVar[str] = "Horvath et al. 2022"
    wire: ClassVar[str] = "12 p from float64, 9 p from float32"
    cost: ClassVar[str] = f"{wire} bits a message; dim random numbers"
    error: ClassVar[str] = "unbiased, delta = 1/8 for normal numbers"
    on_gpu: ClassVar[bool] = True

    def layout(self, dim: int, dtype: Any) -> np.dtype[Any]:
        """A code of sign and exponent for each coordinate, without gaps."""
        bits = 8 * np.dtype(dtype).itemsize - _MANTISSA[np.dtype(dtype).name]
        return np.dtype([(f"codes_{np.dtype(dtype).name}", "u1", (packed_bytes(dim, bits),))])

    def compress(self, vectors: Float[Array, "messages dim"], streams: Streams, out: Array | None = None) -> Array:
        """Random bits added below the exponent carry into it as often as they should."""
        xp, (count, dim) = namespace(vectors), vectors.shape
        records = np.empty(count, self.layout(dim, numpy_type(vectors))) if out is None else out
        unsigned, mantissa, bits = _parts(numpy_type(vectors))
        (field,) = records.dtype.names
        infinite = (1 << bits - 1) - 1  # the exponent of NaN and inf, one above that of the largest finite
        for rows in blocks(count, dim, vectors):
            numbers = vectors[rows, :].view(unsigned)  # beyond the standard: NumPy's and CuPy's
            own = streams.of(streams.ids[rows])
            drawn = own.words("natural", dim) if unsigned.itemsize == 8 else own.half_words("natural", dim)
            words = beside(drawn, vectors)
            words >>= bits
            words += numbers
            words >>= mantissa
            codes = as_type(words, xp.uint16)
            # What is finite stays so: past the largest power of two there is none to round up to.
            unrounded = as_type(numbers >> mantissa, xp.uint16)
            beyond = unrounded & infinite >= infinite - 1
            if xp.any(beyond):
                codes = xp.where(beyond, unrounded, codes)
            pack_bits(codes, bits, records[field][rows])
        return records

    def decompress(
        self, records: Array, dim: int, streams: Streams, out: Float[Array, "messages dim"] | None = None
    ) -> Float[Array, "messages dim"]:
        """Sign and exponent over a mantissa of zeros."""
        if out is None:
            out = np.empty((len(records), dim))
        unsigned, mantissa, bits = self._parts(records)
        (field,) = records.dtype.names
        for rows in blocks(len(records), dim, out):
            codes = as_type(unpack_bits(beside(records[field][rows], out), dim, bits), unsigned)
            codes <<= mantissa
            out[rows, :] = codes.view(f"f{unsigned.itemsize}")
        return out

    def variance(self, dim: int) -> float | None:
        """1/8."""
        return 0.125

    @staticmethod
    def _parts(records: Array) -> tuple[np.dtype[Any], int, int]:
        return _parts(np.dtype(records.dtype.names[0].removeprefix("codes_")))


class Sign(Compressor):
    """The signs (of zero: plus), and with ``scaled`` the mean absolute value, by which they are multiplied; biased."""

    source: ClassVar[str] = "Bernstein et al. 2018; scaled: Karimireddy et al. 2019"
    acronym: ClassVar[str] = "signSGD; scaled: EF-signSGD"
    wire: ClassVar[str] = "p, and b more where scaled"
    cost: ClassVar[str] = f"{wire} bits a message; dim"
    error: ClassVar[str] = "biased; scaled: contraction at least 1/p"
    on_gpu: ClassVar[bool] = True
    scaled: bool = True  # send the mean absolute value, too

    def layout(self, dim: int, dtype: Any) -> np.dtype[Any]:
        """One bit a coordinate."""
        signs = ("signs", "u1", (packed_bytes(dim, 1),))
        return np.dtype([("scale", dtype), signs] if self.scaled else [signs])

    def compress(self, vectors: Float[Array, "messages dim"], streams: Streams, out: Array | None = None) -> Array:
        """Signs as bits, minus as one."""
        xp, (count, dim) = namespace(vectors), vectors.shape
        records = np.empty(count, self.layout(dim, numpy_type(vectors))) if out is None else out
        with np.errstate(invalid="ignore", over="ignore"):
            for rows in blocks(count, dim, vectors):
                part = vectors[rows, :]
                pack_mask(part < 0, records["signs"][rows])
                if self.scaled:
                    sizes = xp.abs(part)
                    largest = xp.max(sizes, axis=1, keepdims=True)
                    sizes /= xp.where(largest > 0, largest, 1.0)  # the sum of what is large would overflow
                    records["scale"][rows] = fetched(largest[:, 0] * xp.mean(sizes, axis=1))
        return records

    def decompress(
        self, records: Array, dim: int, streams: Streams, out: Float[Array, "messages dim"] | None = None
    ) -> Float[Array, "messages dim"]:
        """Plus or minus the scale."""
        if out is None:
            out = np.empty((len(records), dim))
        xp = namespace(out)
        if self.scaled:
            scales = as_type(beside(records["scale"], out), out.dtype)[:, None]
        for rows in blocks(len(records), dim, out):
            minus = unpack_mask(beside(records["signs"][rows], out), dim)
            signs = out[rows, :]
            assign(signs, 1 - 2 * as_type(minus, xp.int8))
            if self.scaled:
                signs *= scales[rows, :]
        return out

    def sound(self, records: Array, dim: int) -> Bool[Array, " messages"]:
        """A finite scale that is not negative."""
        if not self.scaled:
            return super().sound(records, dim)
        return np.isfinite(records["scale"]) & (records["scale"] >= 0)

    def variance(self, dim: int) -> float | None:
        """Biased."""
        return None

    def contraction(self, dim: int) -> float | None:
        """||x||_1^2 / (p ||x||^2) >= 1/p where scaled; none otherwise, whatever the size of x."""
        return 1 / dim if self.scaled else None


@functools.cache
def _compiled_quantize() -> Callable[..., None] | None:
    """The compiled loop, where llvmlite is installed."""
    if importlib.util.find_spec("llvmlite") is None:
        return None
    from mpicoded.kernels.quantizing import quantize

    return cast("Callable[..., None]", quantize)


def _norms(vectors: Float[Array, "rows dim"]) -> tuple[Float[Array, " rows"], Float[Array, "rows dim"]]:
    """The norms, largest finite number at most, and the vectors divided by them; NaN where a vector is not finite."""
    xp = namespace(vectors)
    unit = xp.abs(vectors)
    largest = xp.max(unit, axis=1)
    scale = xp.where(largest == 0, 1.0, largest)[:, None]
    into(xp.divide, vectors, scale, out=unit)  # no square overflows, none of all is lost
    length = xp.sqrt(xp.sum(unit * unit, axis=1))  # at least 1, since the largest has become 1
    unit /= xp.where(length > 0, length, 1.0)[:, None]
    norm = xp.minimum(largest * length, xp.finfo(unit.dtype).max)
    return xp.where(xp.isfinite(largest), norm, math.nan), unit


def _parts(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], int, int]:
    """The unsigned integers of a float's size, the bits of its mantissa, and those of sign and exponent."""
    mantissa = _MANTISSA[np.dtype(dtype).name]
    return np.dtype(f"u{dtype.itemsize}"), mantissa, 8 * dtype.itemsize - mantissa
