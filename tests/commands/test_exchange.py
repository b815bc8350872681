"""Results for others: merged files, tables, TensorBoard, configs, and a job that is still running."""

import csv
import re
import struct
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest
import xarray

from mpicoded import load_results
from mpicoded.cli import main
from mpicoded.commands.follow import news
from mpicoded.data import datasets
from mpicoded.data.merged import load_all
from mpicoded.data.naming import experiment_hash

TOML = """devices = 10
rounds = 20
evaluate_every = 5
seed = 3
[data]
path = "data.h5"
[model]
name = "linear_regression"
[optimizer]
name = "sgd"
step_size = 1e-3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("data.h5", subsets=10, features=5)
    (tmp_path / "exp.toml").write_text(TOML)
    for name, words in {"a": [], "b": ["--seed", "4"], "same": ["--transport.name", "root"]}.items():
        assert main(["run", "exp.toml", "--quiet", "-o", f"{name}.h5", *words]) == 0
    return tmp_path


def contents(group, prefix=""):
    """All arrays and attributes, without what HDF5 needs for dimensions."""
    found = {f"{prefix}@{key}": value for key, value in group.attrs.items()}
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            found |= contents(item, f"{prefix}{name}/")
        else:
            own = {key: v for key, v in item.attrs.items() if key not in ("DIMENSION_LIST", "REFERENCE_LIST")}
            found |= {f"{prefix}{name}": item[()]} | {f"{prefix}{name}@{key}": value for key, value in own.items()}
    return found


def test_merged_results_are_the_same_to_the_last_bit(here, capsys):
    capsys.readouterr()
    assert main(["merge", "a.h5", "b.h5", "same.h5", "-o", "m.h5"]) == 0
    names = [experiment_hash(load_results(f"{one}.h5").toml) for one in "ab"]
    said = capsys.readouterr().out
    assert "same.h5: the same experiment, with the same numbers, is there already\n" in said
    assert said.endswith(f"m.h5: 2 results: {names[0]}, {names[1]}\n")
    assert main(["merge", "m.h5", "-o", "again.h5"]) == 0
    for merged in ("m.h5", "again.h5"):
        with h5py.File(merged) as file:
            assert set(file) == set(names)
            for one, name in zip("ab", names, strict=True):
                with h5py.File(f"{one}.h5") as alone:
                    expected, found = contents(alone), contents(file[name])
                assert expected.keys() == found.keys()
                for key, value in expected.items():
                    assert np.asarray(value).dtype == np.asarray(found[key]).dtype, key
                    np.testing.assert_array_equal(found[key], value, err_msg=key)
        with xarray.open_dataset(merged, group=f"{names[0]}/history", engine="h5netcdf") as history:
            np.testing.assert_array_equal(history["loss"], load_results("a.h5").history["loss"])
            assert dict(history.sizes) == {"round": 5}


def test_merged_files_are_read_wherever_results_are(here, capsys):
    assert main(["merge", "a.h5", "b.h5", "-o", "m.h5"]) == 0
    results = load_all(["m.h5"])
    assert sorted(result.experiment["seed"] for result in results) == [3, 4]
    capsys.readouterr()
    assert main(["show", "m.h5"]) == 0
    said = capsys.readouterr().out
    assert all(result.path in said for result in results)
    assert main(["export", "--csv", "m.h5", "-o", "m.csv"]) == 0
    assert len((here / "m.csv").read_text().splitlines()) == 11


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x:..:..:out", "is not a result that is named by its experiment's hash"), ("0123456789", "'0123456789' is not")],
)
def test_a_group_of_a_merged_file_has_no_other_name_than_its_hash(here, capsys, name, expected):
    assert main(["merge", "a.h5", "-o", "m.h5"]) == 0
    with h5py.File("m.h5", "a") as file:
        file.move(next(iter(file)), name)
    capsys.readouterr()
    for words in (
        ["merge", "m.h5", "-o", "n.h5"],
        ["export", "--tensorboard", "m.h5", "-o", "tb/deep"],
        ["show", "m.h5"],
    ):
        assert main(words) == 2
        assert expected in capsys.readouterr().err
    assert not (here / "tb").exists()
    assert not (here / "n.h5").exists()


@pytest.mark.parametrize("name", ["x:..:..:out.h5", "-rf.h5"])
def test_a_file_of_an_odd_name_is_exported_below_the_target(here, name):
    (here / "in").mkdir()
    (here / "in" / name).write_bytes((here / "a.h5").read_bytes())
    before = set(here.rglob("*"))
    assert main(["export", "--tensorboard", f"in/{name}", "-o", "tb/deep"]) == 0
    assert all(
        (here / "tb" / "deep") in path.parents or path.name in ("tb", "deep") for path in set(here.rglob("*")) - before
    )


def test_one_experiment_with_two_ends_is_refused_and_nothing_is_written(here, capsys):
    with h5py.File("same.h5", "a") as file:
        file["parameters"][0] += 1e-15
    assert main(["merge", "a.h5", "same.h5", "-o", "m.h5"]) == 2
    said = capsys.readouterr().err
    assert "a.h5 and same.h5 are of the same experiment, but do not end with the same numbers" in said
    assert not (here / "m.h5").exists()
    assert main(["merge", "a.h5", "-o", "data.h5"]) == 2
    assert "data.h5 exists and is not a file of merged results" in capsys.readouterr().err
    assert main(["merge", "a.h5", "-o", "nowhere/m.h5"]) == 2
    assert "output nowhere/m.h5 cannot be written: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"", b"x" * 4000])
def test_a_damaged_merged_file_is_one_line(here, capsys, damage):
    assert main(["merge", "a.h5", "b.h5", "-o", "m.h5"]) == 0
    whole = (here / "m.h5").read_bytes()
    (here / "m.h5").write_bytes(whole[:2000] + damage)
    capsys.readouterr()
    assert main(["show", "m.h5"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_table_has_every_number_at_full_precision(here):
    assert main(["export", "--csv", "a.h5", "b.h5", "-o", "t.csv"]) == 0
    with open("t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["file", "seed", "round", "loss"]
    for path, seed in (("a.h5", "3"), ("b.h5", "4")):
        history = load_results(path).history
        mine = [row for row in rows if row["file"] == path]
        assert {row["seed"] for row in mine} == {seed}
        for name, values in history.items():
            assert [float(row[name]) for row in mine] == values.tolist()


def events(path):
    """The scalars of an event file: records of a length, its checksum, the event and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    raw, at, found = path.read_bytes(), 0, {}
    while at < len(raw):
        (size,) = struct.unpack_from("<Q", raw, at)
        event = Event.FromString(raw[at + 12 : at + 12 + size])
        at += 16 + size
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value, event.wall_time))
    return found


