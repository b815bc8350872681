"""How loops that are written in LLVM's language become functions of this process."""

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

INDEX = ir.IntType(64)
NOTHING = ir.VoidType()


def index(value: int) -> ir.Constant:
    """A number that counts."""
    return ir.Constant(INDEX, value)


@contextmanager
def loop(builder: ir.IRBuilder, end: Any, step: int, carried: Sequence[Any] = ()) -> Iterator[Any]:
    """A loop that is passed at least once: its index, and values that each pass finds as the one before left them.

    They come as a list, whose members the pass replaces; after the loop it holds what the last one left.
    """
    begin = index(0)
    before, body = builder.block, builder.append_basic_block()
    builder.branch(body)
    builder.position_at_end(body)
    place, *slots = phis = [builder.phi(value.type) for value in (begin, *carried)]
    values = list(slots)
    yield place, values
    following = builder.add(place, index(step))
    for phi, first, last in zip(phis, (begin, *carried), (following, *values), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, builder.block)
    after = builder.append_basic_block()
    builder.cbranch(builder.icmp_signed("<", following, end), body, after)
    builder.position_at_end(after)


@functools.cache
def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM knows none of this kind of processor: what all of them can do is enough
        features = ""
    return llvm.Target.from_default_triple(), llvm.get_host_cpu_name(), features


def function(module: ir.Module, name: str) -> Callable[..., None]:
    """The module's function of this name, whose arguments are addresses and 64-bit integers; it lets go of the GIL."""
    target, processor, features = _target()
    module.triple = target.triple
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    # No pass over the code but those that make instructions of it: it is written as it shall be.
    engine = llvm.create_mcjit_compiler(parsed, target.create_target_machine(cpu=processor, features=features, opt=3))
    engine.finalize_object()
    arguments = module.get_global(name).args
    made = ctypes.CFUNCTYPE(None, *[ctypes.c_int64 if a.type == INDEX else ctypes.c_void_p for a in arguments])
    found: Callable[..., None] = made(engine.get_function_address(name))
    found.engine = engine  # type: ignore[attr-defined]  # it holds the code
    return found
