"""Linear and softmax regression.

Each product is one BLAS call *per subset*, of a shape that depends on the subset alone. A product over all
of a rank's subsets would be one call, but its sums would change with the number of ranks.
"""

from typing import ClassVar

import numpy as np

from mpicoded.algorithms.arrays import into, namespace
from mpicoded.algorithms.models.base import Gradients, Model, Samples, Targets, Task, Vector, Weights
from mpicoded.algorithms.shapes import Array, Float, Int


class LinearRegression(Model):
    """Squared error: f_k = sum of weight × (<z, x> - y)^2 / 2, without an intercept (the papers' setting)."""

    source: ClassVar[str] = "experiments of CRA-DL and LAD"
    cost: ClassVar[str] = "samples × features for each subset computed"
    task: ClassVar[Task] = "regression"

    def dim(self, features: int, classes: int) -> int:
        """One parameter for each feature."""
        return features

    def parts(self, features: int, classes: int) -> dict[str, tuple[int, ...]]:
        """As of a layer with one output."""
        return {"weight": (1, features)}

    def losses(
        self, parameters: Vector, x: Samples, y: Targets, weights: Weights | None = None
    ) -> Float[Array, " subsets"]:
        """Half the weighted squared residuals."""
        xp = namespace(x)
        residual = (x @ parameters[:, None])[..., 0] - y
        return 0.5 * xp.sum(_weighted(residual * residual, weights), axis=1)

    def gradients(
        self, parameters: Vector, x: Samples, y: Targets, weights: Weights | None = None, out: Gradients | None = None
    ) -> Gradients:
        """Weighted residuals times features."""
        xp = namespace(x)
        if out is None:
            out = xp.empty((x.shape[0], x.shape[2]), dtype=parameters.dtype, device=x.device)
        residual = _weighted((x @ parameters[:, None])[..., 0] - y, weights)
        if x.shape[1] == 1:
            into(xp.multiply, residual, x[:, 0, :], out=out)  # one sample a subset: no product, four times faster
        else:
            into(xp.matmul, residual[:, None, :], x, out=out[:, None, :])
        return out


class SoftmaxRegression(Model):
    """Multinomial logistic regression: cross-entropy of a linear map, with an intercept unless it is off.

    Parameters: the (features, classes) matrix row by row, then the intercepts.
    """

    source: ClassVar[str] = "textbook"
    cost: ClassVar[str] = "samples × features × classes for each subset computed"
    task: ClassVar[Task] = "classification"
    intercept: bool = True  # whether each class has one

    def dim(self, features: int, classes: int) -> int:
        """Features × classes, and an intercept for each class."""
        return (features + self.intercept) * classes

    def parts(self, features: int, classes: int) -> dict[str, tuple[int, ...]]:
        """The matrix, which is the transpose of what PyTorch calls a layer's weight, and the intercepts."""
        found: dict[str, tuple[int, ...]] = {"matrix": (features, classes)}
        return found | {"bias": (classes,)} if self.intercept else found

    def losses(
        self, parameters: Vector, x: Samples, y: Targets, weights: Weights | None = None
    ) -> Float[Array, " subsets"]:
        """Weighted cross-entropy."""
        xp, logits = namespace(x), self._logits(parameters, x)
        right = xp.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
        normaliser = xp.log(xp.sum(xp.exp(logits), axis=-1))
        return xp.sum(_weighted(normaliser - right, weights), axis=1)

    def gradients(
        self, parameters: Vector, x: Samples, y: Targets, weights: Weights | None = None, out: Gradients | None = None
    ) -> Gradients:
        """Features times (probability - indicator)."""
        xp, (subsets, samples, features) = namespace(x), x.shape
        if out is None:
            out = xp.empty((subsets, parameters.shape[0]), dtype=parameters.dtype, device=x.device)
        error = self._logits(parameters, x)
        classes = error.shape[-1]
        into(xp.exp, error, out=error)
        error /= xp.sum(error, axis=-1, keepdims=True)
        _subtract_one(error, y)
        error *= 1.0 / samples if weights is None else weights[..., None]
        matrix = xp.reshape(out[:, : features * classes], (subsets, features, classes))  # a view
        into(xp.matmul, xp.matrix_transpose(x), error, out=matrix)
        if self.intercept:
            into(xp.sum, error, out=out[:, features * classes :], axis=1)
        return out

    def correct(self, parameters: Vector, x: Samples, y: Targets) -> Int[Array, "subsets samples"]:
        """1 where the largest logit is the label's."""
        xp = namespace(x)
        return xp.astype(xp.argmax(self._logits(parameters, x), axis=-1) == y, xp.int64)

    def _logits(
        self, parameters: Float[Array, " dim"], x: Float[Array, "subsets samples features"]
    ) -> Float[Array, "subsets samples classes"]:
        """Logits shifted so that the largest is zero, which keeps the exponentials finite."""
        xp, features = namespace(x), x.shape[2]
        classes = parameters.shape[0] // (features + self.intercept)
        logits: Array = x @ xp.reshape(parameters[: features * classes], (features, classes))
        if self.intercept:
            logits += parameters[features * classes :]
        logits -= xp.max(logits, axis=-1, keepdims=True)
        return logits


def _weighted(
    values: Float[Array, "subsets samples"], weights: Float[Array, "subsets samples"] | None
) -> Float[Array, "subsets samples"]:
    """Weight samples in place; without weights they are averaged."""
    if weights is None:
        values /= values.shape[1]
    else:
        values *= weights
    return values


def _subtract_one(error: Float[Array, "subsets samples classes"], labels: Int[Array, "subsets samples"]) -> None:
    """Subtract 1 at the labels, in place. Without changing single numbers, which the standard cannot, 0 elsewhere."""
    xp, classes = namespace(error), error.shape[-1]
    if isinstance(error, np.ndarray):
        error.reshape(-1, classes)[np.arange(labels.size), labels.ravel()] -= 1.0
    else:
        error -= xp.astype(labels[..., None] == xp.arange(classes, device=error.device), error.dtype)
