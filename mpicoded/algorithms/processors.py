"""What computes on the samples, gradients and votes of a rank, and whose memory they lie in: the CPU's, or a GPU's.

Messages are forged, compressed and decompressed there, and the server's filters and rule work there too. All else of a
run stays in the CPU's memory. What is handed to a processor goes through ``put``, what is taken from it through
``fetch``; between the two there is only what NumPy and CuPy have in common. CuPy is imported where a GPU is asked for,
and nowhere else.
"""

import os
from typing import Any

import numpy as np

from mpicoded.algorithms.arrays import namespace
from mpicoded.algorithms.products import Rows, SparseProduct
from mpicoded.algorithms.shapes import Array, Float, Int, Shaped
from mpicoded.algorithms.slices import LONG, WHOLE, Sums
from mpicoded.errors import InputError, one_line

_ASKED = 'compute.device = "cuda"'


class Processor:
    """The CPU, for which there is nothing to move."""

    xp: Any = np
    sums: Sums = WHOLE
    """How it adds up over all coordinates, where all are at hand."""

    def __init__(self) -> None:
        self._product = SparseProduct()

    def put(self, array: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """An array of NumPy's as one to compute with; one that is there already as it is."""
        return array

    def fetch(self, array: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """An array that was computed as one of NumPy's, complete, and to be written to."""
        return array

    def room(self, nbytes: int) -> Shaped[Array, " nbytes"] | None:
        """Memory of the CPU's that ``put`` reads fastest; None: any is as good."""
        return None

    def take(
        self, rows: Float[Array, "rows features"], places: Int[Array, " taken"], out: Float[Array, "taken features"]
    ) -> None:
        """Copy some rows."""
        np.take(rows, places, axis=0, out=out, mode="clip")

    def matrix(self, weights: Rows) -> Any:
        """A sparse matrix as one to multiply with, in ``combine``."""
        return weights

    def combine(
        self, matrix: Any, gradients: Float[Array, "subsets dim"], out: Float[Array, "messages dim"]
    ) -> Float[Array, "messages dim"]:
        """``out`` = matrix @ gradients."""
        return self._product(matrix, gradients, out)

    def wait(self) -> None:
        """Until all that was begun is done: so that a clock measures what it should."""


class Cuda(Processor):
    """One of the GPUs that this process sees: the one of this rank's number on its host, in turn.

    Raises InputError where there is no CuPy, or none that can compute.
    """

    sums = LONG

    def __init__(self, local_rank: int) -> None:
        try:
            import cupy
            import cupyx
        except ImportError as error:
            raise InputError(f"{_ASKED} needs CuPy: {_why_not(error)}") from None
        self._cupy, self._pinned = cupy, cupyx.empty_pinned
        count, reason = gpus()
        if not count:
            raise InputError(f"{_ASKED}: no GPU is visible ({reason}); {visible()}")
        self.index = local_rank % count
        try:
            cupy.cuda.Device(self.index).use()
            one = self.put(np.ones((1, 1)))
            self.xp = namespace(one)
            self.fetch(one @ one + one)  # says now what is missing of CUDA, or that others have taken the GPU
        except Exception as error:
            raise InputError(f"{_ASKED}: GPU {self.index} of {count} does not compute: {one_line(error)}") from None

    def put(self, array: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """A copy on the GPU."""
        if not isinstance(array, np.ndarray):
            return array
        on_gpu = self._cupy.empty(array.shape, array.dtype)
        on_gpu.set(array)  # asarray() would first make a copy in pinned memory, of all the samples
        return on_gpu

    def fetch(self, array: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """A copy in pinned memory of the host, which a pool takes back when the copy is no longer used.

        One of NumPy's as it is.
        """
        if isinstance(array, np.ndarray):
            return array
        if not array.size:
            return np.empty(array.shape, array.dtype)
        here: Array = self._pinned(array.shape, array.dtype)
        array.get(out=here)  # waits for the stream
        return here

    def room(self, nbytes: int) -> Shaped[Array, " nbytes"] | None:
        """Pinned memory."""
        here: Array = self._pinned((nbytes,), np.uint8)
        return here

    def take(
        self, rows: Float[Array, "rows features"], places: Int[Array, " taken"], out: Float[Array, "taken features"]
    ) -> None:
        """Copy some rows."""
        self._cupy.take(rows, places, axis=0, out=out)

    def matrix(self, weights: Rows) -> Any:
        """A dense one: a rank's weights are small beside its gradients."""
        return self.put(weights.dense())

    def combine(
        self, matrix: Any, gradients: Float[Array, "subsets dim"], out: Float[Array, "messages dim"]
    ) -> Float[Array, "messages dim"]:
        """A dense product."""
        found: Array = self._cupy.matmul(matrix, gradients, out=out)
        return found

    def wait(self) -> None:
        """Until the stream is empty."""
        self._cupy.cuda.get_current_stream().synchronize()


class Twin:
    """A vector in the CPU's memory, ``host``, and ``there``, where a processor computes; on the CPU they are one."""

    def __init__(self, processor: Processor, columns: int, dtype: np.dtype[Any]) -> None:
        self._processor = processor
        self.host = np.zeros(columns, dtype)
        self.there = processor.put(self.host)

    def set(self, values: Float[Array, " columns"]) -> None:
        """To these, which are NumPy's."""
        self.host[:] = values
        self.there = self._processor.put(self.host)

    def computed(self) -> None:
        """``there`` has been computed: ``host`` gets the same."""
        if self.there is not self.host:
            self.host[:] = self._processor.fetch(self.there)

    def follow(self, other: "Twin") -> None:
        """Both become what another twin's are."""
        self.host[:] = other.host
        if self.there is not self.host:
            self.there[:] = other.there

    def beside(self, array: Array) -> Float[Array, " columns"]:
        """That of the two which is in the same memory as an array."""
        return self.host if isinstance(array, np.ndarray) else self.there


def processor(device: str, local_rank: int) -> Processor:
    """What ``compute.device`` names, for the rank of this number on its host."""
    return Cuda(local_rank) if device == "cuda" else Processor()


def gpus() -> tuple[int, str]:
    """How many GPUs CuPy sees in this process, and why none. Raises ImportError where there is no CuPy."""
    import cupy

    try:
        return int(cupy.cuda.runtime.getDeviceCount()), "CUDA counts 0"
    except Exception as error:  # of the type that this version of CuPy has for what CUDA says
        return 0, one_line(error)


def visible() -> str:
    """What this process was told of GPUs."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "CUDA_VISIBLE_DEVICES is not set" if told is None else f"CUDA_VISIBLE_DEVICES is {told!r}"


def _why_not(error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in ("cupy", "cupyx"):
        return 'it is not installed; pip install "mpicoded[cupy]" brings the one for CUDA 12'
    return one_line(error)
