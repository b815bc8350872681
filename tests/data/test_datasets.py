import gzip
import struct

import h5py
import numpy as np
import pytest

from mpicoded.data import datasets


def rows(x, y):
    """The samples as a sorted matrix, to compare sets of them."""
    table = np.column_stack([x, y])
    return table[np.lexsort(table.T)]


@pytest.mark.parametrize("sigma_h", [0.0, 0.3, 1.0])
def test_linear_regression_has_the_statistics_of_the_papers(make, sigma_h):
    words = ("--subsets", 200, "--features", 20, "--samples-per-subset", 50, "--sigma-h", sigma_h)
    description, x, y, *_ = make("linear_regression", *words)
    assert (description.task, description.subsets, description.features) == ("regression", 200, 20)
    assert np.var(x) == pytest.approx(100, rel=0.02)
    assert abs(np.mean(x)) < 0.1
    x, y = x.reshape(200, 50, 20), y.reshape(200, 50)
    fits = [np.linalg.lstsq(x[k], y[k], rcond=None) for k in range(200)]
    noise = sum(fit[1][0] for fit in fits) / (200 * (50 - 20))
    assert noise == pytest.approx(1, rel=0.08)
    targets = np.array([fit[0] for fit in fits])
    error = 1 / (100 * (50 - 20 - 1))  # variance of a fit around the subset's true target
    assert np.var(targets, axis=0, ddof=1).mean() == pytest.approx(sigma_h**2 + error, rel=0.1)
    assert np.abs(np.corrcoef(x.reshape(-1, 20).T) - np.eye(20)).max() < 0.05


def test_linear_regression_centre_is_standard_normal(make):
    words = ("--subsets", 10, "--features", 300, "--samples-per-subset", 100, "--sigma-h", 0.1)
    _, x, y, *_ = make("linear_regression", *words)
    centre = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.mean(centre) == pytest.approx(0, abs=0.2)
    assert np.var(centre) == pytest.approx(1, rel=0.25)


def test_linear_regression_defaults_are_those_of_the_papers(make, tmp_path):
    made = make("linear_regression")
    assert (made.description.subsets, made.description.samples, made.x.shape) == (100, 100, (100, 100))
    assert made.made_by == (
        "linear_regression --subsets 100 --features 100 --samples-per-subset 1 --sigma-h 0.3 --seed 0"
    )
    datasets.linear_regression(str(tmp_path / "direct.h5"))
    assert (tmp_path / "direct.h5").read_bytes() == (tmp_path / "out.h5").read_bytes()


@pytest.mark.parametrize("words", [(), ("--samples-per-subset", 7, "--features", 13, "--subsets", 30)])
def test_optimum_minimises_the_stored_loss(make, words):
    made = make("linear_regression", *words)
    _, x, y, *_ = made
    optimum, loss = made.optimum, made.description.optimum_loss
    residual = x @ optimum - y
    assert np.abs(x.T @ residual).max() / len(y) < 1e-9
    assert loss == pytest.approx(np.mean(residual**2) / 2, rel=1e-12)
    rng = np.random.default_rng(1)
    for _ in range(10):
        assert np.mean((x @ (optimum + 0.01 * rng.standard_normal(len(optimum))) - y) ** 2) / 2 > loss


def test_more_features_than_samples_can_be_fitted_exactly(make):
    description, *_ = make("linear_regression", "--subsets", 5, "--features", 20)
    assert description.optimum_loss < 1e-20


def test_same_seed_gives_the_same_file_and_another_seed_other_samples(make, tmp_path):
    words = ("linear_regression", "--subsets", 9, "--features", 3, "--samples-per-subset", 2)
    made, first = make(*words, "--seed", 4), (tmp_path / "out.h5").read_bytes()
    make(*words, "--seed", 4)
    assert first == (tmp_path / "out.h5").read_bytes()
    other = make(*words, "--seed", 5)
    assert not np.isin(other.x, made.x).any()
    assert not np.isin(other.y, made.y).any()


@pytest.mark.parametrize("value", ["-0.1", "nan", "inf"])
def test_linear_regression_refuses_a_useless_sigma_h(refuses, value):
    refuses("sigma-h must be ", "linear_regression", f"--sigma-h={value}")


@pytest.mark.parametrize("name", ["subsets", "features", "samples_per_subset"])
def test_linear_regression_refuses_sizes_below_one(tmp_path, refused, name):
    with refused(name.replace("_", "-"), "must be at least 1, got 0"):
        datasets.linear_regression(str(tmp_path / "out.h5"), **{name: 0})


def test_digits_are_all_of_scikit_learns(make):
    from sklearn.datasets import load_digits

    description, x, y, test_x, test_y, *_ = make("digits", "--subsets", 10)
    assert (description.classes, description.features, description.subsets) == (10, 64, 10)
    assert (len(y), len(test_y)) == (1438, 359)
    images, labels = load_digits(return_X_y=True)
    found = rows(np.vstack([x, test_x]), np.concatenate([y, test_y]))
    np.testing.assert_array_equal(found, rows(images / 16, labels))
    assert (x.min(), x.max()) == (0, 1)
    with h5py.File(description.path) as file:
        assert file["x"].dtype == file["test/x"].dtype == np.float32


