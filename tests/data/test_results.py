import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import xarray

import mpicoded
from mpicoded.data import layout
from mpicoded.data.naming import COLUMNS
from mpicoded.data.results import ResultWriter, is_result, load_results
from mpicoded.errors import InputError

TOML = 'devices = 3\nrounds = 20\n\n[aggregator]\nname = "mean"\n'
ALLOCATION = {"redundancy": 3, "copies_spread": "2 to 4", "lost": 0, "storage": 1.5}
PARAMETERS = np.linspace(0, 1, 7)
TIMINGS = {"gradients": np.array([0.5, 0.25]), "gather": np.array([0.1, 0.2])}
MEMORY = {"shards": np.array([800.0, 1600.0]), "peak": np.array([1e8, 2e8])}
BAD = {
    "bad": np.array([0, 3, 0]),
    "rank": np.array([0, 0, 1]),
    "host": np.array(["one", "one", "zwei ×"], object),
    "most_at_once": 2,
    "events": {"round": np.array([1, 4]), "host": np.array(["one", "two"], object), "left_out": 5},
}
OVER_TIME = {"round": np.array([0, 10]), "score": np.array([[0, 0, 0], [1, 2, 0.5]], np.float32)}
SUSPICION = {"score": np.array([1.0, 2.5, 0.5]), "rank_score": np.array([1.75, 0.5]), "over_time": OVER_TIME}
ESTIMATES = {"tolerated": np.array([2, 3]), "outlying": np.array([2, 1]), "proven": np.array([0, 0])}
ROW = dict.fromkeys(COLUMNS, 0.0)


def writer(path, hosts=("one", "two"), warnings=(), rows=3):
    made = ResultWriter(
        path,
        TOML,
        versions={"mpicoded": "0.1", "numpy": "2"},
        mpi="no MPI",
        hosts=list(hosts),
        allocation=ALLOCATION,
        copies=np.array([2, 4, 3]),
        warnings=list(warnings),
        parts={"weight": (2, 3), "bias": (1,)},
    )
    for number in range(rows):
        made.append(row(number))
    return made


def row(number):
    return ROW | {"round": 10 * number, "loss": 1 / (number + 1), "bytes_up": number << 40, "seconds": 0.5 * number}


def write(made, *, finished=True):
    made.write(PARAMETERS, TIMINGS, MEMORY, BAD, SUSPICION, ESTIMATES, finished=finished)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run.h5")


def test_what_was_written_is_loaded(path):
    write(writer(path, warnings=["first × line", "second"]))
    results = load_results(path)
    assert results.path == path
    assert results.toml == TOML
    assert results.experiment == {"devices": 3, "rounds": 20, "aggregator": {"name": "mean"}}
    assert results.finished is True
    assert results.versions == {"mpicoded": "0.1", "numpy": "2"}
    assert results.mpi == "no MPI"
    assert results.hosts == ["one", "two"]
    assert results.warnings == ["first × line", "second"]
    np.testing.assert_array_equal(results.parameters, PARAMETERS)
    for found, expected in ((results.timings, TIMINGS), (results.memory, MEMORY)):
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
    for found, expected in (
        (results.bad_records, BAD),
        (results.suspicion, SUSPICION),
        (results.estimates, ESTIMATES),
        (results.bad_records["events"], BAD["events"]),
        (results.suspicion["over_time"], OVER_TIME),
    ):
        assert set(found) == set(expected)
        for name in set(expected) - {"events", "over_time"}:
            np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_array_equal(results.allocation.pop("copies"), [2, 4, 3])
    assert results.allocation == ALLOCATION


def test_history_keeps_values_and_kinds(path):
    write(writer(path))
    history = load_results(path).history
    assert set(history) == set(COLUMNS)
    for name, values in history.items():
        integer = name in {
            "round",
            "gradients",
            "bytes_up",
            "bytes_down",
            "bytes_overhead",
            "bad_records",
            "missing_records",
            "saturated",
        }
        assert values.dtype == (np.int64 if integer else np.float64)
        np.testing.assert_array_equal(values, [row(number)[name] for number in range(3)])


def test_infinite_and_missing_values_of_a_diverged_run_are_kept(path):
    made = writer(path, rows=0)
    made.append(ROW | {"loss": np.inf, "gradient_norm": np.nan})
    write(made)
    history = load_results(path).history
    assert history["loss"] == [np.inf]
    assert np.isnan(history["gradient_norm"])


def test_package_offers_load_results_and_takes_paths(tmp_path):
    write(writer(tmp_path / "run.h5"))
    assert mpicoded.load_results(tmp_path / "run.h5").mpi == "no MPI"


