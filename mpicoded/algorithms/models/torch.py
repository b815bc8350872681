"""PyTorch modules as models. PyTorch itself is imported where one works, and nowhere else."""

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
import numpy as np

from mpicoded.algorithms.component import Count, PositiveCount
from mpicoded.algorithms.models.base import Gradients, Model, Samples, Targets, Vector, Weights
from mpicoded.algorithms.shapes import Array, Float, Int, UInt64
from mpicoded.errors import InputError

if TYPE_CHECKING:
    from mpicoded.algorithms.models.network import Network

_SPEC = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
Option = bool | int | float | str | list[int | float | str | bool]


class Torch(Model):
    """A PyTorch module: one of ``mpicoded.networks``, or what a factory of the user's own makes.

    ``module`` is ``package.module:factory``; the factory gets ``options`` and returns a ``torch.nn.Module``. It is
    looked for in ``folder`` first, which is the config's where it lies there. Samples reach the module as
    (samples, features), or with ``shape`` as (samples, *shape). The loss of a sample is cross-entropy of the logits,
    half the squared error in a regression, or what the module's own ``loss(outputs, targets)`` says, one number for
    each. The flat vector holds the parameters that want gradients, in the order of ``named_parameters()``. All
    else is a constant that each rank makes alike; batch normalisation takes the statistics of the subset (or
    mini-batch) at hand, in training and evaluation. Dropout and augmentation (``flip``: left for right, ``shift``: by
    up to so many pixels, in training) are drawn by seed, round and subset.

    ``batched``: compute subsets side by side (``torch.func.vmap``), by default on GPUs only: faster where subsets are
    small, but the last bits of a gradient then depend on which others a rank computes. Modules that draw are never.
    """

    source: ClassVar[str] = "textbook"
    cost: ClassVar[str] = "one forward and one backward pass for each subset computed"
    draws: ClassVar[bool] = True
    module: Annotated[str, msgspec.Meta(pattern=_SPEC)]
    folder: str | None = None
    options: dict[str, Option] = {}  # noqa: RUF012  msgspec makes each a new one
    shape: tuple[PositiveCount, ...] | None = None
    flip: bool = False
    shift: Count = 0
    batched: bool | None = None

    @property
    def imports(self) -> str:
        """What code it runs."""
        return self.module + (f" of {self.folder}" if self.folder else "")

    @property
    def rounds_by_company(self) -> bool:
        """Where subsets are computed side by side on a CPU."""
        return self.batched is True

    def fingerprint(self) -> str:
        """Tells versions of the factory's file apart."""
        return self._network().fingerprint

    def check(self, features: int, classes: int, dtype: str) -> None:
        """Raise InputError where the module does not come, take samples of this form, or make what the loss needs."""
        if self.shape is not None and np.prod(self.shape) != features:
            raise InputError(f"model torch: shape {list(self.shape)} has not the {features} numbers of a sample")
        if (self.flip or self.shift) and (self.shape is None or len(self.shape) < 2):
            raise InputError(f"model torch: flip and shift need shape = [channels, height, width], got {self.shape}")
        self._network(dtype).check(self._form(features), classes)

    def dim(self, features: int, classes: int) -> int:
        """Parameters that want gradients."""
        return self._network().dim

    def parts(self, features: int, classes: int) -> dict[str, tuple[int, ...]]:
        """As in the module's state dict."""
        return self._network().parts

    def initial(self, features: int, classes: int, rng: np.random.Generator) -> Float[Array, " dim"]:
        """As the factory starts them, with PyTorch's random numbers seeded."""
        return self._network().start(int(rng.integers(2**63)))

    def losses(
        self, parameters: Vector, x: Samples, y: Targets, weights: Weights | None = None
    ) -> Float[Array, " subsets"]:
        """Weighted losses, as in evaluation."""
        return self._for(x).losses(parameters, self._shaped(x), y, weights)

    def gradients(
        self,
        parameters: Vector,
        x: Samples,
        y: Targets,
        weights: Weights | None = None,
        out: Gradients | None = None,
        seeds: UInt64[np.ndarray, " subsets"] | None = None,
    ) -> Gradients:
        """Backpropagation, subset by subset or side by side; without ``seeds`` as in evaluation."""
        batched = not isinstance(x, np.ndarray) if self.batched is None else self.batched
        moves = (self.flip, self.shift) if seeds is not None else (False, 0)
        return self._for(x).gradients(parameters, self._shaped(x), y, weights, out, seeds, batched, moves)

    def correct(self, parameters: Vector, x: Samples, y: Targets) -> Int[Array, "subsets samples"]:
        """1 where the largest output is the label's."""
        return self._for(x).correct(parameters, self._shaped(x), y)

    def _form(self, features: int) -> tuple[int, ...]:
        return (features,) if self.shape is None else self.shape

    def _shaped(self, x: Samples) -> Array:
        return x.reshape(*x.shape[:2], *self._form(x.shape[2]))

    def _for(self, x: Samples) -> "Network":
        return self._network(str(x.dtype), "cpu" if isinstance(x, np.ndarray) else f"cuda:{x.device.id}")

    def _network(self, dtype: str = "float64", processor: str = "cpu") -> "Network":
        try:
            from mpicoded.algorithms.models.network import network
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
            why = 'it is not installed; pip install "mpicoded[torch]" brings it' if missing else str(error)
            raise InputError(f"model torch needs PyTorch: {why}") from None
        options: Any = json.dumps(self.options, sort_keys=True)
        return network(self.module, self.folder, options, dtype, processor)
