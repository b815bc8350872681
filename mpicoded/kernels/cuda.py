"""Middle values and means of each coordinate's votes on a GPU: a sorting network in a thread's registers.

One thread works on one coordinate, neighbours on neighbouring ones, so that votes are read once and in long stretches.
The source is written out for a number of votes and the ranks that are wanted: with the network's rows as variables of
their own nothing is looked up, and comparisons that no wanted rank depends on are left out. What the means are, is
said in ``algorithms.ordering``; here they are summed in the order that the network leaves.
"""

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

MOST = 128  # votes: about as many as a thread has registers for
_THREADS = 128  # of a block
# A double's fmin looks for NaN, which no vote holds, for six times as long as it compares.
_TYPES = {
    "float32": ("float", "fminf(a, b)", "fmaxf(a, b)"),
    "float64": ("double", "((b) < (a) ? (b) : (a))", "((a) < (b) ? (b) : (a))"),
}
_KERNEL = """\
#define T {type}
#define MIN(a, b) {least}
#define MAX(a, b) {most}
#define SORT(a, b) {{ const T least = MIN(a, b); b = MAX(a, b); a = least; }}
#define INSIDE(x) MIN(MAX(x - low, (T)0), range)
#define MEAN(above, count) low + MAX({inside} - (T)(above) * range, (T)0) / (T)(count)

extern "C" __global__ void __launch_bounds__({threads}) middle(
    const T* __restrict__ votes, const long long stride, const long long dim, T* __restrict__ out)
{{
    const long long column = blockIdx.x * {threads}LL + threadIdx.x;
    if (column >= dim) return;
    {steps}
    out[column] = mean;
}}
"""


def _odd_even(count: int) -> list[tuple[int, int]]:
    """Batcher's odd-even merge sort of ``count`` rows: (i, j) puts the smaller into i, the larger into j."""
    pairs = []
    merged = 1
    while merged < count:
        gap = merged
        while gap:
            for first in range(gap % merged, count - gap, 2 * gap):
                places = range(first, min(first + gap, count - gap))
                pairs += [(i, i + gap) for i in places if i // (2 * merged) == (i + gap) // (2 * merged)]
            gap //= 2
        merged *= 2
    return pairs


def network(votes: int, wanted: Iterable[int]) -> list[tuple[int, int]]:
    """Comparisons that bring the wanted ranks into the rows of their numbers; the other rows hold the other votes.

    All votes stay there for their sum, in as many registers: ``kernels.networks`` compares less and needs more room.
    """
    matter, kept = set(wanted), []
    for pair in reversed(_odd_even(votes)):
        if matter.intersection(pair):
            matter.update(pair)
            kept.append(pair)
    return kept[::-1]


@functools.lru_cache(64)
def source(votes: int, first: int, last: int, kept: int, dtype: str) -> str:
    """CUDA C++ for the mean of the ranks ``first`` to ``last``, or, where ``kept`` > 0, of so many nearest to it."""
    name, least, most = _TYPES[dtype]
    ends = votes - kept + 1 if kept else 0
    wanted = {first, last, *range(ends), *range(votes - ends, votes)}
    steps = [f"T x{row} = votes[{row} * stride + column];" for row in range(votes)]
    steps += [f"SORT(x{i}, x{j})" for i, j in network(votes, wanted)]
    steps.append(f"T low = x{first} + (T)0, range = x{last} - x{first};")
    if last - first < 2:
        steps.append(f"T mean = x{first} / 2 + x{last} / 2 + (T)0;")
    else:
        steps.append(f"T mean = MEAN({votes - 1 - last}, {last - first + 1});")
    if kept:
        too_low = [f"(mean - x{row} > x{row + kept} - mean)" for row in range(votes - kept)]
        steps.append(f"const int start = {' + '.join(too_low) or '0'};")
        steps.append(f"low = x0; T high = x{kept - 1};")
        steps += [f"if (start == {row}) {{ low = x{row}; high = x{row + kept - 1}; }}" for row in range(1, ends)]
        steps.append("low += (T)0; range = high - low;")
        steps.append(f"mean = MEAN({votes - kept} - start, {kept});")
    inside = " + ".join(f"INSIDE(x{row})" for row in range(votes))
    words = {"type": name, "least": least, "most": most, "threads": _THREADS}
    return _KERNEL.format(**words, steps="\n    ".join(steps), inside=f"({inside})")


@functools.lru_cache(64)
def _compiled(*words: Any) -> Any:
    import cupy

    return cupy.RawKernel(source(*words), "middle")


def takes(votes: Any) -> bool:
    """Whether these are votes of CuPy's, and not too many."""
    cupy = type(votes).__module__.partition(".")[0] == "cupy"
    return cupy and votes.shape[0] <= MOST and str(votes.dtype) in _TYPES


def middle(votes: Any, first: int, last: int, kept: int, out: Any | None = None) -> Any:
    """Per column the mean of the ranks ``first`` to ``last``; or, where ``kept`` > 0, of so many nearest to it.

    ``votes``: (votes, dim), such that it ``takes`` them; ``out``: (dim,), or where it is None a new one.
    """
    import cupy

    count, dim = votes.shape
    if votes.strides[1] != votes.itemsize:
        votes = cupy.ascontiguousarray(votes)
    fits = out is not None and out.dtype == votes.dtype and out.strides == (votes.itemsize,)
    found = out if fits else cupy.empty(dim, votes.dtype)
    kernel = _compiled(count, first, last, kept, str(votes.dtype))
    words = votes, np.int64(votes.strides[0] // votes.itemsize), np.int64(dim), found
    kernel((-(-dim // _THREADS),), (_THREADS,), words)
    if out is None or fits:
        return found
    out[...] = found
    return out
