"""CUDA kernels on this CPU: their source compiled as C++, and run thread by thread."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPILER = shutil.which("c++")
_BEFORE = """
#include <math.h>
#define __global__
#define __launch_bounds__(threads)
struct Index { long long x; };
static Index blockIdx, threadIdx;
"""
_AFTER = """
extern "C" void launch(long long blocks, long long threads, void* votes, long long stride, long long dim, void* out)
{
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) middle((T*)votes, stride, dim, (T*)out);
}
"""


@functools.cache
def compiled(source):
    """The kernel ``middle`` of a source, as launch(blocks, threads, votes, stride, dim, out)."""
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
        text.write_text(_BEFORE + source + _AFTER)
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O0", "-o", library, text], check=True)
        return ctypes.CDLL(str(library)).launch


class RawKernel:
    """As CuPy's, for that kernel."""

    def __init__(self, source, name):
        assert name == "middle"
        self._launch = compiled(source)

    def __call__(self, blocks, threads, words):
        votes, stride, dim, out = words
        (blocks,), (threads,) = blocks, threads
        places = [ctypes.c_void_p(array._data.__array_interface__["data"][0]) for array in (votes, out)]
        numbers = [ctypes.c_longlong(int(number)) for number in (blocks, threads, stride, dim)]
        self._launch(*numbers[:2], places[0], *numbers[2:], places[1])
