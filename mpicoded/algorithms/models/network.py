"""A PyTorch module as a function of one flat vector. Where a model is named ``torch`` every rank loads this."""

import functools
import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from mpicoded.algorithms.arrays import namespace
from mpicoded.algorithms.models.factory import factory
from mpicoded.algorithms.shapes import Array, Float, Int, Shaped, UInt64
from mpicoded.errors import InputError, one_line


@functools.lru_cache(maxsize=8)
def network(module: str, folder: str | None, options: str, dtype: str, processor: str) -> "Network":
    """The network of a factory. Raises InputError where there is none."""
    make, fingerprint = factory(module, folder)
    return Network(module, functools.partial(make, **json.loads(options)), fingerprint, dtype, processor)


class Network:
    """A module that computes for many subsets, and room for its parameters.

    On a CPU each subset is a pass of its own over copies of its own, without padding: so its gradient has the same bits
    wherever it is computed.
    """

    def __init__(self, name: str, make: Callable[[], Any], fingerprint: str, dtype: str, processor: str) -> None:
        self._what, self._make, self.fingerprint = f"model torch: {name}", make, fingerprint
        self._module = self._made(0).to(getattr(torch, dtype)).to(processor)
        wanted = {name: each for name, each in self._module.named_parameters() if each.requires_grad}
        if not wanted:
            raise InputError(f"{self._what} has no parameters that want gradients")
        self.parts = {key: tuple(each.shape) for key, each in wanted.items()}
        self._leaves = list(wanted.values())
        self._edges = np.cumsum([0, *(each.numel() for each in self._leaves)]).tolist()
        self.dim: int = self._edges[-1]
        loss = getattr(self._module, "loss", None)
        self._loss: Callable[[Tensor, Tensor], Tensor] = loss if callable(loss) else _usual_loss
        self._can_batch = not _forget_statistics(self._module)  # padding would be in the statistics

    def start(self, seed: int) -> Float[np.ndarray, " dim"]:
        """The parameters of a module that is made with PyTorch's generator at this seed."""
        parts = [each.detach().reshape(-1) for each in self._made(seed).parameters() if each.requires_grad]
        return torch.cat(parts).to(torch.float64).numpy()

    def check(self, form: tuple[int, ...], classes: int) -> None:
        """Raise InputError where a training step on two samples fails, or changes anything but the parameters."""
        count, before = 2, {name: each.clone() for name, each in self._module.named_buffers()}
        options: Any = {"dtype": self._leaves[0].dtype, "device": self._leaves[0].device}
        x = torch.linspace(0, 1, count * math.prod(form), **options).reshape(count, *form)
        y = torch.arange(count, device=x.device) if classes else torch.zeros(count, **options)
        try:
            with _forked():
                self._module.train()
                outputs = self._module(x)
                if self._loss is _usual_loss:
                    self._check_outputs(outputs, count, classes)
                losses = self._loss(outputs, y)
                self._backward(losses.sum())
        except InputError:
            raise
        except Exception as error:  # foreign code
            why = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"{self._what} fails on {count} samples of shape {list(form)}: {why}") from None
        if losses.shape != (count,):
            shape = list(losses.shape)
            raise InputError(f"{self._what}: loss must return one number for each of {count} samples, got {shape}")
        for name, each in self._module.named_buffers():
            if not torch.equal(each, before[name]):
                raise InputError(
                    f"{self._what}: a forward pass changes the buffer {name}, of which devices have no common one; use "
                    "a layer without a state, such as torch.nn.GroupNorm"
                )

    def _check_outputs(self, outputs: Any, count: int, classes: int) -> None:
        allowed = [(count, classes)] if classes else [(count,), (count, 1)]
        if not isinstance(outputs, Tensor) or outputs.shape not in allowed:
            got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            task = f"{classes} classes" if classes else "a regression"
            need = f"shape {list(allowed[0])} for {count} samples of {task}"
            raise InputError(f"{self._what} must return {need}, got {got}")

    def losses(
        self,
        parameters: Float[Array, " dim"],
        x: Float[Array, "subsets samples *form"],
        y: Shaped[Array, "subsets samples"],
        weights: Float[Array, "subsets samples"] | None,
    ) -> Float[Array, " subsets"]:
        """The weighted loss of each subset."""
        self._load(parameters)
        self._module.eval()
        with torch.no_grad():
            found = [(each * self._loss(self._module(a), b)).sum() for a, b, each in self._subsets(x, y, weights)]
        return _array(torch.stack(found), x)

    def correct(
        self,
        parameters: Float[Array, " dim"],
        x: Float[Array, "subsets samples *form"],
        y: Shaped[Array, "subsets samples"],
    ) -> Int[Array, "subsets samples"]:
        """1 where the largest output is the label's."""
        self._load(parameters)
        self._module.eval()
        with torch.no_grad():
            found = [self._module(a).argmax(dim=-1) == b for a, b, _ in self._subsets(x, y, None)]
        return _array(torch.stack(found).to(torch.int64), x)

    def gradients(
        self,
        parameters: Float[Array, " dim"],
        x: Float[Array, "subsets samples *form"],
        y: Shaped[Array, "subsets samples"],
        weights: Float[Array, "subsets samples"] | None,
        out: Float[Array, "subsets dim"] | None,
        seeds: UInt64[np.ndarray, " subsets"] | None,
        batched: bool,
        moves: tuple[bool, int],
    ) -> Float[Array, "subsets dim"]:
        """The gradient of each subset's weighted loss; as in training where there are ``seeds``."""
        if out is None:
            out = namespace(x).empty((x.shape[0], self.dim), dtype=x.dtype, device=x.device)
        found = _tensor(out)
        self._load(parameters)
        self._module.train(seeds is not None)
        if batched and not any(moves) and self._can_batch and self._side_by_side(found, x, y, weights):
            return out
        with _forked() if seeds is not None else nullcontext():
            for k, (a, b, each) in enumerate(self._subsets(x, y, weights)):
                if seeds is not None:
                    self._seed(int(seeds[k]))
                    a = _moved(a, *moves)
                parts = self._backward((each * self._loss(self._module(a), b)).sum())
                for part, (start, stop) in zip(parts, pairwise(self._edges), strict=True):
                    found[k, start:stop] = part.reshape(-1)
        return out

    def _side_by_side(self, found: Tensor, x: Array, y: Array, weights: Array | None) -> bool:
        """All subsets in one pass; whether the module can."""
        each = torch.full(y.shape, 1 / y.shape[1], dtype=found.dtype, device=found.device)
        each = each if weights is None else _tensor(weights)

        def loss(leaves: dict[str, Tensor], a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
            return (weight * self._loss(functional_call(self._module, leaves, (a,)), b)).sum()

        leaves = {name: leaf.detach() for name, leaf in zip(self.parts, self._leaves, strict=True)}
        try:
            parts = vmap(grad(loss), in_dims=(None, 0, 0, 0))(leaves, _tensor(x), _tensor(y), each)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self._can_batch = False  # the module draws, or asks what its numbers are
            return False
        for part, (start, stop) in zip(parts.values(), pairwise(self._edges), strict=True):
            found[:, start:stop] = part.reshape(len(found), -1)
        return True

    def _seed(self, seed: int) -> None:
        """Not ``torch.manual_seed``, which looks for GPUs each time."""
        torch.default_generator.manual_seed(seed)
        if (where := self._leaves[0].device).type == "cuda":
            torch.cuda.default_generators[where.index].manual_seed(seed)

    def _backward(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, self._leaves, allow_unused=True, materialize_grads=True)

    def _load(self, parameters: Float[Array, " dim"]) -> None:
        """Into the module, whose parameters lie in PyTorch's memory: how they are aligned there is always the same."""
        flat = _tensor(parameters)
        with torch.no_grad():
            for leaf, (start, stop) in zip(self._leaves, pairwise(self._edges), strict=True):
                leaf.copy_(flat[start:stop].view(leaf.shape))

    def _subsets(self, x: Array, y: Array, weights: Array | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Samples, targets and weights of each subset without its padding; samples are copied, for their alignment."""
        samples, targets = _tensor(x), _tensor(y)
        if weights is None:
            each = torch.full((x.shape[1],), 1 / x.shape[1], dtype=samples.dtype, device=samples.device)
            yield from ((a.clone(), b, each) for a, b in zip(samples, targets, strict=True))
            return
        told = _tensor(weights)
        counts = (told > 0).sum(dim=1).tolist()
        for a, b, each, count in zip(samples, targets, told, counts, strict=True):
            yield a[:count].clone(), b[:count], each[:count].clone()

    def _made(self, seed: int) -> nn.Module:
        try:
            with _forked():
                torch.manual_seed(seed)
                module = self._make()
        except Exception as error:  # foreign code
            raise InputError(f"{self._what} fails: {type(error).__name__}: {one_line(error)}") from None
        if not isinstance(module, nn.Module):
            raise InputError(f"{self._what} must return a torch.nn.Module, got {type(module).__name__}")
        return module


def _usual_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each sample: cross-entropy where targets are classes, else half the squared error."""
    if targets.is_floating_point():
        return 0.5 * (outputs.reshape(targets.shape) - targets) ** 2
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def _forget_statistics(module: nn.Module) -> bool:
    """Have batch normalisation take the statistics of what it gets; whether there is any."""
    found = [each for each in module.modules() if isinstance(each, _BatchNorm)]
    for each in found:
        each.track_running_stats = False
        each.running_mean = each.running_var = each.num_batches_tracked = None
    return bool(found)


def _moved(images: Tensor, flip: bool, shift: int) -> Tensor:
    """Images (samples, channels, height, width), some turned left for right, and moved by up to so many pixels."""
    count, _, height, width = images.shape if flip or shift else (0, 0, 0, 0)
    if flip:
        images = torch.where(torch.rand(count, 1, 1, 1).to(images.device) < 0.5, images.flip(-1), images)
    if shift:
        down, right = torch.randint(2 * shift + 1, (2, count, 1)).to(images.device)
        rows, columns = (torch.arange(size, device=images.device) + by for size, by in ((height, down), (width, right)))
        wide = nn.functional.pad(images, (shift, shift, shift, shift))
        sample = torch.arange(count, device=images.device)[:, None, None]
        images = wide[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images


@contextmanager
def _forked() -> Iterator[None]:
    """PyTorch's generator is as before behind this block."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _tensor(array: Array) -> Tensor:
    """The same memory as a tensor."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.utils.dlpack.from_dlpack(array)


def _array(tensor: Tensor, like: Array) -> Array:
    """The same memory as an array of the library of another."""
    return tensor.numpy() if isinstance(like, np.ndarray) else namespace(like).from_dlpack(tensor)


with warnings.catch_warnings():  # said once: what is read only here is not written to
    warnings.simplefilter("ignore")
    torch.from_numpy(np.broadcast_to(np.zeros(1), 1))
