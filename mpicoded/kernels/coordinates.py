"""Middle values and means of each coordinate's votes: a sorting network over rows, many coordinates side by side.

A tile of a few columns is read, row by row, as it goes through the network's steps, whole vectors in registers;
meanwhile a later tile is fetched. A mean is a sum, in the votes' order, of what lies between two ranks, so that each
column's result depends on that column alone.

The code is written for a number of votes and the ranks that are wanted, in LLVM's language, because no compiler finds
the vectors in a loop over rows.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from mpicoded.kernels.compiling import INDEX, NOTHING, function, index, loop
from mpicoded.kernels.networks import Step, steps

_VECTOR = 32  # bytes: a register of AVX2, two of NEON
_TILE = 4  # vectors of each row that are worked together: their sums do not wait for each other
_AHEAD = 2  # tiles that lie between what is worked on and what is fetched
_LINE = 64  # bytes that memory comes in


class _Room(threading.local):
    """A thread's room to work in, kept from call to call."""

    numbers = np.empty(0)
    start = 0  # of its first line: vectors that lie in one line each are read faster

    def at_least(self, nbytes: int) -> int:
        """The address of so many bytes."""
        if self.numbers.nbytes < nbytes + _LINE:
            self.numbers = np.empty((nbytes + _LINE) // 8 + 1)
            self.start = -(-self.numbers.ctypes.data // _LINE) * _LINE
        return self.start


_room = _Room()


@functools.cache
def middle(count: int, first: int, last: int, kept: int, kind: str) -> Callable[[Any, Any], None]:
    """``run(votes, out)``: per column the mean of the ranks ``first`` to ``last`` of so many votes.

    Or, where ``kept`` > 0, of so many nearest to it. ``votes``: (count, dim), rows contiguous, of this machine's floats
    of 4 or 8 bytes, as ``kind`` says; ``out``: (dim,), contiguous.
    """
    code = _Code(count, kind)
    code.write(first, last, kept)
    call, lanes, nbytes = function(code.module, "middle"), code.lanes, 2 * count * code.lanes * code.size

    def run(votes: Any, out: Any) -> None:
        dim = votes.shape[1]
        if 0 < dim < lanes:
            tile, result = np.zeros((count, lanes), kind), np.empty(lanes, kind)
            tile[:, :dim] = votes
            run(tile, result)
            out[...] = result[:dim]
        elif dim:
            stride = votes.strides[0] // votes.itemsize
            call(votes.ctypes.data, stride, dim, _room.at_least(nbytes), out.ctypes.data)

    return run


class _Code:
    """The loop for so many votes, while it is written.

    It works in two tiles: one goes through the network, the other keeps the votes in their order, for sums.
    """

    def __init__(self, votes: int, kind: str) -> None:
        self.votes, self.size = votes, np.dtype(kind).itemsize
        self.number = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.number, _VECTOR // self.size)
        self.lanes = _TILE * self.vector.count  # columns of a tile
        self.module = ir.Module()
        self.builder = ir.IRBuilder()
        self.parts: dict[Any, Any] = {}

    def write(self, first: int, last: int, kept: int) -> None:
        """``middle(votes, stride, dim, room, out)``, for no fewer columns than a tile has."""
        ends = self.votes - kept + 1 if kept else 0
        wanted = {first, last, *range(ends), *range(self.votes - ends, self.votes)}
        network = [(step, self._part(step)) for step in steps(self.votes, frozenset(wanted))]
        numbers = self.number.as_pointer()
        kind = ir.FunctionType(NOTHING, [numbers, INDEX, INDEX, numbers, numbers])
        main = ir.Function(self.module, kind, "middle")
        votes, stride, dim, tile, out = main.args
        b = self.builder = ir.IRBuilder(main.append_basic_block())
        copies = self._row(tile, self.votes)
        with loop(b, dim, self.lanes) as (begin, _):
            rest = b.sub(dim, index(self.lanes))  # the last tile overlaps the one before
            column = b.select(b.icmp_signed("<", begin, rest), begin, rest)
            for step, part in network:
                source = self._at(votes, b.add(column, b.mul(stride, index(step.first))))
                b.call(part, [source, stride, self._row(tile, step.first), self._row(copies, step.first)])
            for k, value in enumerate(self._results(tile, copies, first, last, kept)):
                self._store(value, self._at(out, column, index(k * self.vector.count)))
        b.ret_void()

    def _part(self, step: Step) -> Any:
        """A step's function, one for all that do the same to other rows.

        Its arguments: the step's first row of the votes, how far these are apart, and the same row of both tiles.
        """
        key = step.reads_votes, step.network
        if key not in self.parts:
            numbers = self.number.as_pointer()
            kind = ir.FunctionType(NOTHING, [numbers, INDEX, numbers, numbers])
            part = self.parts[key] = ir.Function(self.module, kind, f"step{len(self.parts)}")
            part.linkage = "internal"
            b = self.builder = ir.IRBuilder(part.append_basic_block())
            with loop(b, index(self.lanes), self.vector.count) as (shift, _):
                source, tile, copies = (self._at(part.args[k], shift) for k in (0, 2, 3))
                if step.reads_votes:
                    rows = len(step.network.inputs)
                    assert step.network.inputs == tuple(range(rows))  # no rank is independent of a vote
                    self._fetch(source, part.args[1], rows)
                    values = self._read(source, part.args[1], copies, rows)
                else:
                    values = [self._load(self._row(tile, row)) for row in step.network.inputs]
                for greater, i, j in step.network.operations:
                    values.append(self._either(">" if greater else "<", values[i], values[j]))
                for row, value in step.network.results:
                    self._store(values[value], self._row(tile, row))
            b.ret_void()
        return self.parts[key]

    def _read(self, source: Any, stride: Any, copies: Any, rows: int) -> list[Any]:
        """A vector of each of the first so many rows, which is written to the copies as well."""
        values = []
        for row in range(rows):
            values.append(self._load(source))
            self._store(values[-1], self._row(copies, row))
            source = self._at(source, stride)
        return values

    def _fetch(self, source: Any, stride: Any, rows: int) -> None:
        """Ask for a vector of each of so many rows in a later tile."""
        byte, flag, b = ir.IntType(8).as_pointer(), ir.IntType(32), self.builder
        kind = ir.FunctionType(NOTHING, [byte, flag, flag, flag])
        prefetch = self.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # The first cache is full.
        to_read, second_cache, of_data = (ir.Constant(flag, value) for value in (0, 2, 1))
        place = self._at(source, index(_AHEAD * self.lanes))
        for _ in range(rows):
            b.call(prefetch, [b.bitcast(place, byte), to_read, second_cache, of_data])
            place = self._at(place, stride)

    def _results(self, tile: Any, copies: Any, first: int, last: int, kept: int) -> list[Any]:
        """A tile's results from its ranks and its votes."""
        b = self.builder
        low, high = self._loads(self._row(tile, first)), self._loads(self._row(tile, last))
        if last - first < 2:
            half, zero = self._constant(0.5), self._constant(0.0)  # never a negative zero
            found = [b.fadd(b.fadd(b.fmul(x, half), b.fmul(y, half)), zero) for x, y in zip(low, high, strict=True)]
        else:
            above = [self._constant(self.votes - 1 - last)] * _TILE
            found = self._mean(copies, low, high, above, last - first + 1)
        return self._mean(copies, *self._nearest(tile, found, kept), kept) if kept else found

    def _mean(self, copies: Any, low: list[Any], high: list[Any], above: list[Any], kept: int) -> list[Any]:
        """The mean of the ``kept`` votes from ``low`` to ``high``; ``above`` others are no smaller than these.

        low + (sum of min(max(x - low, 0), high - low) - above (high - low)) / kept; the sum goes from first to last.
        """
        b, zero = self.builder, self._constant(0.0)
        ranges = [b.fsub(y, x) for x, y in zip(low, high, strict=True)]
        with loop(b, index(self.votes), 1, carried=[zero] * _TILE) as (row, sums):
            place = self._at(copies, b.mul(row, index(self.lanes)))
            for k, vote in enumerate(self._loads(place)):
                inside = self._either("<", self._either(">", b.fsub(vote, low[k]), zero), ranges[k])
                sums[k] = b.fadd(sums[k], inside)
        excess = [b.fsub(sums[k], b.fmul(above[k], ranges[k])) for k in range(_TILE)]
        count = self._constant(kept)
        return [b.fadd(low[k], b.fdiv(self._either(">", excess[k], zero), count)) for k in range(_TILE)]

    def _nearest(self, tile: Any, centre: list[Any], kept: int) -> tuple[list[Any], list[Any], list[Any]]:
        """The first and last of the ``kept`` sorted values nearest to a centre, and how many values lie above them.

        Those that are kept begin one rank higher as long as the lowest is further away than the one above the highest.
        """
        b, one, outside = self.builder, self._constant(1.0), self.votes - kept
        low, high = self._loads(tile), self._loads(self._row(tile, kept - 1))
        above = [self._constant(outside)] * _TILE
        for rank in range(outside):
            lower, following, upper = (self._loads(self._row(tile, k)) for k in (rank, rank + 1, rank + kept))
            for k in range(_TILE):
                far = b.fcmp_ordered(">", b.fsub(centre[k], lower[k]), b.fsub(upper[k], centre[k]))
                low[k], high[k] = b.select(far, following[k], low[k]), b.select(far, upper[k], high[k])
                above[k] = b.select(far, b.fsub(above[k], one), above[k])
        return low, high, above

    def _either(self, sign: str, x: Any, y: Any) -> Any:
        """x where x < y, or where x > y; else y."""
        return self.builder.select(self.builder.fcmp_ordered(sign, x, y), x, y)

    def _constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.vector, [float(value)] * self.vector.count)

    def _at(self, base: Any, *numbers: Any) -> Any:
        for number in numbers:
            base = self.builder.gep(base, [number])
        return base

    def _row(self, tile: Any, row: int) -> Any:
        return self._at(tile, index(row * self.lanes))

    def _load(self, place: Any) -> Any:
        return self.builder.load(self.builder.bitcast(place, self.vector.as_pointer()), align=self.size)

    def _loads(self, row: Any) -> list[Any]:
        return [self._load(self._at(row, index(k * self.vector.count))) for k in range(_TILE)]

    def _store(self, value: Any, place: Any) -> None:
        self.builder.store(value, self.builder.bitcast(place, self.vector.as_pointer()), align=self.size)
