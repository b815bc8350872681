import os
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest

from mpicoded.data import layout
from mpicoded.errors import InputError

OFFSETS = np.array([0, 4, 4, 12])
X = np.random.default_rng(0).standard_normal((12, 3))
LABELS = np.arange(12) % 3
TEST = (X[:5] + 1, LABELS[:5])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "data.h5")


def write(path, x=X, y=LABELS, offsets=OFFSETS, *, classes=3, test=TEST, optimum=None):
    layout.write(path, x, y, offsets, made_by="a test", classes=classes, test=test, optimum=optimum)


def read_all(path, dtype=np.float64):
    description = layout.describe(path)
    train = layout.read_rows(description, "", [(0, description.samples)], dtype)
    test = ()
    if description.test_samples:
        test = layout.read_rows(description, "test/", [(0, description.test_samples)], dtype)
    return (*train, *test)


def without(name):
    def damage(file):
        del file[name]

    return damage


def replaced(name, value):
    def damage(file):
        del file[name]
        file[name] = value

    return damage


def as_group(name):
    def damage(file):
        del file[name]
        file.create_group(name)

    return damage


def attribute(name, value=None):
    def damage(file):
        file.attrs.pop(name, None)
        if value is not None:
            file.attrs[name] = value

    return damage


def test_classification_is_described_as_written(path):
    write(path)
    description = layout.describe(path)
    assert (description.path, description.task, description.classes) == (path, "classification", 3)
    assert (description.subsets, description.samples, description.features) == (3, 12, 3)
    assert (description.test_samples, description.optimum_loss) == (5, None)
    np.testing.assert_array_equal(description.offsets, OFFSETS)
    assert str(description).endswith(": classification, 3 subsets, 12 samples, 3 features, 3 classes, 5 test samples")


def test_regression_is_described_as_written(path):
    write(path, y=X[:, 0], classes=0, test=None, optimum=(np.arange(3.0), 0.25))
    description = layout.describe(path)
    assert (description.task, description.classes, description.test_samples) == ("regression", 0, 0)
    assert description.optimum_loss == 0.25
    assert str(description).endswith(": regression, 3 subsets, 12 samples, 3 features")


def test_file_holds_the_documented_layout(path):
    write(path, X.astype(np.float32), LABELS.astype(np.uint8), OFFSETS.astype(np.int32), optimum=(X[0], 0.5))
    content = (X.astype("<f4"), LABELS.astype("<i8"), TEST[0].astype("<f8"), TEST[1].astype("<i8"))
    with h5py.File(path) as file:
        assert dict(file.attrs) == {
            "format": "mpicoded-data",
            "version": 1,
            "task": "classification",
            "classes": 3,
            "made_by": "a test",
            "content": f"{zlib.crc32(b''.join(array.tobytes() for array in content)):08x}",
            "optimum_loss": 0.5,
        }
        assert set(file) == {"x", "y", "offsets", "test", "optimum"}
        assert (file["x"].dtype, file["y"].dtype, file["test/y"].dtype) == (np.float32, np.int64, np.int64)
        assert file["offsets"].dtype == np.int64
        assert file["x"].chunks is None
        np.testing.assert_array_equal(file["optimum"], X[0])


