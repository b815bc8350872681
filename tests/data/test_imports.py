import bz2
import gzip

import h5py
import numpy as np
import pytest

from mpicoded.data import imports
from mpicoded.errors import InputError

X = np.random.default_rng(0).standard_normal((12, 3))
Y = np.arange(12) % 3


def rows(x, y):
    """The samples as a sorted matrix, to compare sets of them."""
    table = np.column_stack([x, y])
    return table[np.lexsort(table.T)]


@pytest.fixture
def npz(tmp_path):
    def npz(**arrays):
        path = tmp_path / "source.npz"
        np.savez(path, **arrays)
        return path

    return npz


def test_npz_with_a_test_split_is_taken_as_it_is(make, npz):
    source = npz(x=X, y=Y, x_test=X[:4] + 9, y_test=Y[:4])
    description, x, y, test_x, test_y, *_ = make("import", source, "--subsets", 5)
    assert (description.classes, description.subsets) == (3, 5)
    np.testing.assert_array_equal(rows(x, y), rows(X, Y))
    np.testing.assert_array_equal(test_x, X[:4] + 9)
    np.testing.assert_array_equal(test_y, Y[:4])


@pytest.mark.parametrize(("fraction", "count"), [("0", 0), ("0.2", 2), ("0.5", 6), ("0.99", 11)])
def test_npz_without_a_test_split_gets_one(make, npz, fraction, count):
    words = ("--subsets", 1, "--test-fraction", fraction)
    description, x, y, test_x, test_y, *_ = make("import", npz(x=X, y=Y), *words)
    assert (description.test_samples, description.samples) == (count, 12 - count)
    if count:
        x, y = np.vstack([x, test_x]), np.concatenate([y, test_y])
    np.testing.assert_array_equal(rows(x, y), rows(X, Y))


@pytest.mark.parametrize("fraction", ["-0.1", "1", "nan"])
def test_test_fraction_out_of_range_is_refused(refuses, npz, fraction):
    refuses("test-fraction must be in [0, 1)", "import", npz(x=X, y=Y), f"--test-fraction={fraction}")


def test_split_is_drawn_by_the_seed(make, npz):
    words = ("import", npz(x=X, y=Y, x_test=X, y_test=Y), "--subsets", 3, "--seed")
    one, same, other = (make(*words, seed).x for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("given", "stored"),
    [(np.float32, np.float32), (np.float64, np.float64), (np.int16, np.float64), (">f8", np.float64)],
)
def test_features_keep_single_precision_and_become_double_otherwise(make, npz, given, stored):
    x = (10 * X).astype(given)
    description, *_ = make("import", npz(x=x, y=Y), "--subsets", 1, "--test-fraction", 0)
    with h5py.File(description.path) as file:
        assert file["x"].dtype == stored
        np.testing.assert_array_equal(rows(file["x"][()], file["y"][()]), rows(x.astype(stored), Y))


def test_features_of_more_dimensions_are_flattened(make, npz):
    description, *_ = make("import", npz(x=np.zeros((12, 2, 3)), y=Y), "--subsets", 1)
    assert description.features == 6


@pytest.mark.parametrize(
    "y",
    [Y * 5 - 7, Y.astype(np.uint8), Y * 1.0, np.array(["ant", "bee", "cat"])[Y], Y.astype(">i4")],
    ids=["gaps", "bytes", "whole floats", "words", "big-endian"],
)
def test_classes_are_numbered_in_sorted_order(make, npz, y):
    description, x, labels, _, test, *_ = make("import", npz(x=X, y=y, x_test=X, y_test=y), "--subsets", 1)
    assert description.classes == 3
    np.testing.assert_array_equal(rows(x, labels), rows(X, Y))
    np.testing.assert_array_equal(test, Y)


def test_truth_values_are_two_classes(make, npz):
    description, *_ = make("import", npz(x=X, y=Y > 0), "--subsets", 1)
    assert description.classes == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractional_targets_are_a_regression_with_its_optimum(make, npz, dtype):
    x, y = X.astype(dtype), X @ [1.0, 2.0, 3.0] + 0.1 * np.cos(np.arange(12))
    made = make("import", npz(x=x, y=y), "--subsets", 4)
    assert (made.description.task, made.description.test_samples) == ("regression", 0)
    np.testing.assert_array_equal(np.sort(made.y), np.sort(y))
    optimum, loss = made.optimum, made.description.optimum_loss
    x = x.astype(np.float64)
    assert np.abs(x.T @ (x @ optimum - y)).max() < 1e-12
    assert loss == pytest.approx(np.mean((x @ optimum - y) ** 2) / 2, rel=1e-12)


