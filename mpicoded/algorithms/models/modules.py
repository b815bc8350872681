"""Modules as their factories make them, and what can be said of one before it works."""

import functools
import hashlib
import json
import random
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mpicoded.algorithms.models.factory import factory
from mpicoded.algorithms.shapes import Float
from mpicoded.errors import InputError, one_line

_made: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


class Source(NamedTuple):
    """What a config says of a module."""

    module: str
    folder: str | None
    options: str  # as JSON

    def __str__(self) -> str:
        return f"model torch: {self.module}"


class About(NamedTuple):
    """What a module is made of."""

    parts: dict[str, tuple[int, ...]]  # its parameters that want gradients
    dim: int
    complete: bool  # whether these are all of its state
    fingerprint: str  # of the factory's file, and of what is constant


def made(source: Source, seed: int) -> nn.Module:
    """A new module, everybody's generator of random numbers being seeded. Raises InputError."""
    make, _ = factory(source.module, source.folder)
    try:
        with forked(seed):
            module = make(**json.loads(source.options))
        lazy = isinstance(module, nn.Module) and any(map(nn.parameter.is_lazy, module.parameters()))
    except Exception as error:  # foreign code
        raise InputError(f"{source} fails: {type(error).__name__}: {one_line(error)}") from None
    if not isinstance(module, nn.Module):
        raise InputError(f"{source} must return a torch.nn.Module, got {type(module).__name__}")
    if module in _made:
        raise InputError(f"{source} returns the same module each time: let it make a new one")
    _made.add(module)
    if lazy:
        raise InputError(f"{source} has lazy layers, whose shapes are known in the first pass only: give them")
    for name, each in module.named_parameters():
        if each.is_complex():
            raise InputError(f"{source}: parameter {name} is complex, which a vector of real numbers cannot hold")
    if not wanted(module):
        raise InputError(f"{source} has no parameters that want gradients")
    return module


def wanted(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: each for name, each in module.named_parameters() if each.requires_grad}


def constants(module: nn.Module) -> dict[str, Tensor]:
    """What is not trained, by name."""
    fixed = {name: each.detach() for name, each in module.named_parameters() if not each.requires_grad}
    return fixed | dict(module.named_buffers())


@functools.lru_cache(maxsize=8)
def about(source: Source) -> About:
    """Without keeping the module."""
    module, (_, checksum) = made(source, 0), factory(source.module, source.folder)
    trained = wanted(module)
    parts = {name: tuple(each.shape) for name, each in trained.items()}
    found = hashlib.sha256(checksum.encode())
    for name, each in constants(module).items():
        found.update(name.encode())
        found.update(each.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    dim = sum(each.numel() for each in trained.values())
    return About(parts, dim, set(module.state_dict()) == set(parts), found.hexdigest())


def start(source: Source, seed: int) -> Float[np.ndarray, " dim"]:
    """The parameters of a module that is made with this seed."""
    parts = [each.detach().reshape(-1) for each in wanted(made(source, seed)).values()]
    return torch.cat(parts).to(torch.float64).numpy()


def state(source: Source, parameters: Float[np.ndarray, " dim"]) -> dict[str, np.ndarray]:
    """The whole state dict, with these parameters in it, in their type."""
    module, flat = made(source, 0), torch.from_numpy(parameters)
    module = module.to(flat.dtype)
    with torch.no_grad():
        nn.utils.vector_to_parameters(flat, wanted(module).values())
    return {name: each.detach().numpy() for name, each in module.state_dict().items()}


@contextmanager
def forked(seed: int | None = None) -> Iterator[None]:
    """Generators are as before behind this block; within it, Python's, NumPy's and PyTorch's begin at a seed."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  what foreign code uses
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
