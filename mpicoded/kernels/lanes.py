"""Pieces of compiled loops that work on many columns side by side, written in LLVM's own language.

No compiler finds whole vectors in a loop over rows that a table names, so each piece says what is loaded, compared and
stored. Whoever changes this file must touch ``coordinates.py`` as well: numba looks at that one's date alone.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mpicoded.kernels.networks import PATTERNS

VECTOR = 32  # bytes: a register of AVX2, two of NEON
_LINE = 64  # bytes that are fetched at a time
_I = types.intp
_INDEX = ir.IntType(64)


def _index(value: int) -> ir.Constant:
    return ir.Constant(_INDEX, value)


class _Code:
    """What all pieces of LLVM code below begin with: where arrays lie, and vectors of their numbers."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, array: int = 0) -> None:
        self.context, self.builder, self.signature, self.arguments = context, builder, signature, arguments
        self.number = context.get_data_type(signature.args[array].dtype)
        self.size = context.get_abi_sizeof(self.number)

    def data(self, argument: int) -> Any:
        """The first number of the array that is this argument."""
        array = self.context.make_array(self.signature.args[argument])
        return array(self.context, self.builder, self.arguments[argument]).data

    def vectors(self, count: int) -> ir.VectorType:
        """So many vectors as one."""
        return ir.VectorType(self.number, count * VECTOR // self.size)

    def load(self, place: Any, vector: ir.VectorType) -> Any:
        return self.builder.load(self.builder.bitcast(place, vector.as_pointer()), align=self.size)

    def store(self, value: Any, place: Any) -> None:
        self.builder.store(value, self.builder.bitcast(place, value.type.as_pointer()), align=self.size)

    def smaller(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def over(self, end: Any, step: int) -> Any:
        """A loop; the index comes first."""
        return cgutils.for_range_slice(self.builder, _index(0), end, _index(step), _INDEX)

    def nothing(self) -> Any:
        return self.context.get_dummy_value()


def step_of(pattern: int) -> Any:
    """step(source, its width, first column, tile, its width, rows, number): compare rows of all the tile's columns.

    The rows are ``rows[number]`` and those after it.
    """
    count, pairs = PATTERNS[pattern]
    written = (count,) if count == 9 else range(count)

    @intrinsic
    def step(
        typing: Any, source: Any, width: Any, column: Any, tile: Any, lanes: Any, rows: Any, number: Any
    ) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = _Code(context, builder, signature, arguments)
            _, wide, first, _, narrow, _, line = arguments
            origin, target, table = code.data(0), code.data(3), code.data(5)

            def place(base: Any, width: Any, first: Any, k: int) -> Any:
                row = builder.sext(builder.load(builder.gep(table, [builder.add(line, _index(k))])), _INDEX)
                return builder.gep(base, [builder.add(builder.mul(row, width), first)])

            sources = [place(origin, wide, first, k) for k in range(count)]
            targets = [place(target, narrow, _index(0), k) for k in written]
            with code.over(narrow, VECTOR // code.size) as (shift, _):
                values = [code.load(builder.gep(start, [shift]), code.vectors(1)) for start in sources]
                for i, j in pairs:
                    a, b = values[i], values[j]
                    values[i], values[j] = code.smaller(a, b), code.larger(a, b)
                for value, start in zip(values[-len(targets) :], targets, strict=True):
                    code.store(value, builder.gep(start, [shift]))
            return code.nothing()

        return types.void(source, _I, _I, tile, _I, rows, _I), generate

    return step


@intrinsic
def copy(typing: Any, target: Any, to: Any, source: Any, begin: Any, count: Any) -> tuple[Any, Any]:
    """Copy ``count`` numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        places = (builder.gep(code.data(k), [arguments[k + 1]]) for k in (0, 2))
        cgutils.raw_memcpy(builder, *places, arguments[4], code.size)
        return code.nothing()

    return types.void(target, _I, source, _I, _I), generate


@intrinsic
def fetch(typing: Any, source: Any, begin: Any, count: Any) -> tuple[Any, Any]:
    """Ask for ``count`` numbers that are read soon."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        base = builder.bitcast(builder.gep(code.data(0), [arguments[1]]), cgutils.voidptr_t)
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        with code.over(builder.mul(arguments[2], _index(code.size)), _LINE) as (byte, _):
            to_read, second_cache, of_data = (ir.Constant(flag, value) for value in (0, 2, 1))
            builder.call(prefetch, [builder.gep(base, [byte]), to_read, second_cache, of_data])
        return code.nothing()

    return types.void(source, _I, _I), generate


@intrinsic
def excess(
    typing: Any, block: Any, width: Any, column: Any, votes: Any, low: Any, high: Any, total: Any, lanes: Any
) -> tuple[Any, Any]:
    """total = the sum over rows, first to last, of min(max(x - low, 0), high - low), for all of a tile's columns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        _, wide, first, count, *_, narrow = arguments
        base = builder.gep(code.data(0), [first])
        lower, upper, result = (code.data(k) for k in (4, 5, 6))
        vector = code.vectors(2)  # two sums at a time: one waits for itself
        zero = ir.Constant(vector, None)
        with code.over(narrow, 2 * VECTOR // code.size) as (shift, _):
            below = code.load(builder.gep(lower, [shift]), vector)
            range_ = builder.fsub(code.load(builder.gep(upper, [shift]), vector), below)
            sums = cgutils.alloca_once_value(builder, zero)
            builder.store(zero, sums)
            with code.over(count, 1) as (row, _):
                x = code.load(builder.gep(base, [builder.add(builder.mul(row, wide), shift)]), vector)
                part = code.smaller(code.larger(builder.fsub(x, below), zero), range_)
                builder.store(builder.fadd(builder.load(sums), part), sums)
            code.store(builder.load(sums), builder.gep(result, [shift]))
        return code.nothing()

    return types.void(block, _I, _I, _I, low, high, total, _I), generate


@intrinsic
def nearest(
    typing: Any, tile: Any, votes: Any, kept: Any, centre: Any, low: Any, high: Any, above: Any, lanes: Any
) -> tuple[Any, Any]:
    """The first and last of the ``kept`` sorted values nearest to a centre, and how many values lie above them.

    The values that are kept begin one rank higher as long as the lowest is further away than the one above the highest.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        sorted_, centres, lows, highs, numbers = (code.data(k) for k in (0, 3, 4, 5, 6))
        _, count, many, *_, narrow = arguments
        vector = code.vectors(1)
        one = ir.Constant(vector, [1.0] * vector.count)
        outside = builder.sub(count, many)
        with code.over(narrow, vector.count) as (shift, _):

            def value(rank: Any) -> Any:
                place = builder.gep(sorted_, [builder.add(builder.mul(rank, narrow), shift)])
                return code.load(place, vector)

            middle = code.load(builder.gep(centres, [shift]), vector)
            beyond = cgutils.alloca_once(builder, vector)
            first, last = (cgutils.alloca_once_value(builder, one) for _ in range(2))
            whole = builder.sitofp(outside, code.number)
            number = builder.insert_element(ir.Constant(vector, ir.Undefined), whole, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
            builder.store(builder.shuffle_vector(number, number, zeros), beyond)
            builder.store(value(_index(0)), first)
            builder.store(value(builder.sub(many, _index(1))), last)
            with code.over(outside, 1) as (rank, _):
                other = value(builder.add(rank, many))
                too_low = builder.fcmp_ordered(">", builder.fsub(middle, value(rank)), builder.fsub(other, middle))
                following = value(builder.add(rank, _index(1)))
                old = builder.load(beyond)
                for slot, new in ((first, following), (last, other), (beyond, builder.fsub(old, one))):
                    builder.store(builder.select(too_low, new, builder.load(slot)), slot)
            for slot, result in ((first, lows), (last, highs), (beyond, numbers)):
                code.store(builder.load(slot), builder.gep(result, [shift]))
        return code.nothing()

    return types.void(tile, _I, _I, centre, low, high, above, _I), generate
