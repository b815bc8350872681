"""PyTorch modules as models. PyTorch itself is imported where one works, and nowhere else."""

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
import numpy as np

from mpicoded.algorithms.component import Count, PositiveCount
from mpicoded.algorithms.models.base import Gradients, Model, Samples, Targets, Vector, Weights
from mpicoded.algorithms.shapes import Array, Float, Int, UInt64
from mpicoded.errors import InputError

if TYPE_CHECKING:
    from types import ModuleType

    from mpicoded.algorithms.models.modules import About, Source
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
    else is a constant that each rank makes alike; a module that changes one, as batch normalisation does, is refused.
    Dropout and augmentation (``flip``: left for right, ``shift``: by up to so many pixels, in training) are drawn by
    seed, round and subset.

    ``batched``: compute subsets side by side (``torch.func.vmap``), by default on GPUs only: faster where subsets are
    small, but the last bits of a gradient then depend on which others a rank computes. Modules that draw are never.
    """

    source: ClassVar[str] = "textbook"
    cost: ClassVar[str] = "one forward and one backward pass for each subset computed"
    draws: ClassVar[bool] = True
    resizes: ClassVar[bool] = False
    module: Annotated[str, msgspec.Meta(pattern=_SPEC)]  # package.module:factory
    folder: str | None = None  # where it is looked for first; unset: the config's folder, if it is there
    options: dict[str, Option] = {}  # noqa: RUF012  msgspec makes each a new one
    """what the factory is called with: numbers, texts, lists."""
    shape: tuple[PositiveCount, ...] | None = None  # how a sample reaches the module; unset: flat
    flip: bool = False  # images, left for right, half of the time in training
    shift: Count = 0  # images, by up to so many pixels in training
    batched: bool | None = None  # compute subsets side by side; unset: on a GPU only

    def __hash__(self) -> int:  # options is a dict, which has none
        return hash((self.module, self.folder, json.dumps(self.options, sort_keys=True), self.shape))

    @property
    def imports(self) -> str:
        """What code it runs."""
        where = f" of {self.folder!r}" if self.folder else ""
        return f"{self.module}{where}" + (f" with {self.options!r}" if self.options else "")

    @property
    def rounds_by_company(self) -> bool:
        """Where subsets are computed side by side on a CPU."""
        return self.batched is True

    def fingerprint(self) -> str:
        """Tells versions of the factory's file apart, and what is constant in a module."""
        return self._about().fingerprint

    def check(self, features: int, classes: int, dtype: str) -> None:
        """Raise InputError where the module does not come, take samples of this form, or make what the loss needs."""
        if self.shape is not None and math.prod(self.shape) != features:
            raise InputError(f"model torch: shape {list(self.shape)} has not the {features} numbers of a sample")
        if (self.flip or self.shift) and (self.shape is None or len(self.shape) != 3):
            got = None if self.shape is None else list(self.shape)
            raise InputError(f"model torch: flip and shift need shape = [channels, height, width], got {got}")
        found = self._network(dtype)
        from mpicoded.algorithms.models import trial

        trial.check(found, self._form(features), classes)

    def dim(self, features: int, classes: int) -> int:
        """Parameters that want gradients."""
        return self._about().dim

    def parts(self, features: int, classes: int) -> dict[str, tuple[int, ...]]:
        """As in the module's state dict."""
        return self._about().parts

    def complete(self) -> bool:
        """Whether the state dict holds nothing else."""
        return self._about().complete

    def initial(self, features: int, classes: int, rng: np.random.Generator) -> Float[Array, " dim"]:
        """As the factory starts them, with random numbers seeded."""
        found: Float[Array, " dim"] = self._modules().start(self._source(), int(rng.integers(2**63)))
        return found

    def state(self, parameters: Vector) -> dict[str, Any]:
        """The whole state dict as arrays of NumPy's, with these parameters in it."""
        found: dict[str, Any] = self._modules().state(self._source(), parameters)
        return found

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

    def _source(self) -> "Source":
        found: Source = self._modules().Source(self.module, self.folder, json.dumps(self.options, sort_keys=True))
        return found

    def _about(self) -> "About":
        found: About = self._modules().about(self._source())
        return found

    def _network(self, dtype: str, processor: str = "cpu") -> "Network":
        source = self._source()
        from mpicoded.algorithms.models.network import network

        return network(source, dtype, processor)

    def _modules(self) -> "ModuleType":
        """Where PyTorch is imported. Raises InputError where it cannot be."""
        try:
            from mpicoded.algorithms.models import modules
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
            why = 'it is not installed; pip install "mpicoded[torch]" brings it' if missing else str(error)
            raise InputError(f"model torch needs PyTorch: {why}") from None
        return modules