@pytest.mark.parametrize("hosts", [[], ["a"], ["knöten"] * 4000, ["a host"] * 10_000], ids=[0, 1, 4000, 10_000])
@pytest.mark.parametrize("warnings", [[], [""], ["a warning"] * 300], ids=[0, 1, 300])
def test_any_number_of_hosts_and_warnings(path, hosts, warnings):
    write(writer(path, hosts, warnings))
    results = load_results(path)
    assert (results.hosts, results.warnings) == (hosts, warnings)


def test_file_without_timings_and_memory_is_loaded(path):
    writer(path).write(PARAMETERS, {}, {}, {}, {}, {}, finished=False)
    results = load_results(path)
    assert (results.timings, results.memory) == ({}, {})


def test_file_is_complete_after_each_write_and_nothing_else_is_left(tmp_path, path):
    made = writer(path, rows=0)
    for rows in range(4):
        write(made, finished=rows == 3)
        assert os.listdir(tmp_path) == ["run.h5"]
        results = load_results(path)
        assert results.finished is (rows == 3)
        assert len(results.history["round"]) == len(results.history["loss"]) == rows
        made.append(row(rows))


def test_warnings_that_come_later_are_written(path):
    warnings = []
    told = {"versions": {}, "mpi": "", "hosts": [], "allocation": {}, "copies": np.ones(1), "parts": {}}
    made = ResultWriter(path, TOML, warnings=warnings, **told)
    write(made)
    warnings.append("rank 3 sent NaN")
    write(made)
    assert load_results(path).warnings == ["rank 3 sent NaN"]


def test_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, path):
    made = writer(path)
    write(made)
    with pytest.raises(TypeError):
        made.write(np.array([object()]), TIMINGS, MEMORY, BAD, SUSPICION, ESTIMATES, finished=True)
    assert os.listdir(tmp_path) == ["run.h5"]
    np.testing.assert_array_equal(load_results(path).parameters, PARAMETERS)


