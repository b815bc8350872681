"""Modules to begin with, for ``[model] name = "torch"``: ``module = "mpicoded.networks:mlp"``, ``:cnn``, ``:resnet18``.

None has batch statistics, which would tie the samples of a subset to each other, nor any other state but parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_GROUPS = 8  # of channels, at most, that are normalised together


def mlp(features: int = 784, classes: int = 10, hidden: Sequence[int] = (128,), dropout: float = 0.0) -> nn.Module:
    """Fully connected layers with ReLU between them; 0 classes: one output, for a regression."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(features, width), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes or 1))


def cnn(channels: int = 1, size: int = 28, classes: int = 10, width: int = 16) -> nn.Module:
    """Two 3 × 3 convolutions, each halved by pooling, and a linear layer; for square images.

    Channels are innermost in memory: so few of them pass in half the time on a CPU.
    """
    layers = nn.Sequential(
        _Images(channels, size),
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (size // 4) ** 2, classes),
    )
    return layers.to(memory_format=torch.channels_last)


def resnet18(channels: int = 1, size: int = 28, classes: int = 10, width: int = 64) -> nn.Module:
    """ResNet-18 for small images (He et al. 2016, its first layer 3 × 3), with group normalisation (Wu and He 2018)."""
    blocks = []
    inside = width
    for stage in range(4):
        for stride in (1 if stage == 0 else 2, 1):
            blocks.append(_Residual(inside, width << stage, stride))
            inside = width << stage
    return nn.Sequential(
        _Images(channels, size),
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        _norm(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inside, classes),
    )


class _Images(nn.Module):
    """Flat samples as square images."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.form = (channels, size, size)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.form)


class _Residual(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
            _norm(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            _norm(out),
        )
        alike = channels == out and stride == 1
        self.short = nn.Identity() if alike else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.short(x))


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(min(_GROUPS, channels), channels)
