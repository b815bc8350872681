"""A PyTorch module as a function of one flat vector. Where a model is named ``torch`` every rank loads this."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from mpicoded.algorithms.arrays import namespace
from mpicoded.algorithms.models.modules import Source, forked, made, wanted
from mpicoded.algorithms.shapes import Array, Float, Int, Shaped, UInt64

_PIECE = 256
"""Samples of a subset that pass the module together: what lies between its layers then stays in cache, or nearly."""


@functools.lru_cache(maxsize=4)
def network(source: Source, dtype: str, processor: str) -> "Network":
    """The network of a factory, as it works. Raises InputError where there is none."""
    return Network(source, dtype, processor)


class Network:
    """A module that computes for many subsets, and room for its parameters.

    On a CPU each subset passes by itself, without padding, in copies of its own: so its gradient has the same bits
    wherever it is computed. Large ones pass in pieces.
    """

    def __init__(self, source: Source, dtype: str, processor: str) -> None:
        self.source = source
        self.module = made(source, 0).to(getattr(torch, dtype)).to(processor)
        self._names, self.leaves = zip(*wanted(self.module).items(), strict=True)
        self._edges = np.cumsum([0, *(each.numel() for each in self.leaves)]).tolist()
        loss = getattr(self.module, "loss", None)
        self.loss: Callable[[Tensor, Tensor], Tensor] = loss if callable(loss) else usual_loss
        self._can_batch = True

    def losses(
        self,
        parameters: Float[Array, " dim"],
        x: Float[Array, "subsets samples *form"],
        y: Shaped[Array, "subsets samples"],
        weights: Float[Array, "subsets samples"] | None,
    ) -> Float[Array, " subsets"]:
        """The weighted loss of each subset."""
        self._load(parameters)
        self.module.eval()
        found = torch.zeros(len(x), dtype=self.leaves[0].dtype, device=self.leaves[0].device)
        with torch.no_grad(), forked():
            for k, _, a, b, each in self._pieces(x, y, weights):
                found[k] += (each * self.loss(self.module(a), b)).sum()
        return _array(found, x)

    def correct(
        self,
        parameters: Float[Array, " dim"],
        x: Float[Array, "subsets samples *form"],
        y: Shaped[Array, "subsets samples"],
    ) -> Int[Array, "subsets samples"]:
        """1 where the largest output is the label's."""
        self._load(parameters)
        self.module.eval()
        found = torch.zeros(y.shape, dtype=torch.int64, device=self.leaves[0].device)
        with torch.no_grad(), forked():
            for k, place, a, b, _ in self._pieces(x, y, None):
                found[k, place] = (self.module(a).argmax(dim=-1) == b).to(torch.int64)
        return _array(found, x)

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
            out = namespace(x).empty((x.shape[0], self._edges[-1]), dtype=x.dtype, device=x.device)
        found = _tensor(out)
        self._load(parameters)
        self.module.train(seeds is not None)
        if batched and not any(moves) and self._can_batch and self._side_by_side(found, x, y, weights):
            return out
        with forked():
            for k, place, a, b, each in self._pieces(x, y, weights, seeds):
                parts = self.backward((each * self.loss(self.module(moved(a, *moves)), b)).sum())
                self._add(parts, found[k], place)
        return out

    def _side_by_side(self, found: Tensor, x: Array, y: Array, weights: Array | None) -> bool:
        """All subsets in one pass; whether the module can."""
        each = torch.full(y.shape, 1 / y.shape[1], dtype=found.dtype, device=found.device)
        whole = _tensor(x), _tensor(y), each if weights is None else _tensor(weights)

        def loss(leaves: dict[str, Tensor], a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
            return (weight * self.loss(functional_call(self.module, leaves, (a,)), b)).sum()

        leaves = {name: leaf.detach() for name, leaf in zip(self._names, self.leaves, strict=True)}
        try:
            for place in _places(x.shape[1]):
                parts = vmap(grad(loss), in_dims=(None, 0, 0, 0))(leaves, *(part[:, place] for part in whole))
                self._add(parts.values(), found, place)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self._can_batch = False  # the module draws, or asks what its numbers are
            return False
        return True

    def _add(self, parts: Iterable[Tensor], out: Shaped[Tensor, "*subsets dim"], place: slice) -> None:
        """Gradients by the leaves, of the samples at this place, as flat vectors: the first ones, or added to those."""
        for part, (start, stop) in zip(parts, pairwise(self._edges), strict=True):
            flat = out[..., start:stop]
            if place.start == 0:
                flat.copy_(part.reshape(flat.shape))
            else:
                flat.add_(part.reshape(flat.shape))

    def seed(self, seed: int) -> None:
        """Not ``torch.manual_seed``, which looks for GPUs each time."""
        torch.default_generator.manual_seed(seed)
        if (where := self.leaves[0].device).type == "cuda":
            torch.cuda.default_generators[where.index].manual_seed(seed)

    def backward(self, loss: Tensor) -> tuple[Tensor, ...]:
        """The gradient by each of the leaves; zero by those that the loss does not need."""
        return torch.autograd.grad(loss, self.leaves, allow_unused=True, materialize_grads=True)

    def _load(self, parameters: Float[Array, " dim"]) -> None:
        """Into the module, whose parameters lie in PyTorch's memory: how they are aligned there is always the same."""
        flat = _tensor(parameters)
        with torch.no_grad():
            for leaf, (start, stop) in zip(self.leaves, pairwise(self._edges), strict=True):
                leaf.copy_(flat[start:stop].view(leaf.shape))

    def _pieces(
        self, x: Array, y: Array, weights: Array | None, seeds: UInt64[np.ndarray, " subsets"] | None = None
    ) -> Iterator[tuple[int, slice, Tensor, Tensor, Tensor]]:
        """Samples, targets and weights of each subset without its padding, some at a time, and where they belong.

        Samples are copied, for their alignment. What is drawn is seeded for each subset: some draw in evaluation, too.
        """
        samples, targets = _tensor(x), _tensor(y)
        alike = torch.full(targets.shape[1:], 1 / x.shape[1], dtype=samples.dtype, device=samples.device)
        told = alike.expand(targets.shape) if weights is None else _tensor(weights)
        counts = [x.shape[1]] * len(x) if weights is None else (told > 0).sum(dim=1).tolist()
        for k, count in enumerate(counts):
            self.seed(0 if seeds is None else int(seeds[k]))
            for place in _places(count):
                yield k, place, samples[k, place].clone(), targets[k, place], told[k, place].clone()


def _places(samples: int) -> Iterator[slice]:
    """Where pieces begin and end. One for no samples, too."""
    yield from (slice(start, min(start + _PIECE, samples)) for start in range(0, max(samples, 1), _PIECE))


def usual_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each sample: cross-entropy where targets are classes, else half the squared error."""
    if targets.is_floating_point():
        return 0.5 * (outputs.reshape(targets.shape) - targets) ** 2
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def moved(images: Tensor, flip: bool, shift: int) -> Tensor:
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


def _tensor(array: Array) -> Tensor:
    """The same memory as a tensor."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.utils.dlpack.from_dlpack(array)


def _array(tensor: Tensor, like: Array) -> Array:
    """The same memory as an array of the library of another."""
    return tensor.numpy() if isinstance(like, np.ndarray) else namespace(like).from_dlpack(tensor)


with warnings.catch_warnings():  # said once: what is read only here is not written to
    warnings.simplefilter("ignore")
    torch.from_numpy(np.broadcast_to(np.zeros(1), 1))