def test_file_says_what_was_imported(make, npz):
    made = make("import", npz(x=X, y=Y), "--subsets", 2, "--test-fraction", "0.5")
    assert "source.npz" in made.made_by
    assert "--test-fraction 0.5" in made.made_by


def test_task_makes_a_regression_of_whole_numbers(make, npz):
    words = ("--subsets", 2, "--task", "regression")
    made = make("import", npz(x=X, y=Y, x_test=X, y_test=Y), *words)
    assert (made.description.task, made.description.classes) == ("regression", 0)
    np.testing.assert_array_equal(np.sort(made.y), np.sort(Y))
    np.testing.assert_array_equal(made.test_y, Y)
    assert made.optimum is not None


@pytest.mark.parametrize("task", ["auto", "classification"])
def test_task_makes_classes_of_whole_numbers(make, npz, task):
    made = make("import", npz(x=X, y=Y * 1.0), "--subsets", 2, "--task", task)
    assert (made.description.task, made.description.classes) == ("classification", 3)


def test_task_that_the_targets_do_not_allow_is_refused(refuses, npz):
    source = npz(x=X, y=X[:, 0])
    refuses("source.npz", "import", source, "--subsets", 2, "--task", "classification")
    source = npz(x=X, y=np.array(["ant", "bee", "cat"])[Y])
    refuses("source.npz", "import", source, "--subsets", 2, "--task", "regression")


T = X[:, 0]  # targets of a regression
BAD_NPZ = {
    "no x": ({"y": Y}, "needs arrays x and y, has y"),
    "no y": ({"x": X}, "needs arrays x and y, has x"),
    "pickled x": ({"x": X.astype(object), "y": Y}, "allow_pickle=False"),
    "pickled y": ({"x": X, "y": np.array([*range(11), "a"], object)}, "allow_pickle=False"),
    "pickled test": ({"x": X, "y": Y, "x_test": X.astype(object), "y_test": Y}, "allow_pickle=False"),
    "x is a vector": ({"x": T, "y": Y}, "x"),
    "x is a number": ({"x": 1.0, "y": Y}, "x"),
    "x is empty": ({"x": X[:0], "y": Y[:0]}, "x"),
    "x is an empty cube": ({"x": np.zeros((0, 2, 2)), "y": Y[:0]}, "x"),
    "x has no features": ({"x": X[:, :0], "y": Y}, "x"),
    "x is words": ({"x": np.full((12, 3), "a"), "y": Y}, "source.npz"),
    "x is complex": ({"x": X * 1j, "y": Y}, "source.npz"),
    "x is NaN": ({"x": X * np.nan, "y": Y}, "NaN or infinite"),
    "y is a number": ({"x": X, "y": 1}, "y"),
    "y is a column": ({"x": X, "y": Y[:, None]}, "has (12, 3) and (12, 1)"),
    "y is short": ({"x": X, "y": Y[:11]}, "has (12, 3) and (11,)"),
    "y is infinite": ({"x": X, "y": T / 0.1 + np.where(Y, 0, np.inf)}, "NaN or infinite"),
    "y is all the same": ({"x": X, "y": Y * 0}, "one target value only, 0"),
    "no y_test": ({"x": X, "y": Y, "x_test": X}, "y_test"),
    "no x_test": ({"x": X, "y": Y, "y_test": Y}, "x_test"),
    "x_test is a number": ({"x": X, "y": Y, "x_test": 1.0, "y_test": Y}, "x_test"),
    "x_test is empty": ({"x": X, "y": Y, "x_test": X[:0], "y_test": Y[:0]}, "x_test"),
    "x_test is words": ({"x": X, "y": Y, "x_test": np.full((12, 3), "a"), "y_test": Y}, "x_test"),
    "x_test has other features": ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, "x_test"),
    "x_test is NaN": ({"x": X, "y": Y, "x_test": X * np.nan, "y_test": Y}, "x_test"),
    "y_test is short": ({"x": X, "y": Y, "x_test": X, "y_test": Y[:11]}, "y_test"),
    "y_test is a column": ({"x": X, "y": Y, "x_test": X, "y_test": Y[:, None]}, "y_test"),
    "y_test has other classes": ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "y_test holds classes"),
    "y_test is words": ({"x": X, "y": Y, "x_test": X, "y_test": np.full(12, "a")}, "y_test"),
    "y_test of a regression is words": ({"x": X, "y": T, "x_test": X, "y_test": np.full(12, "a")}, "y_test"),
    "y_test of a regression is NaN": ({"x": X, "y": T, "x_test": X, "y_test": T * np.nan}, "y_test"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz_is_refused(refuses, npz, case):
    arrays, says = BAD_NPZ[case]
    refuses(says, "import", npz(**arrays), "--subsets", 2)


def test_pickled_objects_are_never_loaded(refuses, tmp_path, npz):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("owned").touch, ())

    refuses("source.npz", "import", npz(x=np.array([Evil()], object), y=np.zeros(1)))
    assert not (tmp_path / "owned").exists()


