"""What models are: losses and gradients, batched over subsets of equal padded size.

Subset k's loss is f_k = sum over its samples of weight × (sample loss). The caller chooses the weights so that
F, the mean of the f_k, is the average over all samples; without weights f_k is the mean over the
subset's samples. Padded samples come last and have weight zero.

Samples may lie on a GPU (see ``processors``); parameters, targets, weights and ``out`` are where the samples are.
"""

from typing import ClassVar, Literal

import numpy as np

from mpicoded.algorithms.component import Component
from mpicoded.algorithms.shapes import Array, Float, Int, Shaped

Task = Literal["regression", "classification"]
Vector = Float[Array, " dim"]
Samples = Float[Array, "subsets samples features"]
Targets = Shaped[Array, "subsets samples"]
Weights = Float[Array, "subsets samples"]
Gradients = Float[Array, "subsets dim"]


class Model(Component):
    """Base of the models. Parameters are one flat vector."""

    task: ClassVar[Task | None] = None
    """What it is for; None: for either, as the data say."""
    draws: ClassVar[bool] = False
    """Whether gradients of training are told ``seeds``."""
    resizes: ClassVar[bool] = True
    """Whether it takes any number of features."""

    @property
    def imports(self) -> str:
        """The code that it runs beside mpicoded's: whoever resumes a run has to say that it may."""
        return ""

    @property
    def rounds_by_company(self) -> bool:
        """Whether the last bits of a gradient depend on which others are computed beside it, also on a CPU."""
        return False

    def fingerprint(self) -> str:
        """Tells versions of that code apart."""
        return ""

    def dim(self, features: int, classes: int) -> int:
        """Number of parameters."""
        raise NotImplementedError

    def parts(self, features: int, classes: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the arrays that the vector is made of, row by row and one after another."""
        return {"parameters": (self.dim(features, classes),)}

    def complete(self) -> bool:
        """Whether these arrays are all that other programs need."""
        return True

    def check(self, features: int, classes: int, dtype: str) -> None:
        """Raise InputError where it cannot work on samples of so many numbers; with 0 classes it is a regression."""

    def initial(self, features: int, classes: int, rng: np.random.Generator) -> Float[Array, " dim"]:
        """Where training starts: zero, for the convex models."""
        return np.zeros(self.dim(features, classes))

    def losses(
        self, parameters: Vector, x: Samples, y: Targets, weights: Weights | None = None
    ) -> Float[Array, " subsets"]:
        """The loss of each subset."""
        raise NotImplementedError

    def gradients(
        self, parameters: Vector, x: Samples, y: Targets, weights: Weights | None = None, out: Gradients | None = None
    ) -> Gradients:
        """The gradient of each subset's loss.

        Models that draw take ``seeds``, too: None or a random word for each subset, the same wherever it is computed.
        """
        raise NotImplementedError

    def wrong_targets(self, y: Targets, classes: int) -> Targets:
        """Targets as the attack ``label_flip`` has them: -y, or label L - 1 - y of L classes."""
        return classes - 1 - y if classes else -y

    def correct(self, parameters: Vector, x: Samples, y: Targets) -> Int[Array, "subsets samples"]:
        """1 where the predicted class is the label (classification only)."""
        raise NotImplementedError