def test_tensorboard_gets_every_column_once_however_often(here):
    for _ in range(2):
        assert main(["export", "--tensorboard", "a.h5", "b.h5", "-o", "tb"]) == 0
    (path,) = (here / "tb" / "a").iterdir()
    found, history = events(path), load_results("a.h5").history
    assert set(found) == set(history) - {"round"} | {"experiment/text_summary"}
    steps, losses, times = zip(*found["loss"], strict=True)
    assert list(steps) == history["round"].tolist()
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-6)  # TensorBoard has 32 bits
    np.testing.assert_allclose(np.diff(times), np.diff(history["seconds"]), atol=1e-5)


def test_a_config_is_printed_that_gives_the_same_bits(here, capsys):
    capsys.readouterr()
    assert main(["show", "--config", "a.h5"]) == 0
    (here / "again.toml").write_text(capsys.readouterr().out)
    assert main(["run", "again.toml", "--quiet", "-o", "again.h5"]) == 0
    np.testing.assert_array_equal(load_results("again.h5").parameters, load_results("a.h5").parameters)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["export", "a.h5", "b.h5", "-o", "x.safetensors"], "export of parameters takes one result file, got 2"),
        (["export", "--csv", "a.h5", "-o", "nowhere/t.csv"], "output nowhere/t.csv cannot be written"),
        (["export", "--tensorboard", "a.h5", "b.h5", "-o", "tb", "--follow"], "export --follow takes one result file"),
        (["export", "a.h5", "-o", "tb", "--follow"], "export --follow goes with --tensorboard"),
        (["export", "--csv", "a.h5", "-o", "t.csv", "--trust"], "export --trust goes with parameters"),
        (["export", "--tensorboard", "a.h5", "./a.h5", "-o", "tb"], "two of the files would be the run tb/a"),
        (["export", "--tensorboard", "a.h5", "-o", "data.h5"], "data.h5/a cannot be written: Not a directory"),
        (["show", "--follow", "a.h5", "b.h5"], "show --follow takes one result file"),
        (["show", "--follow", "data.h5"], "data.h5 is not a result file of mpicoded"),
        (["show", "--config", "a.h5", "b.h5"], "show --config takes one result, and nothing else, got 2"),
    ],
)
def test_bad_words_are_one_line(here, capsys, words, expected):
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


