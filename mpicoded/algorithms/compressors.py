"""What goes over the wire: a message is one record of a fixed structured dtype.

``layout(dim, dtype).itemsize`` is the communication cost: nothing else of a message is sent.
"""

from typing import Any, ClassVar

import numpy as np

from mpicoded.algorithms.component import Component
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float


class Compressor(Component):
    """Base of the compressors."""

    def layout(self, dim: int, dtype: Any) -> np.dtype[Any]:
        """The record of one message."""
        raise NotImplementedError

    def compress(self, vectors: Float[Array, "messages dim"], streams: Streams) -> Array:
        """One record for each vector."""
        raise NotImplementedError

    def decompress(
        self, records: Array, dim: int, streams: Streams, out: Float[Array, "messages dim"] | None = None
    ) -> Float[Array, "messages dim"]:
        """The vectors that the records stand for."""
        raise NotImplementedError


class NoCompression(Compressor, tag="none"):
    """Dense vectors, as they are; no copy is made on either side."""

    source: ClassVar[str] = "baseline"

    def layout(self, dim: int, dtype: Any) -> np.dtype[Any]:
        """``dim`` numbers."""
        return np.dtype([("values", dtype, (dim,))])

    def compress(self, vectors: Float[Array, "messages dim"], streams: Streams) -> Array:
        """The same memory, seen as records."""
        return vectors.view(self.layout(vectors.shape[1], vectors.dtype))[:, 0]

    def decompress(
        self, records: Array, dim: int, streams: Streams, out: Float[Array, "messages dim"] | None = None
    ) -> Float[Array, "messages dim"]:
        """The same memory, seen as vectors."""
        values: Array = records["values"]
        if out is None:
            return values
        out[...] = values
        return out


Choice = NoCompression
