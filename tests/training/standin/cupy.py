"""A stand-in for CuPy: arrays that only look as if they were on a GPU, and refuse to be mixed with NumPy's.

What CuPy does without being asked, it does not: with a NumPy array it neither computes nor indexes. Sorted by what is
used of CuPy; the rest is what array-api-compat makes of NumPy. New memory holds NaN.
"""

import operator
import os
import platform
import sys

import hosted
import numpy as np
from array_api_compat import numpy as standard

__version__ = "0 (a stand-in)"
_SELF = sys.modules[__name__]
moved = []  # "up" or "down", and the shape, of every copy between the two memories
carried = {"up": 0, "down": 0}  # bytes


class Array:
    """An array "on the GPU"."""

    __array_ufunc__ = None  # NumPy's operators leave it to those below

    def __init__(self, data):
        self._data = data
        self.shape, self.dtype, self.size, self.nbytes = data.shape, data.dtype, data.size, data.nbytes
        self.itemsize, self.ndim, self.device, self.strides = data.itemsize, data.ndim, "gpu", data.strides

    def __array__(self, *words, **more):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    # No buffer protocol: as CuPy's, they reach MPI as what they say they are, memory of a GPU.

    def __dlpack__(self, stream=None, **more):
        assert stream == -1  # mpi4py leaves it to us to wait
        return self._data.__dlpack__(**more)

    def __dlpack_device__(self):
        return 2, 0

    @property
    def __cuda_array_interface__(self):
        there = self._data.__array_interface__
        return {name: there[name] for name in ("shape", "typestr", "data", "strides")} | {"version": 3, "stream": 1}

    def __array_namespace__(self, api_version=None):
        return _SELF

    def __len__(self):
        return len(self._data)

    def __getitem__(self, key):
        return _wrap(self._data[_unwrap(key)])

    def __setitem__(self, key, value):
        self._data[_unwrap(key)] = _unwrap(value)

    def __float__(self):
        return float(self._data)

    def __int__(self):
        return int(self._data)

    def __bool__(self):
        return bool(self._data)

    def __neg__(self):
        return _wrap(-self._data)

    def reshape(self, *shape):
        return _wrap(self._data.reshape(*shape))

    def ravel(self):
        return _wrap(self._data.ravel())

    def astype(self, dtype, copy=True):
        return _wrap(self._data.astype(dtype, copy=copy))

    def view(self, dtype):
        return _wrap(self._data.view(dtype))

    def __abs__(self):
        return _wrap(abs(self._data))

    def get(self, out=None):
        _note("down", self)
        if out is None:
            return self._data.copy()
        assert (out.shape, out.dtype, out.flags.c_contiguous) == (self.shape, self.dtype, True)
        out[...] = self._data
        return out

    def set(self, array):
        assert type(array) is np.ndarray
        assert (array.shape, array.dtype) == (self.shape, self.dtype)
        moved.append(("up", self.shape))
        self._data[...] = array


def _operator(name):
    function = getattr(operator, name)

    def forward(self, other):
        return _wrap(function(self._data, _unwrap(other)))

    def reverse(self, other):
        return _wrap(function(_unwrap(other), self._data))

    def in_place(self, other):
        self._data[...] = function(self._data, _unwrap(other))
        return self

    stem = name.strip("_")
    setattr(Array, f"__{stem}__", forward)
    setattr(Array, f"__r{stem}__", reverse)
    setattr(Array, f"__i{stem}__", in_place)


for _name in (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "lshift", "rshift"),
    *("eq", "lt", "le", "gt", "ge", "and_", "or_"),
):
    _operator(_name)


def _note(way, array):
    moved.append((way, array.shape))
    carried[way] += array.nbytes


def _wrap(value):
    return Array(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def _unwrap(value):
    if isinstance(value, tuple | list):
        return type(value)(map(_unwrap, value))
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value._data if isinstance(value, Array) else value


def __getattr__(name):
    if name.startswith("_"):
        raise AttributeError(name)
    return _wrapped(getattr(standard, name))


def _wrapped(found):
    if isinstance(found, type) or not callable(found):
        return found

    def function(*words, device=None, **more):
        return _wrap(found(*map(_unwrap, words), **{key: _unwrap(value) for key, value in more.items()}))

    return function


def empty(shape, dtype=float, device=None):
    dtype = np.dtype(dtype)
    return Array(np.full(shape, np.nan if dtype.kind == "f" else 77, dtype))


RawKernel = hosted.RawKernel
if hosted.COMPILER is None:
    from mpicoded.kernels import cuda as kernels

    kernels.MOST = 0  # no number of votes is one for a kernel


def ascontiguousarray(array):
    return Array(np.ascontiguousarray(array._data))


def astype(array, dtype, copy=True, device=None):
    return array.astype(dtype, copy=copy)


def asarray(data, dtype=None, device=None):
    if isinstance(data, np.ndarray):
        _note("up", data)
        return _wrap(np.array(data, dtype))
    return _wrap(np.asarray(_unwrap(data), dtype))


def take(array, places, axis, out=None):
    found = np.take(array._data, _unwrap(places), axis=axis)
    if out is None:
        return _wrap(found)
    out._data[...] = found
    return out


class linalg:
    diagonal = staticmethod(_wrapped(standard.linalg.diagonal))


class ndarray:
    """Not the class above, so that array-api-compat asks that for its library."""


class cuda:
    class runtime:
        @staticmethod
        def getDeviceCount():
            seen = _visible()
            if not seen:
                raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
            return len(seen)

    class Device:
        def __init__(self, index):
            self.index = index

        def use(self):
            if "STANDIN_SAYS" in os.environ:
                seen = _visible()
                print(f"GPU {seen[self.index]} of {platform.node()}, which shows {len(seen)}", flush=True)

    class stream:
        synchronised = 0

        @classmethod
        def synchronize(cls):
            cls.synchronised += 1

    @classmethod
    def get_current_stream(cls):
        return cls.stream


def _visible():
    return [word for word in os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",") if word]
