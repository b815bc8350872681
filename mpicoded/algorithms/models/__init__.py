"""Models: losses and gradients of subsets."""

from mpicoded.algorithms.models.base import Model, Task
from mpicoded.algorithms.models.convex import LinearRegression, SoftmaxRegression
from mpicoded.algorithms.models.torch import Torch

Choice = LinearRegression | SoftmaxRegression | Torch

__all__ = ["Choice", "LinearRegression", "Model", "SoftmaxRegression", "Task", "Torch"]