def test_digits_test_split_is_drawn_by_the_seed(tmp_path):
    one, same, other = (datasets.digits(seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.test[0], same.test[0])
    np.testing.assert_array_equal(one.x, same.x)
    assert not np.array_equal(one.test[0], other.test[0])
    assert np.bincount(one.test[1]).min() > 20  # all labels: it is no slice of sorted samples


@pytest.mark.parametrize("words", [("iid",), ("by_label",), ("dirichlet", "--alpha", "0.1")])
def test_split_is_the_one_asked_for(make, words):
    description, _, y, *_ = make("digits", "--subsets", 20, "--split", *words)
    sizes = np.diff(description.offsets)
    parts = [part for part in np.split(y, description.offsets[1:-1]) if len(part)]
    labels = np.mean([len(np.unique(part)) for part in parts])
    assert (sizes.max() - sizes.min() <= 1) == (words[0] != "dirichlet")
    low, high = {"iid": (9, 10), "by_label": (1, 2), "dirichlet": (2, 8)}[words[0]]
    assert low <= labels <= high


def test_file_says_how_it_was_made(make):
    made = make("digits", "--subsets", 5, "--split", "dirichlet", "--alpha", "0.5", "--seed", "3")
    assert made.made_by == "digits --subsets 5 --split dirichlet --alpha 0.5 --seed 3"


def test_more_subsets_than_samples_are_refused(refuses):
    refuses("subsets must be from 1 to the 1438 samples, got 1439", "digits", "--subsets", 1439)


def idx(values):
    values = np.asarray(values, np.uint8)
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


IMAGES, TEST_IMAGES = np.arange(48).reshape(12, 2, 2) * 5, np.arange(20).reshape(5, 2, 2)
LABELS, TEST_LABELS = np.arange(12) % 10, np.arange(5)[::-1]
IDX = {
    "train-images-idx3-ubyte": idx(IMAGES),
    "train-labels-idx1-ubyte": idx(LABELS),
    "t10k-images-idx3-ubyte": idx(TEST_IMAGES),
    "t10k-labels-idx1-ubyte": idx(TEST_LABELS),
}


@pytest.fixture
def folder(tmp_path):
    """A folder of tiny IDX files, some of them compressed, some replaced or left out (None)."""

    def folder(compressed=(), **replaced):
        place = tmp_path / "idx"
        place.mkdir(exist_ok=True)
        for name, content in IDX.items():
            content = replaced.get(name.partition("-idx")[0].replace("-", "_"), content)
            if content is not None and name in compressed:
                (place / f"{name}.gz").write_bytes(gzip.compress(content))
            elif content is not None:
                (place / name).write_bytes(content)
        return place

    return folder


@pytest.mark.parametrize("compressed", [(), tuple(IDX), tuple(IDX)[1:3]], ids=["plain", "gz", "mixed"])
def test_fashion_mnist_is_read_from_idx_files(make, folder, compressed):
    description, x, y, test_x, test_y, *_ = make("fashion_mnist", "--subsets", 3, "--source", folder(compressed))
    assert (description.classes, description.features, description.subsets) == (10, 4, 3)
    single = np.float32(IMAGES.reshape(12, 4)) / np.float32(255)
    np.testing.assert_array_equal(rows(x, y), rows(single, LABELS))
    np.testing.assert_array_equal(test_x, np.float32(TEST_IMAGES.reshape(5, 4)) / np.float32(255))
    np.testing.assert_array_equal(test_y, TEST_LABELS)


@pytest.mark.parametrize("name", IDX)
def test_missing_idx_file_is_refused_by_its_name(refuses, folder, name):
    place = folder()
    (place / name).unlink()
    refuses(name, "fashion_mnist", "--source", place)
    place.joinpath(name).mkdir()
    refuses(name, "fashion_mnist", "--source", place)


@pytest.mark.parametrize("place", ["none", "file"])
def test_missing_folder_names_the_debian_package(refuses, tmp_path, place):
    (tmp_path / "file").write_text("a file")
    refuses("Debian's package dataset-fashion-mnist", "fashion_mnist", "--source", tmp_path / place)


BAD_IDX = {
    "empty": b"",
    "short": b"\0\0\x08",
    "text": b"hello world, hello world",
    "no bytes": struct.pack(">HBBI", 0, 9, 1, 3) + b"abc",
    "no dimensions": struct.pack(">HBB", 0, 8, 0) + b"a",
    "truncated": idx(IMAGES)[:-1],
    "too long": idx(IMAGES) + b"x",
    "too many dimensions": struct.pack(">HBB65I", 0, 8, 65, *[1] * 65) + b"a",
    "huge": struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3),
    "without images": idx(IMAGES[:0]),
    "without pixels": idx(IMAGES[:, :0]),
    "of other pixels than the test split": idx(np.zeros((12, 3, 3))),
    "of too few images": idx(IMAGES[:11]),
    "of too many images": idx(np.zeros((13, 2, 2))),
}


@pytest.mark.parametrize("compressed", [(), tuple(IDX)], ids=["plain", "gz"])
@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_images_are_refused(refuses, folder, case, compressed):
    place = folder(compressed, train_images=BAD_IDX[case])
    refuses("fashion_mnist", "fashion_mnist", "--subsets", 2, "--source", place)


BAD_LABELS = {
    "out of range": np.full(12, 200),
    "too few": LABELS[:11],
    "too many": np.arange(13) % 10,
    "a column": np.zeros((12, 1)),
    "none": [],
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_are_refused(refuses, folder, case):
    place = folder(train_labels=idx(BAD_LABELS[case]))
    refuses("fashion_mnist", "fashion_mnist", "--subsets", 2, "--source", place)


def test_bad_gzip_is_refused(refuses, folder, bad_gzip):
    place = folder(train_images=None)
    (place / "train-images-idx3-ubyte.gz").write_bytes(bad_gzip)
    refuses("train-images", "fashion_mnist", "--subsets", 2, "--source", place)