def broken_npz(content):
    """An npz file with one byte of each kind of part changed, or cut off."""
    start = content.index(b"x.npy") + 200
    return {
        "empty": b"",
        "text": b"hello\n",
        "truncated": content[: len(content) // 2],
        "bad sum": content[:start] + bytes([content[start] ^ 255]) + content[start + 1 :],
    }


@pytest.mark.parametrize("case", ["empty", "text", "truncated", "bad sum"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz_is_refused(refuses, tmp_path, save, case):
    path = tmp_path / "source.npz"
    save(path, x=np.repeat(X, 9, axis=0), y=np.repeat(Y, 9))
    path.write_bytes(broken_npz(path.read_bytes())[case])
    refuses("source.npz", "import", path, "--subsets", 2)


def test_compressed_npz_with_any_bad_byte_is_refused_or_read_right(tmp_path):
    path = tmp_path / "source.npz"
    np.savez_compressed(path, x=X, y=Y)
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    for place in rng.integers(0, len(content), 150):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            samples = imports.read_source(str(path), test_fraction=0.0)
        except InputError:
            continue
        np.testing.assert_array_equal(rows(samples.x, samples.y), rows(X, Y))


def test_npy_file_named_npz_is_refused(refuses, tmp_path):
    with open(tmp_path / "source.npz", "wb") as file:
        np.save(file, X)
    refuses("source.npz", "import", tmp_path / "source.npz")


@pytest.fixture
def text(tmp_path):
    def text(content, name="source.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return text


def imported(path, target=None):
    samples = imports.read_source(str(path), target=target, test_fraction=0.0)
    order = np.lexsort(samples.x.T)
    return samples.x[order].tolist(), samples.y[order].tolist(), samples.classes


NUMBERS = "1,2,0\n3,4,1\n5,6,0\n"
FEATURES = [[1, 2], [3, 4], [5, 6]]
CSV = {
    "no header": (NUMBERS, [0, 1, 0], 2),
    "header": ("a,b,c\n" + NUMBERS, [0, 1, 0], 2),
    "header of Windows": (("a,b,c\n" + NUMBERS).replace("\n", "\r\n"), [0, 1, 0], 2),
    "header after a byte order mark": ("\ufeffa,b,c\n" + NUMBERS, [0, 1, 0], 2),
    "byte order mark": ("\ufeff" + NUMBERS, [0, 1, 0], 2),
    "spaces": ("a, b, c\n 1, 2, 0\n3 ,4 , 1 \n5,6,0\n", [0, 1, 0], 2),
    "no end of line": (NUMBERS.strip(), [0, 1, 0], 2),
    "blank lines": ("a,b,c\n1,2,0\n\n3,4,1\n5,6,0\n\n\n", [0, 1, 0], 2),
    "quoted header with commas": ('"a, of x","b ""z""","c,"\n' + NUMBERS, [0, 1, 0], 2),
    "quoted header with lines": ('"a\nb",b,c\n' + NUMBERS, [0, 1, 0], 2),
    "hash in the header": ("a,b #2,c\n" + NUMBERS, [0, 1, 0], 2),
    "words": ("a,b,kind\n1,2,dog\n3,4,cat\n5,6,dog\n", [1, 0, 1], 2),
    "words without header": ("1,2,dog\n3,4,cat\n5,6,dog\n", [1, 0, 1], 2),
    "numbers and words": ("a,b,kind\n1,2,7\n3,4,cat\n5,6,7\n", [0, 1, 0], 2),
    "classes with gaps": ("1,2,-3\n3,4,10\n5,6,2\n", [0, 2, 1], 3),
    "header with an empty name, as pandas writes": (",b,c\n" + NUMBERS, [0, 1, 0], 2),
    "regression": ("1,2,0.5\n3,4,1\n5,6,-2e-1\n", [0.5, 1, -0.2], 0),
}


@pytest.mark.parametrize("case", CSV)
def test_csv_is_read(text, case):
    content, targets, classes = CSV[case]
    assert imported(text(content)) == (FEATURES, targets, classes)


@pytest.mark.parametrize("header", ["a,b,c\n", ""])
@pytest.mark.parametrize("target", ["0", "-3"])
def test_csv_target_by_number(text, header, target):
    x, y, classes = imported(text(header + NUMBERS), target)
    assert (sorted(x), classes) == ([[2, 0], [4, 1], [6, 0]], 3)
    assert sorted(y) == [0, 1, 2]


@pytest.mark.parametrize("target", ["width", "1", "-2"])
def test_csv_target_by_name_is_its_column(text, target):
    x, y, _ = imported(text("length,width,kind\n7,0.5,1\n8,0.25,2\n"), target)
    assert (x, y) == ([[7, 1], [8, 2]], [0.5, 0.25])


@pytest.mark.parametrize(("target", "left"), [("a", [[2, 0], [4, 1], [6, 0]]), ("b", [[1, 0], [3, 1], [5, 0]])])
def test_csv_target_by_name_ignores_spaces_around_it(text, target, left):
    x, *_ = imported(text("a , b, c\n" + NUMBERS), target)
    assert sorted(x) == left


def test_csv_target_by_a_quoted_name(text):
    x, *_ = imported(text('"a, of x","b ""z""",c\n' + NUMBERS), "a, of x")
    assert sorted(x) == [[2, 0], [4, 1], [6, 0]]
    x, *_ = imported(text('"a, of x","b ""z""",c\n' + NUMBERS), 'b "z"')
    assert sorted(x) == [[1, 0], [3, 1], [5, 0]]


def test_csv_target_by_name_comes_before_its_number(text):
    x, *_ = imported(text("2,b,c\n1,2,0\n3,4,1\n"), "2")
    assert sorted(x) == [[2, 0], [4, 1]]


def test_csv_name_after_a_byte_order_mark_is_found(text):
    x, *_ = imported(text("\ufeffa,b,c\n" + NUMBERS), "a")
    assert sorted(x) == [[2, 0], [4, 1], [6, 0]]


@pytest.mark.parametrize("target", ["d", "3", "-4", "", "1.0"])
def test_csv_target_that_is_no_column_is_refused(refused, text, target):
    path = text("a,b,c\n" + NUMBERS)
    with refused(path, f"has no column {target!r}; it has a, b, c"):
        imported(path, target)


@pytest.mark.parametrize("target", ["--1", "-", "²"])
def test_csv_target_that_is_no_number_is_refused(refused, text, target):
    path = text(NUMBERS)
    with refused(path):
        imported(path, target)


def test_csv_target_by_name_without_header_is_refused(refused, text):
    path = text(NUMBERS)
    with refused(path, "has no column 'c'; it has 0 to 2"):
        imported(path, "c")


def test_command_line_takes_a_negative_target(make, text):
    words = ("--target", "-3", "--subsets", 1, "--test-fraction", 0)
    description, x, *_ = make("import", text(NUMBERS), *words)
    assert (description.classes, sorted(x.tolist())) == (3, [[2, 0], [4, 1], [6, 0]])


BAD_CSV = {
    "empty": ("", ""),
    "blank": ("\n\n", ""),
    "header only": ("a,b,c\n", ""),
    "one column": ("1\n2\n3\n", "x"),
    "semicolons": ("a;b\n1;2\n", ""),
    "ragged": ("1,2,0\n3,4\n5,6,1\n", "line 2"),
    "longer than its header": ("a,b\n1,2,0\n3,4,1\n", "line 2"),
    "a gap": ("1,2,0\n3,,1\n5,6,0\n", "line 2"),
    "a gap in the first line": ("1,,0\n3,4,1\n5,6,0\n", ""),
    "a gap in the target": ("1,2,0\n3,4,\n5,6,0\n", ""),
    "NaN": ("1,nan,0\n3,4,1\n", "NaN or infinite"),
    "NaN in the target": ("1,2,nan\n3,4,1\n", "NaN or infinite"),
    "infinite": ("1,inf,0\n3,4,1\n", "NaN or infinite"),
    "words in the features": ("a,b,c\nred,2,0\nblue,4,1\n", "could not convert"),
    "one target value": ("1,2,0\n3,4,0\n", "one target value only"),
    "no text": (bytes(range(256)), "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv_is_refused(refuses, text, case):
    content, says = BAD_CSV[case]
    refuses(says, "import", text(content), "--subsets", 1)


SVM = "1 1:0.5 3:2\n-1 2:1 # a comment\n1 1:7\n"


@pytest.mark.parametrize("ending", ["libsvm", "svm", "svmlight", "txt", "LIBSVM"])
def test_libsvm_is_read(make, text, ending):
    path = text(SVM, f"source.{ending}")
    description, x, y, *_ = make("import", path, "--subsets", 1, "--test-fraction", 0)
    assert description.classes == 2
    expected = rows([[0.5, 0, 2], [0, 1, 0], [7, 0, 0]], [1, 0, 1])
    np.testing.assert_array_equal(rows(x, y), expected)


def test_libsvm_of_fractional_targets_is_a_regression(make, text):
    description, *_ = make("import", text("0.5 1:1\n1.5 2:2\n", "source.svm"), "--subsets", 1)
    assert (description.task, description.features) == ("regression", 2)


BAD_SVM = {
    "empty": "",
    "text": "hello world\n",
    "two labels": "1,2 1:0.5\n",
    "NaN": "1 1:nan\n0 1:1\n",
    "a negative column": "1 -1:2\n0 1:1\n",
    "a column twice": "1 1:1 1:2\n0 1:1\n",
    "a huge column": "1 99999999999:1\n0 1:1\n",
    "too many zeros": "1 2000000000:1\n0 1:1\n1 1:1\n",
    "no text": bytes(range(256)),
}


@pytest.mark.parametrize("case", BAD_SVM)
def test_bad_libsvm_is_refused(refuses, text, case):
    refuses("source.svm", "import", text(BAD_SVM[case], "source.svm"), "--subsets", 1)


@pytest.mark.parametrize(("ending", "press"), [("gz", gzip.compress), ("bz2", bz2.compress)])
@pytest.mark.parametrize(("name", "content"), [("source.csv", NUMBERS), ("source.svm", SVM)])
def test_compressed_text_is_read(text, name, content, ending, press):
    assert imported(text(press(content.encode()), f"{name}.{ending}")) == imported(text(content, name))


@pytest.mark.parametrize("name", ["source.csv.gz", "source.svm.gz"])
def test_bad_compressed_text_is_refused(refuses, text, name, bad_gzip):
    refuses(name, "import", text(bad_gzip, name), "--subsets", 1)


@pytest.mark.parametrize("name", ["source.xlsx", "source", "source.csv.zip", "source.npy", ".gz"])
def test_other_endings_are_refused(refuses, text, name):
    refuses("must end in .npz, .h5, .hdf5, .csv, .libsvm", "import", text(NUMBERS, name))


def test_target_of_another_file_than_csv_is_refused(refuses, npz):
    refuses("--target names a column of a CSV file", "import", npz(x=X, y=Y), "--target", "1")


@pytest.mark.parametrize("name", ["none.csv", "."])
def test_missing_source_is_refused(refuses, tmp_path, name):
    refuses("does not exist", "import", tmp_path / name)


@pytest.mark.parametrize("name", ["images.h5", "images.HDF5"])
def test_hdf5_of_images(make, tmp_path, name):
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (12, 2, 4, 3), np.uint8), np.array(["shoe", "hat", "bag"], object)[Y]
    with h5py.File(tmp_path / name, "w") as file:
        file["x"], file["y"] = images, labels
        file["x_test"], file["y_test"], file["names"] = images[:5], labels[:5], [1, 2]
        file.create_group("more")
    description, x, y, test_x, test_y, *_ = make("import", tmp_path / name, "--subsets", 4)
    assert (description.features, description.classes, description.subsets) == (24, 3, 4)
    with h5py.File(description.path) as file:
        assert file["x"].dtype == np.float32
    flat = images.reshape(12, -1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(rows(x, y), rows(flat, np.array([2, 1, 0])[Y]))
    np.testing.assert_array_equal(test_x, flat[:5])
    np.testing.assert_array_equal(test_y, np.array([2, 1, 0])[Y[:5]])


def test_hdf5_without_samples_and_damaged_ones_are_refused(refuses, tmp_path):
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["x"] = X
    refuses("needs arrays x and y, has x", "import", tmp_path / "one.h5")
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["x"], file["y"] = X, h5py.ExternalLink("one.h5", "/x")
    refuses("linked.h5", "import", tmp_path / "linked.h5")
    content = (tmp_path / "one.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    refuses("cut.h5", "import", tmp_path / "cut.h5")