@pytest.mark.parametrize("stored", [np.float32, np.float64, np.dtype(">f8"), np.float16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_come_back_in_the_wanted_type(path, stored, dtype):
    x = X.astype(stored)
    write(path, x)
    back = read_all(path, dtype)
    assert (back[0].dtype, back[1].dtype) == (dtype, np.int64)
    np.testing.assert_array_equal(back[0], x.astype(dtype))
    np.testing.assert_array_equal(back[1], LABELS)
    np.testing.assert_array_equal(back[2], TEST[0].astype(dtype))
    np.testing.assert_array_equal(back[3], TEST[1])


def test_targets_of_a_regression_come_in_the_type_of_the_computation(path):
    write(path, y=X[:, 1], classes=0, test=None)
    y = read_all(path, np.float32)[1]
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, X[:, 1].astype(np.float32))


def test_several_runs_of_rows_equal_slices(path):
    write(path)
    description = layout.describe(path)
    rng = np.random.default_rng(1)
    for _ in range(30):
        runs = [tuple(map(int, np.sort(rng.integers(0, 13, 2)))) for _ in range(rng.integers(0, 5))]
        rows = np.concatenate([np.arange(12)[slice(*run)] for run in runs] or [[]]).astype(int)
        x, y = layout.read_rows(description, "", runs, np.float64)
        np.testing.assert_array_equal(x, X[rows])
        np.testing.assert_array_equal(y, LABELS[rows])


DAMAGES = {
    "no x": (without("x"), "x is missing"),
    "no y": (without("y"), "y is missing"),
    "no offsets": (without("offsets"), "offsets is missing"),
    "no test/x": (without("test/x"), "x"),
    "no test/y": (without("test/y"), "y"),
    "x is a group": (as_group("x"), "x is missing"),
    "y is a group": (as_group("y"), "y is missing"),
    "offsets is a group": (as_group("offsets"), "offsets is missing"),
    "test/x is a group": (as_group("test/x"), "test/x"),
    "test/y is a group": (as_group("test/y"), "test/y"),
    "test is a dataset": (replaced("test", np.zeros(3)), ""),
    "x is a number": (replaced("x", 1.0), "x must be a matrix of floats"),
    "x is a vector": (replaced("x", np.zeros(12)), "x must be a matrix of floats"),
    "x is a cube": (replaced("x", np.zeros((12, 3, 1))), "x must be a matrix of floats"),
    "x is integers": (replaced("x", np.zeros((12, 3), int)), "x must be a matrix of floats"),
    "x is complex": (replaced("x", np.zeros((12, 3), complex)), "x must be a matrix of floats"),
    "x is text": (replaced("x", "text"), "x must be a matrix of floats"),
    "x is nothing": (replaced("x", h5py.Empty("f8")), "x must be a matrix of floats"),
    "x is too short": (replaced("x", np.zeros((11, 3))), "x must have 12 rows, as offsets or y say, has 11"),
    "x has no features": (replaced("x", np.zeros((12, 0))), "x has no features"),
    "y is too long": (replaced("y", np.zeros(13, int)), "y must have shape (12,), has (13,)"),
    "y is a number": (replaced("y", 1), "y must have shape (12,), has ()"),
    "y is a matrix": (replaced("y", np.zeros((12, 1), int)), "y must have shape (12,), has (12, 1)"),
    "y is floats": (replaced("y", np.zeros(12)), "y must be integers, is float64"),
    "y is nothing": (replaced("y", h5py.Empty("i8")), "y must have shape (12,)"),
    "offsets is a number": (replaced("offsets", 12), "offsets must be M + 1 integers"),
    "offsets is text": (replaced("offsets", "text"), "offsets"),
    "offsets is nothing": (replaced("offsets", h5py.Empty("i8")), "offsets"),
    "offsets is floats": (replaced("offsets", OFFSETS * 1.0), "offsets must be M + 1 integers"),
    "offsets is a matrix": (replaced("offsets", OFFSETS[None]), "offsets must be M + 1 integers"),
    "offsets without a subset": (replaced("offsets", [0]), "offsets must be M + 1 integers"),
    "offsets falls": (replaced("offsets", [0, 5, 4, 12]), "offsets must rise"),
    "offsets falls and its differences overflow": (
        replaced("offsets", np.array([0, 100, -100, 12], np.int8)),
        "offsets must rise",
    ),
    "offsets starts late": (replaced("offsets", [1, 4, 4, 12]), "offsets must rise"),
    "offsets ends early": (replaced("offsets", [0, 4, 4, 11]), "x must have 11 rows, as offsets or y say"),
    "offsets ends late": (replaced("offsets", [0, 4, 4, 13]), "x must have 13 rows, as offsets or y say"),
    "offsets of no samples": (replaced("offsets", [0, 0]), "offsets must rise"),
    "test/x is too short": (replaced("test/x", np.zeros((4, 3))), "test/x must have 5 rows"),
    "test/x has other features": (replaced("test/x", np.zeros((5, 2))), "test/x has other features than x"),
    "test/y is a number": (replaced("test/y", 1), "test/y"),
    "test/y is floats": (replaced("test/y", np.zeros(5)), "test/y must be integers"),
    "no format": (attribute("format"), "not a dataset of mpicoded"),
    "another format": (attribute("format", "else"), "not a dataset of mpicoded"),
    "a list of formats": (attribute("format", ["a", "b"]), ""),
    "no version": (attribute("version"), "version must be 1"),
    "another version": (attribute("version", 2), "version must be 1"),
    "no task": (attribute("task"), "task"),
    "an unknown task": (attribute("task", "ranking"), "unknown task 'ranking'"),
    "a number for a task": (attribute("task", 3), "unknown task"),
    "no classes": (attribute("classes"), "classes"),
    "classes is text": (attribute("classes", "many"), ""),
    "classes is NaN": (attribute("classes", np.nan), ""),
    "classes is a fraction": (attribute("classes", 2.5), "classes must be a whole number, is 2.5"),
    "a huge number of classes": (attribute("classes", 2**62), "classes are too many"),
    "optimum_loss is NaN": (attribute("optimum_loss", np.nan), "optimum_loss must be finite"),
    "optimum_loss is text": (attribute("optimum_loss", "low"), ""),
    "one class": (attribute("classes", 1), "1 classes do not fit classification"),
    "classes of a regression": (attribute("task", "regression"), "3 classes do not fit regression"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_file_is_refused_before_its_samples_are_read(path, refused, case):
    damage, says = DAMAGES[case]
    write(path)
    with h5py.File(path, "r+") as file:
        damage(file)
    with refused(path, says):
        layout.describe(path)


def test_missing_file_names_the_command_that_makes_one(path, refused):
    with refused(path, "(make one with: mpicoded data NAME -o "):
        layout.describe(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"hello\n", b"a,b\n1,2\n" * 999, b"\x89HDF\r\n\x1a\n", bytes(9999)])
def test_other_file_is_refused(path, refused, content):
    with open(path, "wb") as file:
        file.write(content)
    with refused(path, "cannot be read as HDF5"):
        layout.describe(path)


def test_folder_is_refused(tmp_path, refused):
    with refused(tmp_path):
        layout.describe(str(tmp_path))


def test_other_hdf5_file_is_refused(path, refused):
    with h5py.File(path, "w") as file:
        file["x"] = X
    with refused(path, "not a dataset of mpicoded"):
        layout.describe(path)


def outcome(path):
    """The values, or the line that refuses the file."""
    try:
        return read_all(path)
    except InputError as error:
        return str(error)


def test_truncated_file_is_refused_or_read_right(path):
    rng = np.random.default_rng(2)
    write(path, rng.standard_normal((2000, 3)), np.arange(2000) % 3, np.array([0, 900, 2000]))
    expected = outcome(path)
    with open(path, "rb") as file:
        content = file.read()
    refusals = 0
    for length in [*rng.integers(0, len(content), 120), *range(len(content) - 20, len(content))]:
        with open(path, "wb") as file:
            file.write(content[:length])
        found = outcome(path)
        if isinstance(found, str):
            assert path in found
            assert "\n" not in found
            refusals += 1
        else:
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)
    assert refusals > 100


def altered(row, value):
    x = X.copy()
    x[row, 1] = value
    return x


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(path, refused, value):
    write(path, altered(7, value))
    with refused(path, "x holds NaN or infinite values"):
        read_all(path)


def test_infinities_that_cancel_are_refused_without_a_warning(path, refused):
    x = altered(7, np.inf)
    x[8, 1] = -np.inf
    write(path, x)
    with refused(path, "x holds NaN or infinite values"):
        read_all(path)


def test_finite_features_are_read_even_where_their_sum_is_not_finite(path):
    x = np.full_like(X, 1e308)
    write(path, x)
    np.testing.assert_array_equal(read_all(path)[0], x)


def test_features_that_are_not_finite_hurt_only_who_reads_them(path):
    write(path, altered(7, np.nan))
    description = layout.describe(path)
    x, _ = layout.read_rows(description, "", [(0, 7), (8, 12)], np.float64)
    np.testing.assert_array_equal(x, np.delete(X, 7, axis=0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_targets_that_are_not_finite_are_refused(path, refused, value):
    write(path, y=np.where(np.arange(12) == 3, value, 1.0), classes=0, test=None)
    with refused(path, "y holds NaN or infinite values"):
        read_all(path)


@pytest.mark.parametrize("value", [-1, 3])
def test_labels_out_of_range_are_refused(path, refused, value):
    write(path, y=np.where(np.arange(12) == 3, value, LABELS))
    with refused(path, f"labels must be 0 to 2, found {min(value, 0)} to {max(value, 2)}"):
        read_all(path)


def test_bad_test_split_is_refused_by_its_name(path, refused):
    write(path, test=(TEST[0] * np.nan, TEST[1]))
    with refused(path, "test/x holds NaN or infinite values"):
        read_all(path)


CHANGES = {
    "gone": os.remove,
    "emptied": lambda path: h5py.File(path, "w").close(),
    "shorter": lambda path: write(path, X[:6], LABELS[:6], np.array([0, 3, 6])),
    "narrower": lambda path: write(path, X[:, :2], test=None),
    "a group": lambda path: change_in_place(path, as_group("x")),
    "text": lambda path: change_in_place(path, replaced("x", "text")),
}


def change_in_place(path, damage):
    with h5py.File(path, "r+") as file:
        damage(file)


@pytest.mark.parametrize("case", CHANGES)
def test_file_that_changes_between_description_and_reading_is_refused(path, refused, case):
    write(path)
    description = layout.describe(path)
    CHANGES[case](path)
    with refused(path):
        layout.read_rows(description, "", [(0, 12)], np.float64)


PLACES = ("missing/data.h5", "file/data.h5", f"{'a' * 252}.h5", "folder")


@pytest.mark.parametrize("where", PLACES, ids=["no folder", "under a file", "long name", "a folder"])
def test_writing_where_no_file_can_be_is_refused_and_leaves_nothing(tmp_path, refused, where):
    (tmp_path / "file").write_text("a file, not a folder")
    (tmp_path / "folder").mkdir()
    path = str(tmp_path / where)
    with refused(path):
        write(path)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "file", tmp_path / "folder"]


def test_failed_write_leaves_the_old_file_and_no_part(tmp_path, path):
    write(path)
    with pytest.raises(ValueError, match="word"):
        write(path, x=X * 2, y=np.full(12, "word"))
    np.testing.assert_array_equal(read_all(path)[0], X)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.h5"]


def test_full_disk_is_refused_in_one_line_and_leaves_nothing(tmp_path):
    program = (
        "import resource, numpy as np\n"
        "from mpicoded.data import layout\n"
        "from mpicoded.errors import InputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "x = np.ones((1000, 20))\n"
        "try:\n"
        "    layout.write('data.h5', x, x[:, 0], np.array([0, 1000]), made_by='a test')\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout.startswith("cannot write data.h5: "), ended.stderr
    assert ended.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"my thesis", b"\x89HDF\r\n\x1a\n"])
def test_file_that_is_no_dataset_is_never_replaced(path, refused, content):
    with open(path, "wb") as file:
        file.write(content)
    with refused(path, "exists and is not a dataset of mpicoded"):
        write(path)
    with open(path, "rb") as file:
        assert file.read() == content


def test_fingerprint_tells_data_sets_apart_but_not_their_places(tmp_path):
    regression = {"y": X[:, 0], "classes": 0, "test": None}
    variants = [
        {},
        {"offsets": np.array([0, 4, 5, 12])},
        {"offsets": np.array([0, 12])},
        {"x": X[:, :2], "test": (X[:5, :2], LABELS[:5])},
        {"classes": 4},
        {"test": None},
        {"test": (X[:4], LABELS[:4])},
        regression,
        regression | {"optimum": (X[0], 0.5)},
        regression | {"optimum": (X[0], 0.25)},
    ]
    found = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for number, variant in enumerate(variants):
            path = str(tmp_path / place / f"{number}.h5")
            write(path, **variant)
            found.append(layout.describe(path).fingerprint())
    assert found[: len(variants)] == found[len(variants) :]
    assert len(set(found)) == len(variants)


def test_new_file_replaces_the_old_one_whole(path):
    write(path)
    write(path, y=X[:, 0], classes=0, test=None)
    with h5py.File(path) as file:
        assert set(file) == {"x", "y", "offsets"}