def test_a_job_is_followed_from_before_it_begins_to_its_end(here, capfd):
    code = []
    follower = threading.Thread(target=lambda: code.append(main(["show", "--follow", "new.h5"])), daemon=True)
    follower.start()
    time.sleep(0.7)
    words = ["--rounds", "40", "--byzantine", "4", "--attack.name", "sign_flip", "--aggregator.name", "mean"]
    job = [sys.executable, "-m", "mpicoded", "run", "exp.toml", "--quiet", "-o", "new.h5", *words]
    assert subprocess.run(job, check=False, capture_output=True, timeout=60).returncode == 0
    follower.join(20)
    assert code == [0]
    said = capfd.readouterr()
    assert "mpicoded: waiting for new.h5" in said.err
    lines = said.out.splitlines()
    losses = load_results("new.h5").history["loss"]
    rows = re.findall(r"^round +(\d+)/40  loss (\S+)  suboptimality", said.out, re.MULTILINE)
    assert rows == [(str(5 * number), f"{loss:.4g}") for number, loss in enumerate(losses)]
    assert any(line.startswith("warning: ") for line in lines)
    assert lines[-1] == "finished"


def replaced(path, result, rows):
    """Put a result file's first rows in the place of another."""
    with h5py.File(f"{result}.h5") as source, h5py.File(f"{path}.part", "w") as target:
        for name in source:
            if name != "history":
                source.copy(name, target)
        target.create_group("history")
        for name, column in source["history"].items():
            target[f"history/{name}"] = column[:rows]
        target.attrs.update(source.attrs)
        target.attrs["finished"] = rows == 5
    (path.parent / f"{path.name}.part").rename(path)


def test_another_run_in_the_place_of_one_that_is_followed_is_noticed(here, monkeypatch):
    steps = iter([("a", 3), ("a", 2), ("a", 4), ("b", 4), ("b", 5)])
    path = here / "out.h5"

    def next_version(seconds=0.0):
        replaced(path, *next(steps))

    next_version()
    monkeypatch.setattr("time.sleep", next_version)
    found = [(len(one.result.history["round"]), one.first, one.anew) for one in news("out.h5")]
    # Rows that come again, as after a resume, are not new; those of another run are, all of them.
    assert found == [(3, 0, False), (2, 3, False), (4, 3, False), (4, 0, True), (5, 4, False)]


def test_what_a_terminal_would_obey_is_not_printed(here, capsys):
    with h5py.File("a.h5", "a") as file:
        file.attrs["warnings"] = ["\x1b[2Jgone"]
        file.attrs["finished"] = True
    for words in (["show", "a.h5"], ["show", "--follow", "a.h5"]):
        capsys.readouterr()
        assert main(words) == 0
        said = capsys.readouterr().out
        assert "\ufffd[2Jgone" in said
        assert "\x1b" not in said


READER = """
import sys, time
import h5py
seen = set()
for number in range(1000):
    with h5py.File("job.h5", "r") as file:
        rounds, losses = file["history/round"][()], file["history/loss"][()]
        assert len(rounds) == len(losses) and (losses == losses).all()
        assert file["parameters"].shape == (5,)
        seen.add(len(rounds))
    time.sleep(0.008)
print(len(seen), "mpicoded" in sys.modules)
"""


@pytest.mark.mpi
def test_the_file_of_a_running_job_is_read_a_thousand_times(here):
    words = ["--rounds", "100000000", "--evaluate_every", "100", "--quiet", "-o", "job.h5"]
    job = subprocess.Popen([sys.executable, "-m", "mpicoded", "run", "exp.toml", *words])
    try:
        deadline = time.monotonic() + 30
        while not (here / "job.h5").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        read = subprocess.run([sys.executable, "-c", READER], check=False, capture_output=True, text=True, timeout=90)
        assert job.poll() is None
    finally:
        job.kill()
        job.wait()
    assert (read.returncode, read.stderr) == (0, "")
    versions, ours = read.stdout.split()
    assert int(versions) > 3  # it was replaced meanwhile
    assert ours == "False"