def test_full_disk_leaves_the_old_file_and_no_temporary_one(tmp_path, path):
    write(writer(path))
    program = (
        "import resource, numpy as np\n"
        "from mpicoded.data.results import ResultWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "made = ResultWriter('run.h5', '', versions={}, mpi='', hosts=[], allocation={}, copies=np.ones(1),"
        " warnings=[], parts={})\n"
        "made.write(np.ones(100_000), {}, {}, {}, {}, {}, finished=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "File too large" in ended.stderr
    assert os.listdir(tmp_path) == ["run.h5"]
    np.testing.assert_array_equal(load_results(path).parameters, PARAMETERS)


def test_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(number):
        calls.append(os.fstat(number).st_ino)
        fsync(number)

    def note_replace(source, target):
        assert os.stat(source).st_ino in calls
        replace(source, target)
        calls.append("replaced")

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write(writer(path))
    assert "replaced" in calls


def test_history_opens_in_xarray_without_a_warning(path):
    write(writer(path))
    with xarray.open_dataset(path, group="history", engine="h5netcdf") as history:
        assert dict(history.sizes) == {"round": 3}


def test_all_groups_open_in_xarray_with_named_dimensions(path):
    write(writer(path))
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        assert tree["parameters"].dims == ("parameter",)
        assert tree["timings/gather"].dims == tree["suspicion/rank_score"].dims == ("mpi_rank",)
        assert tree["suspicion/score"].dims == tree["bad_records/host"].dims == ("device",)
        assert tree["suspicion/over_time/score"].dims == ("time", "device")
        assert tree["suspicion/over_time/score"].shape == (2, 3)
        assert tree["allocation/copies"].dims == ("subset",)
        assert str(tree["bad_records/host"].values[2]) == "zwei ×"


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_variables_of_the_history_have_one_dimension_and_units_in_xarray(path, rows):
    write(writer(path, rows=rows))
    with xarray.open_dataset(path, group="history", engine="h5netcdf") as history:
        assert dict(history.sizes) == {"round": rows}
        assert list(history.coords) == ["round"]
        assert set(history.variables) == (set(COLUMNS) if rows else {"round", "loss"})
        for name, variable in history.variables.items():
            assert variable.dims == ("round",)
            assert variable.attrs == dict(zip(("units", "long_name"), COLUMNS[name], strict=True))
            np.testing.assert_array_equal(variable, [row(number)[name] for number in range(rows)])
        assert rows < 2 or float(history.loss.sel(round=10)) == 0.5


def test_file_opens_in_plain_h5py_with_units(path):
    write(writer(path))
    with h5py.File(path) as file:
        assert set(file) == {
            "history",
            "parameters",
            "parameter",
            "timings",
            "memory",
            "allocation",
            "lost_ranks",
            "bad_records",
            "suspicion",
            "estimates",
            *("mpi_rank", "device", "event", "step", "subset", "time"),
        }
        assert {"experiment", "finished", "versions", "mpi", "hosts", "warnings"} <= set(file.attrs)
        assert (file.attrs["format"], file.attrs["version"]) == ("mpicoded-result", 1)
        assert json.loads(file.attrs["versions"]) == {"mpicoded": "0.1", "numpy": "2"}
        assert all(file["history"][name].dims[0][0] == file["history/round"] for name in set(COLUMNS) - {"round"})
        units = {name: file[name].attrs["units"] for name in ("history/seconds", "timings/gather", "memory/peak")}
        assert units == {"history/seconds": "s", "timings/gather": "s", "memory/peak": "byte"}


def without(name):
    def damage(file):
        if name in file.attrs:
            del file.attrs[name]
        else:
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
        file.create_group(f"{name}/inside")

    return damage


def attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


PARTS = ("parameters", "history", "history/round", "history/seconds", "allocation", "allocation/copies")
ATTRIBUTES = ("experiment", "finished", "versions", "mpi", "hosts", "warnings")
DAMAGES = {
    **{f"no {name}": without(name) for name in PARTS + ATTRIBUTES},
    **{f"{name} is a group": as_group(name) for name in ("parameters", "history", "timings", "history/loss")},
    **{f"{name} is a dataset": replaced(name, 1.0) for name in ("history", "timings", "memory", "allocation")},
    "history of unequal lengths": replaced("history/seconds", np.zeros(7)),
    "experiment is no TOML": attribute("experiment", "devices = "),
    "experiment is a number": attribute("experiment", 3),
    "versions is no JSON": attribute("versions", "{"),
    "versions is a number": attribute("versions", 3),
    "finished is a list": attribute("finished", [1, 0]),
    "hosts is a number": attribute("hosts", 3),
    "warnings is nothing": attribute("warnings", h5py.Empty("f8")),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_file_is_refused(path, refused, case):
    write(writer(path))
    with h5py.File(path, "r+") as file:
        DAMAGES[case](file)
    with refused(path):
        load_results(path)


def test_missing_file_is_refused(path, refused):
    with refused(path, "does not exist"):
        load_results(path)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x89HDF\r\n\x1a\n", bytes(9999)])
def test_other_file_is_refused(path, refused, content):
    with open(path, "wb") as file:
        file.write(content)
    with refused(path, "is damaged"):
        load_results(path)


def test_folder_is_refused(tmp_path, refused):
    with refused(tmp_path):
        load_results(tmp_path)


def test_other_hdf5_file_is_refused(path, refused):
    layout.write(path, np.ones((2, 1)), np.ones(2), np.array([0, 2]), made_by="a test")
    with refused(path, "is not a result file of mpicoded"):
        load_results(path)


def test_is_result_tells_result_files_from_others(tmp_path):
    write(writer(tmp_path / "run.h5"))
    layout.write(tmp_path / "data.h5", np.ones((2, 1)), np.ones(2), np.array([0, 2]), made_by="a test")
    (tmp_path / "text.h5").write_text("hello")
    found = {name: is_result(tmp_path / name) for name in ("run.h5", "data.h5", "text.h5", "none.h5", ".")}
    assert found == {"run.h5": True, "data.h5": False, "text.h5": False, "none.h5": False, ".": False}


def test_truncated_file_is_refused(path):
    write(writer(path))
    with open(path, "rb") as file:
        content = file.read()
    rng = np.random.default_rng(0)
    for length in [*rng.integers(0, len(content), 120), *range(len(content) - 20, len(content))]:
        with open(path, "wb") as file:
            file.write(content[:length])
        with pytest.raises(InputError) as raised:
            load_results(path)
        assert path in str(raised.value)
        assert "\n" not in str(raised.value)


READER = """
import sys
from mpicoded.data.results import load_results
rows = seen = 0
print("ready", flush=True)
while rows < int(sys.argv[2]):
    results = load_results(sys.argv[1])
    assert len(results.history["round"]) == len(results.history["loss"]) >= rows
    rows = len(results.history["round"])
    seen += 1
print(seen)
"""


def test_reader_in_another_process_always_finds_a_complete_file(path):
    made = writer(path, rows=1)
    write(made)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, path, "101"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert reader.stdout.readline() == "ready\n"
    for number in range(1, 101):
        made.append(row(number))
        write(made)
    out, err = reader.communicate(timeout=60)
    assert reader.returncode == 0, err
    assert int(out) > 10


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_results import write, writer
print("ready", flush=True)
input()
for _ in range(15):
    write(writer("run.h5"))
"""


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """A requeued job may start while the old one still writes: the temporary names differ by process."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, os.path.dirname(__file__)],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in started]
    assert errors == ["", ""]
    assert os.listdir(tmp_path) == ["run.h5"]
    load_results(tmp_path / "run.h5")
