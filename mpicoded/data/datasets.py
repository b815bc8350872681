"""Make or import datasets and write them in the layout of ``data.layout``."""

import gzip
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.randomness import generator
from mpicoded.algorithms.shapes import Array, Float, Shaped
from mpicoded.data import layout
from mpicoded.data.subsets import Split, split
from mpicoded.errors import InputError

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
    if sigma_h < 0:
        raise InputError(f"sigma-h must be >= 0, got {sigma_h}")
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
    return _with_test(Samples((x / 16).astype(np.float32), y.astype(np.int64), 10), 0.2, seed)


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
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise InputError(f"fashion_mnist: {path} is not a readable IDX file: {error}") from None


def read_source(source: str, target: str | None, seed: int, test_fraction: float) -> Samples:
    """Samples from an npz, CSV or LIBSVM file.

    npz: arrays ``x`` and ``y``, and ``x_test`` and ``y_test`` for a test split. CSV: numbers, with or without
    a header; the target is the column of that name or number, else the last. LIBSVM: needs scikit-learn.
    Whole numbers or words as targets are classes. Classification gets ``test_fraction`` of the samples as test split.
    """
    if not os.path.isfile(source):
        raise InputError(f"import: {source} does not exist")
    ending = source.lower().removesuffix(".gz").removesuffix(".bz2").rsplit(".", 1)[-1]
    test = None
    try:
        if ending == "npz":
            with np.load(source, allow_pickle=False) as arrays:
                if "x" not in arrays or "y" not in arrays:
                    raise InputError(f"import: {source} needs arrays x and y, has {', '.join(arrays)}")
                x, y = arrays["x"], arrays["y"]
                test = (arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None
        elif ending == "csv":
            x, y = _read_csv(source, target)
        elif ending in ("libsvm", "svm", "svmlight", "txt"):
            x, y = _read_libsvm(source)
        else:
            raise InputError(f"import: {source} must end in .npz, .csv, .libsvm, .svm, .svmlight or .txt")
    except (ValueError, KeyError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"import: {source} cannot be read: {error}") from None
    samples = _classified(source, x, y, test)
    return samples if samples.test or not samples.classes else _with_test(samples, test_fraction, seed)


def _classified(source: str, x: Array, y: Array, test: tuple[Array, Array] | None) -> Samples:
    """Check shapes and number the classes 0 … classes-1 in sorted order."""
    x = np.asarray(x)
    x = x.reshape(len(x), -1) if x.ndim > 2 else x
    if x.ndim != 2 or y.shape != (len(x),) or not x.size:
        raise InputError(f"import: {source} needs x (samples, features) and y (samples,), has {x.shape} and {y.shape}")
    x = x.astype(x.dtype if x.dtype in (np.float32, np.float64) else np.float64)
    if not np.isfinite(x).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise InputError(f"import: {source} holds NaN or infinite values")
    if test is not None:
        test = (np.asarray(test[0]).reshape(len(test[0]), -1).astype(x.dtype), np.asarray(test[1]))
    if y.dtype.kind == "f" and not (y == np.rint(y)).all():
        return Samples(x, y.astype(np.float64), 0, test)
    labels, numbers = np.unique(y, return_inverse=True)
    if len(labels) < 2:
        raise InputError(f"import: {source} has one target value only, {labels[0]}")
    if test is not None:
        if not np.isin(test[1], labels).all():
            raise InputError(f"import: {source}: y_test holds classes that y lacks")
        test = (test[0], np.searchsorted(labels, test[1]))
    return Samples(x, numbers.astype(np.int64), len(labels), test)


def _read_csv(source: str, target: str | None) -> tuple[Array, Array]:
    cells = np.loadtxt(source, dtype=str, delimiter=",", quotechar='"', comments=None, ndmin=2)
    columns = cells.shape[1]

    def is_number(cell: str) -> bool:
        try:
            float(cell)
        except ValueError:
            return False
        return True

    header: list[str] = []
    if sum(map(is_number, cells[0])) < sum(map(is_number, cells[-1])):
        header, cells = [str(name).strip() for name in cells[0]], cells[1:]
    if target is None:
        column = columns - 1
    elif target in header:
        column = header.index(target)
    elif target.lstrip("-").isdigit() and -columns <= int(target) < columns:
        column = int(target) % columns
    else:
        known = ", ".join(header) if header else f"0 to {columns - 1}"
        raise InputError(f"import: {source} has no column {target!r}; it has {known}")
    y = cells[:, column]
    if all(map(is_number, y)):
        y = y.astype(np.float64)
    return np.delete(cells, column, axis=1).astype(np.float64), y


def _read_libsvm(source: str) -> tuple[Array, Array]:
    try:
        from sklearn.datasets import load_svmlight_file
    except ImportError:
        raise InputError(
            "LIBSVM files need scikit-learn: pip install 'mpicoded[datasets]', or pip install scikit-learn"
        ) from None
    x, y = load_svmlight_file(source)
    return x.toarray(), y


def _with_test(samples: Samples, fraction: float, seed: int) -> Samples:
    """Set a random part of the samples aside as test split."""
    if not 0 <= fraction < 1:
        raise InputError(f"test-fraction must be in [0, 1), got {fraction}")
    order = generator(seed, "test_split").permutation(len(samples.y))
    held, kept = np.split(order, [int(fraction * len(order))])
    test = (samples.x[held], samples.y[held]) if len(held) else None
    return samples._replace(x=samples.x[kept], y=samples.y[kept], test=test)


def write_split(
    output: str, samples: Samples, *, subsets: int, kind: Split, alpha: float, seed: int, made_by: str
) -> None:
    """Split the samples into subsets and write the file; a regression problem gets its optimum."""
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
