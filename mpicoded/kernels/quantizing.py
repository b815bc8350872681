"""Rounding at random and packing, in one pass: what NumPy needs six for."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from mpicoded.kernels.compiling import INDEX, NOTHING, function, index, loop


def quantize(levels_of: Any, random: Any, levels: int, per_word: int, words: Any) -> None:
    """Round coordinates (rows, dim), in units of a level, at random, and pack them as digits into 64-bit words.

    ``random``: (rows, dim) 32-bit words; ``words``: (rows, words), contiguous. Digit level + ``levels`` of base
    2 ``levels`` + 1, the first the lowest of a word.
    """
    rows, dim = levels_of.shape
    if levels_of.size:
        arrays = np.ascontiguousarray(levels_of), np.ascontiguousarray(random), words
        _compiled(levels_of.dtype)(*(array.ctypes.data for array in arrays), rows, dim, levels, per_word)


@functools.cache
def _compiled(dtype: np.dtype[Any]) -> Callable[..., None]:
    double, word, half = ir.DoubleType(), ir.IntType(64), ir.IntType(32)
    number = double if dtype.itemsize == 8 else ir.FloatType()
    module = ir.Module()
    arrays = [kind.as_pointer() for kind in (number, half, word)]
    main = ir.Function(module, ir.FunctionType(NOTHING, [*arrays, *[INDEX] * 4]), "quantize")
    floor = module.declare_intrinsic("llvm.floor", [double])
    units, random, words, rows, dim, levels, per_word = main.args
    b = ir.IRBuilder(main.append_basic_block())
    base = b.add(b.mul(levels, index(2)), index(1))
    in_row = b.udiv(b.sub(b.add(dim, per_word), index(1)), per_word)
    with loop(b, rows, 1) as (row, _):
        start = b.mul(row, dim)
        with loop(b, in_row, 1) as (number_of_word, _):
            first = b.mul(number_of_word, per_word)
            left = b.sub(dim, first)
            digits = b.select(b.icmp_signed("<", left, per_word), left, per_word)
            after = b.add(start, b.add(first, digits))
            with loop(b, digits, 1, carried=[index(0)]) as (digit, value):
                place = b.sub(b.sub(after, digit), index(1))  # the last digit first
                unit = b.load(b.gep(units, [place]))
                unit = unit if number == double else b.fpext(unit, double)
                uniform = b.fmul(b.uitofp(b.load(b.gep(random, [place])), double), ir.Constant(double, 2.0**-32))
                level = b.fptosi(b.call(floor, [b.fadd(uniform, unit)]), word)
                value[0] = b.add(b.mul(value[0], base), b.add(level, levels))
            b.store(value[0], b.gep(words, [b.add(b.mul(row, in_row), number_of_word)]))
    b.ret_void()
    return function(module, "quantize")
