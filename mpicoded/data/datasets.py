"""Make datasets and write them in the layout of ``data.layout``."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.randomness import generator
from mpicoded.algorithms.shapes import Array, Float, Shaped
from mpicoded.data import layout
from mpicoded.data.subsets import Split, split
from mpicoded.errors import InputError, one_line

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"  # where Debian's package puts it


class Samples(NamedTuple):
    """Samples before they are split; ``classes`` is 0 for regression."""

    x: Float[Array, "samples features"]
    y: Shaped[Array, " samples"]
    classes: int
    test: tuple[Array, Array] | None = None


def linear_regression(
    output: str,
    *,
    subsets: int = 100,
    features: int = 100,
    samples_per_subset: int = 1,
    sigma_h: float = 0.3,
    seed: int = 0,
) -> None:
    """The synthetic problem of both papers.

    Subset k has samples z ~ N(0, 100 I), y ~ N(<z, x_k*>, 1), where x_k* ~ N(centre, sigma_h^2 I) and
    centre ~ N(0, I). sigma_h sets how much the subsets differ. The least-squares optimum is stored.
    """
    for name, value in (
        ("subsets", subsets),
        ("features", features),
        ("samples-per-subset", samples_per_subset),
    ):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if not 0 <= sigma_h < float("inf"):
        raise InputError(f"sigma-h must be a finite number >= 0, got {sigma_h}")
    rng = generator(seed, "linear_regression")
    centre = rng.standard_normal(features)
    targets = centre + sigma_h * rng.standard_normal((subsets, features))
    x = 10.0 * rng.standard_normal((subsets, samples_per_subset, features))
    y = np.einsum("ksp,kp->ks", x, targets) + rng.standard_normal((subsets, samples_per_subset))
    x, y = x.reshape(-1, features), y.ravel()
    layout.write(
        output,
        x,
        y,
        np.arange(subsets + 1) * samples_per_subset,
        made_by=(
            f"linear_regression --subsets {subsets} --features {features} "
            f"--samples-per-subset {samples_per_subset} --sigma-h {sigma_h} --seed {seed}"
        ),
        optimum=least_squares(x, y),
    )


def least_squares(x: Float[Array, "samples features"], y: Float[Array, " samples"]) -> tuple[Array, float]:
    """The minimiser of the mean of (<z, x> - y)^2 / 2, and that minimum."""
    optimum = np.linalg.lstsq(x, y, rcond=None)[0]
    return optimum, float(np.mean((x @ optimum - y) ** 2) / 2)


def digits(seed: int) -> Samples:
    """scikit-learn's 1,797 handwritten digits of 8 × 8 pixels in [0, 1]; a fifth is the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "digits needs scikit-learn: pip install 'mpicoded[datasets]', or pip install scikit-learn"
        ) from None
    x, y = load_digits(return_X_y=True)
    return with_test(Samples((x / 16).astype(np.float32), y.astype(np.int64), 10), 0.2, seed)


def fashion_mnist(source: str) -> Samples:
    """Zalando's 70,000 images of 28 × 28 pixels in [0, 1], from a folder with the four IDX files."""
    x, y, test_x, test_y = (
        _read_idx(source, f"{part}-{kind}-ubyte")
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    )

    def pixels(images: Array) -> Array:
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)

    return Samples(pixels(x), y.astype(np.int64), 10, (pixels(test_x), test_y.astype(np.int64)))


def _read_idx(folder: str, name: str) -> Array:
    path = next((path for path in (Path(folder, name), Path(folder, f"{name}.gz")) if path.exists()), None)
    if path is None:
        raise InputError(
            f"fashion_mnist: {Path(folder, name)}[.gz] does not exist; install Debian's package "
            "dataset-fashion-mnist, or name the folder of the IDX files with --source"
        )
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, rank = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        if zero or kind != 8:
            raise ValueError("not an IDX file of bytes")
        if rank != (3 if "images" in name else 1) or 0 in shape:
            raise ValueError(f"has shape {shape}")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise InputError(f"fashion_mnist: {path} is not a readable IDX file: {one_line(error)}") from None


def with_test(samples: Samples, fraction: float, seed: int) -> Samples:
    """Set a random part of the samples aside as test split."""
    if not 0 <= fraction < 1:
        raise InputError(f"test-fraction must be in [0, 1), got {fraction}")
    order = generator(seed, "test_split").permutation(len(samples.y))
    held, kept = np.split(order, [int(fraction * len(order))])
    test = (samples.x[held], samples.y[held]) if len(held) else None
    return samples._replace(x=samples.x[kept], y=samples.y[kept], test=test)


def _check(what: str, samples: Samples) -> None:
    """Samples of every origin, before they are written: shapes that fit, labels in range."""
    parts = [("", samples.x, samples.y)] + ([("test ", *samples.test)] if samples.test else [])
    for name, x, y in parts:
        if x.ndim != 2 or y.shape != x.shape[:1] or not x.size:
            raise InputError(f"{what}: {name}samples of shape {x.shape} and targets of shape {y.shape} do not fit")
        if x.shape[1] != samples.x.shape[1]:
            raise InputError(f"{what}: {name}samples have {x.shape[1]} features, the others {samples.x.shape[1]}")
        if samples.classes and not (y.min() >= 0 and y.max() < samples.classes):
            raise InputError(f"{what}: labels must be 0 to {samples.classes - 1}, found {y.min()} to {y.max()}")


def write_split(
    output: str, samples: Samples, *, subsets: int, kind: Split, alpha: float, seed: int, made_by: str
) -> None:
    """Split the samples into subsets and write the file; a regression problem gets its optimum."""
    _check(made_by.split()[0], samples)
    order, offsets = split(samples.y, subsets, kind, generator(seed, "split"), alpha)
    x, y = samples.x[order], samples.y[order]
    layout.write(
        output,
        x,
        y,
        offsets,
        made_by=made_by,
        classes=samples.classes,
        test=samples.test,
        optimum=None if samples.classes else least_squares(x.astype(np.float64, copy=False), y),
    )
