"""Steps on made-up samples before a run: what a module cannot do, all ranks find out together."""

import math
from typing import Any

import torch
from torch import Tensor

from mpicoded.algorithms.models.modules import constants, forked
from mpicoded.algorithms.models.network import Network, usual_loss
from mpicoded.errors import InputError, one_line

_CLOSE = 1e-3  # losses of float32, computed in another order


def check(network: Network, form: tuple[int, ...], classes: int) -> None:
    """Raise InputError where a training step on two samples, or on one, fails or cannot be repeated, or ties samples.

    ``form``: the shape of a sample. With 0 classes it is a regression.
    """
    before = {name: each.clone() for name, each in constants(network.module).items()}
    network.module.train()
    with forked():
        first = _step(network, 2, form, classes)
        _check_constants(network, before)
        _step(network, 1, form, classes)
        again = _step(network, 2, form, classes)
        _check_alone(network, form, classes)
    if not all(map(_same, first, again)):
        raise InputError(
            f"{network.source} does not compute the same again from the same seed: it keeps a state, or draws from "
            "another generator than PyTorch's own"
        )


def _check_constants(network: Network, before: dict[str, Tensor]) -> None:
    after = constants(network.module)
    for name in before | after:
        if name not in before or name not in after or not _same(before[name], after[name]):
            raise InputError(
                f"{network.source}: a forward pass changes the buffer {name}, of which devices have no common one; use "
                "layers without a state, such as torch.nn.GroupNorm"
            )


def _check_alone(network: Network, form: tuple[int, ...], classes: int) -> None:
    """Raise InputError where the loss of a sample depends on what passes beside it, as in evaluation."""
    network.module.eval()
    x, y = _samples(network, 3, form, classes)
    with torch.no_grad():

        def losses(some: slice, seed: int) -> Tensor:
            network.seed(seed)
            try:
                return network.loss(network.module(x[some]), y[some])
            except Exception as error:  # foreign code
                why = f"{type(error).__name__}: {one_line(error)}"
                raise InputError(f"{network.source} fails in evaluation: {why}") from None

        together, others = losses(slice(3), 0), losses(slice(3), 1)
        if not _same(together, others):
            return  # it draws, in evaluation too, and for other samples something else
        alone = torch.cat([losses(slice(k, k + 1), 0) for k in range(3)])
    if bool(((together - alone).abs() > _CLOSE * (1 + alone.abs())).any()):
        raise InputError(
            f"{network.source}: the loss of a sample depends on the samples that pass with it, as with batch "
            "normalisation, but large subsets pass in pieces; use layers such as torch.nn.GroupNorm"
        )


def _samples(network: Network, count: int, form: tuple[int, ...], classes: int) -> tuple[Tensor, Tensor]:
    options: Any = {"dtype": network.leaves[0].dtype, "device": network.leaves[0].device}
    x = torch.linspace(0, 1, count * math.prod(form), **options).reshape(count, *form)
    return x, torch.arange(count, device=x.device) % classes if classes else torch.zeros(count, **options)


def _step(network: Network, count: int, form: tuple[int, ...], classes: int) -> tuple[Tensor, ...]:
    """The losses and the gradient of some samples."""
    x, y = _samples(network, count, form, classes)
    try:
        network.seed(0)
        outputs = network.module(x)
        if network.loss is usual_loss:
            _check_outputs(network, outputs, count, classes)
        losses = network.loss(outputs, y)
        found = network.backward(losses.sum())
    except InputError:
        raise
    except Exception as error:  # foreign code
        some, why = f"{count} samples" if count > 1 else "1 sample", f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{network.source} fails on {some} of shape {list(form)}: {why}") from None
    if losses.shape != (count,):
        shape = list(losses.shape)
        raise InputError(f"{network.source}: loss must return one number for each of {count} samples, got {shape}")
    return (losses.detach(), *found)


def _check_outputs(network: Network, outputs: Any, count: int, classes: int) -> None:
    allowed = [(count, classes)] if classes else [(count,), (count, 1)]
    if not isinstance(outputs, Tensor) or outputs.shape not in allowed:
        got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        task = f"{classes} classes" if classes else "a regression"
        need = f"shape {list(allowed[0])} for {count} samples of {task}"
        raise InputError(f"{network.source} must return {need}, got {got}")


def _same(one: Tensor, other: Tensor) -> bool:
    """Bit by bit, or both not numbers."""
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
