import contextlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import h5py
import pytest

from mpicoded.algorithms.component import members
from mpicoded.cli import main
from mpicoded.commands import recorder
from mpicoded.configs import FAMILIES
from mpicoded.data.results import load_results

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.toml")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a small dataset, entered."""
    monkeypatch.chdir(tmp_path)
    assert main(["data", "linear_regression", "-o", "linear.h5", "--seed", "3"]) == 0
    return tmp_path


def test_run_makes_a_result_named_after_the_config_and_says_how_it_went(here, capsys):
    assert main(["run", QUICKSTART, "--rounds", "30", "--evaluate_every", "20"]) == 0
    said = capsys.readouterr().out
    for word in ("100 devices (20 Byzantine, attack sign_flip)", "suboptimality", "30 rounds in", "quickstart.h5"):
        assert word in said
    result = load_results("quickstart.h5")
    assert result.finished
    assert result.history["round"].tolist() == [0, 20, 30]
    assert set(result.history) >= {
        *("round", "loss", "suboptimality", "gradient_norm"),
        *("bytes_up", "bytes_down", "bytes_overhead", "seconds"),
    }
    assert result.history["suboptimality"][-1] < result.history["suboptimality"][0]
    assert (here / "linear.h5").exists()
    assert [path.name for path in here.iterdir() if ".part" in path.name] == []


def test_quiet_says_nothing(here, capsys):
    capsys.readouterr()
    assert main(["run", QUICKSTART, "--quiet", "--rounds", "3"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_result_exists_before_round_1(here, monkeypatch):
    from mpicoded.training.devices import Devices

    seen = []

    def look(self, *words, **more):
        seen.append(load_results("early.h5").finished)
        raise KeyboardInterrupt

    monkeypatch.setattr(Devices, "messages", look)
    assert main(["run", QUICKSTART, "-o", "early.h5"]) == 130
    assert seen == [False]


def test_resume_runs_an_unfinished_experiment_to_its_end(here, capsys, monkeypatch):
    assert main(["run", QUICKSTART, "--quiet", "--rounds", "20", "-o", "whole.h5"]) == 0
    with h5py.File("whole.h5", "r+") as file:
        whole = file["parameters"][()]
        file.attrs["finished"] = False
        file["parameters"][:] = 0
    assert main(["resume", "whole.h5", "--quiet"]) == 0
    assert (load_results("whole.h5").parameters == whole).all()
    capsys.readouterr()
    assert main(["resume", "whole.h5"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_uniform_reports_the_subsets_that_it_loses(here, capsys):
    words = ["--allocation.name", "uniform", "--allocation.redundancy", "2", "--rounds", "2"]
    assert main(["run", QUICKSTART, *words]) == 0
    said = capsys.readouterr()
    lost = int(re.search(r", (\d+) lost", said.out)[1])
    assert lost > 0
    assert f"{lost} of 100 subsets are on no device" in said.err
    result = load_results("quickstart.h5")
    assert (result.allocation["copies"] == 0).sum() == lost == result.allocation["lost"]
    assert "settles at the optimum of the others" in result.warnings[0]


def test_a_rule_that_tolerates_too_few_is_warned_of(here, capsys):
    assert main(["run", QUICKSTART, "--rounds", "2", "--aggregator.byzantine", "10"]) == 0
    assert "20 devices are Byzantine, but rule or filter tolerates 10" in capsys.readouterr().err


def test_show_summarises_one_and_compares_several(here, capsys):
    for redundancy in ("5", "10"):
        words = ["--rounds", "4", "--allocation.redundancy", redundancy, "-o", f"{redundancy}.h5"]
        assert main(["run", QUICKSTART, "--quiet", *words]) == 0
    capsys.readouterr()
    assert main(["show", "5.h5", "--timings"]) == 0
    said = capsys.readouterr().out
    for word in ("finished", 'name = "sign_flip"', "suboptimality", "allocation: 5 subsets", "compute"):
        assert word in said
    assert main(["show", "5.h5", "10.h5"]) == 0
    heading, _, five, ten = capsys.readouterr().out.splitlines()
    assert "allocation.redundancy" in heading
    assert "seed" not in heading
    assert five.split()[:2] == ["5.h5", "5"]
    assert ten.split()[:2] == ["10.h5", "10"]


def test_list_names_every_component_with_its_fields(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for family, choice in FAMILIES.items():
        assert f"[{family}]" in said
        for name, cls in members(choice).items():
            assert f"  {name}" in said
            for field in cls.__struct_fields__:
                assert f"- {field}: " in said
    assert main(["list", "attack"]) == 0
    assert "[model]" not in capsys.readouterr().out


def test_doctor_finds_this_machine_right(program):
    ended = program("doctor")
    assert ended.code == 0, ended.out + ended.err
    assert "WRONG" not in ended.out
    for word in ("MPI", "launcher", "BLAS threads", "HDF5", "GPU", "round trip"):
        assert f"ok    {word}" in ended.out


@pytest.mark.mpi
def test_doctor_under_mpiexec_counts_the_ranks_once(program):
    ended = program("doctor", ranks=3)
    assert ended.code == 0, ended.err
    assert ended.out.count("ok    ranks") == 1
    assert re.search(r"ok    ranks +3 ", ended.out)
    assert re.search(r"ok    line +between ranks 0 and 1: .* --node-alpha \S+ --node-beta \S+$", ended.out, re.M)


@pytest.mark.mpi
def test_ranks_starts_mpiexec_by_itself(program, tmp_path):
    assert program("data", "linear_regression", "-o", "linear.h5").code == 0
    ended = program("run", QUICKSTART, "--ranks", 3, "--rounds", 5)
    assert ended.code == 0, ended.err
    assert len(load_results(tmp_path / "quickstart.h5").hosts) == 3
    assert "on 3 ranks" in ended.out


DAMAGED = "damaged.h5"
BAD = {
    "a wrong key": (["--aggregator.byzantin", "3"], "aggregator trimmed_mean has no key 'byzantin'"),
    "a wrong type": (["--rounds", "ten"], "rounds: expected int, got 'ten'"),
    "Krum with too few votes": (
        ["--aggregator.name", "krum", "--aggregator.byzantine", "49"],
        "Krum(byzantine=49) needs at least 101 votes, got 100",
    ),
    "redundancy above the subsets": (
        ["--allocation.redundancy", "101"],
        "at most the number of subsets, 100, got 101",
    ),
    "more ranks than devices": (
        [
            "--devices",
            "3",
            "--byzantine",
            "1",
            "--aggregator.byzantine",
            "1",
            "--allocation.name",
            "partition",
        ],
        "4 ranks are more than the 3 devices",
    ),
    "a missing data file": (["--data.path", "nope.h5"], "data file nope.h5 does not exist"),
    "a damaged data file": (["--data.path", DAMAGED], "damaged.h5 is damaged, it cannot be read as HDF5"),
    "data that does not fit the model": (
        ["--data.path", "labels.h5"],
        "labels.h5 holds a classification problem",
    ),
    "the data file as output": (["-o", "linear.h5"], "output linear.h5 is the data file"),
    "another file as output": (["-o", "labels.h5"], "labels.h5 exists and is not a result file of mpicoded"),
    "an output folder that is not there": (["-o", "nowhere/x.h5"], "does not exist"),
    "more kept than there is": (
        ["--compressor.name", "rand_k", "--compressor.kept", "101"],
        "compressor rand_k: kept must be at most the model's dimension, 100, got 101",
    ),
    "a memory of tasks that change": (
        ["--memory.name", "ef21", "--compressor.name", "top_k", "--compressor.kept", "10"],
        "memory ef21: allocation cyclic gives a device another task in each round",
    ),
    "an unknown option": (["--ranks", "none"], "must be a whole number from 1 on"),
}


@pytest.fixture(scope="module")
def refused(common_program):
    """What became of each case on each of 4 ranks, and the files that were there before."""
    folder = common_program.folder
    with contextlib.chdir(folder):
        assert main(["data", "linear_regression", "-o", "linear.h5", "--seed", "3"]) == 0
        Path(DAMAGED).write_bytes(Path("linear.h5").read_bytes()[:1000])
        Path("labels.csv").write_text("a,b\n" + "\n".join(f"{k},{'xy'[k % 2]}" for k in range(150)))
        assert main(["data", "import", "labels.csv", "-o", "labels.h5", "--subsets", "100"]) == 0
    commands = [["run", QUICKSTART, *words, *([] if "-o" in words else ["-o", "bad.h5"])] for words, _ in BAD.values()]
    before = sorted(os.listdir(folder))
    return dict(zip(BAD, common_program.several(commands, ranks=4), strict=True)), before


@pytest.mark.mpi
@pytest.mark.parametrize("case", BAD)
def test_bad_input_on_4_ranks_is_one_line_and_code_2_and_leaves_nothing(refused, case):
    cases, before = refused
    codes, said, files = zip(*cases[case], strict=True)
    assert codes == (2,) * 4
    assert said[1:] == ("",) * 3
    assert re.fullmatch("mpicoded: error: [^\n]+\n", said[0])
    assert BAD[case][1] in said[0]
    assert files[0] == before


@pytest.mark.mpi
def test_a_job_that_is_refused_ends_with_one_line_and_code_2(program, here):
    ended = program("run", QUICKSTART, "-o", "linear.h5", ranks=4, timeout=30)
    (line,) = re.findall("mpicoded: .*", ended.err)
    assert re.fullmatch(r"mpicoded: error: rank 0 on \S+: output linear\.h5 is the data file", line)
    assert "Traceback" not in ended.err
    assert ended.code == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--memory.name", "ef21", "--compressor.name", "sign", "--compressor.scaled", "false"], "is not contractive"),
        (["--compressor.name", "top_k", "--compressor.kept", "101"], "kept must be at most the model's dimension, 100"),
        (["--compressor.name", "qsgd", "--compressor.levels", "0"], "levels: expected int >= 1, got 0"),
        (
            ["--compute.dtype", "float32", "--compressor.dtype", "float64"],
            "compressor none: float64 on the wire is wider",
        ),
        (["--compute.dtype", "float32", "--transport.broadcast", "float64"], "transport root: float64 on the wire is"),
        (["--compressor.dtype", "float128"], "expected one of float64 | float32 | float16"),
        (["--transport.nonces", "dice"], "expected one of seed | entropy"),
        (
            ["--attack.name", "bit_flip", "--attack.bits", "6401"],
            "bits must be at most the 6400 bits of a record, got 6401",
        ),
        (["--attack.name", "malformed", "--attack.bytes", "801"], "bytes must be at most the 800 bytes of a record"),
        (["--attack.name", "non_finite", "--attack.coordinates", "101"], "at most the 100 coordinates of a message"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_what_cannot_be_sent_or_forged_is_refused_beforehand(here, capsys, command, words, expected):
    capsys.readouterr()
    fixed = ["--allocation.permute", "false", "--compressor.name", "none"]
    assert main([command, QUICKSTART, *fixed, *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert expected in said
    assert not Path("quickstart.h5").exists()


def test_plan_says_what_the_run_then_does(program, here):
    words = ["--compressor.name", "rand_k", "--compressor.kept", "10", "--compressor.shared", "true"]
    words += ["--rounds", "50", "--allocation.name", "balanced", "--allocation.redundancy", "2"]
    planned = program("plan", QUICKSTART, *words, "--ranks", 3)
    assert planned.code == 0, planned.err
    said = dict(re.findall(r"^(\S.*?)  +(.*)$", planned.out, re.M))
    ended = program("run", QUICKSTART, "-o", "run.h5", *words, ranks=3)
    assert ended.code == 0, ended.err
    result = load_results("run.h5")
    assert said["50 rounds"] == "400 kB up, 4.04 MB down, 3.15 kB of headers"
    assert [result.history[f"bytes_{name}"][-1] for name in ("up", "down", "overhead")] == [400_000, 4_040_000, 3150]
    assert said["message"].startswith("80 bytes (values: 10 × float64), 0.1 of a dense one")
    assert said["broadcast"] == "808 bytes (nonce: uint64, parameters: 100 × float64)"
    assert said["compressor"] == "rand_k: unbiased, delta 9"
    assert said["gather"].startswith("100 items of 80 bytes, 8 kB at rank 0")
    assert f"{result.memory['shards'][0] / 1000:.3g} kB" in said["0"]
    assert "rho = 0.4949" in said["spread"]  # (100 - 2)/(2 × 99)
    assert "kappa = 2.667 for 20 of 100" in said["rule"]  # 6 a (1 + a), a = 1/3
    assert said["guarantee"].startswith("yes: for a step size small enough for delta 9")


def test_plan_counts_the_rounds_in_which_a_memory_sends_dense_messages(here, capsys):
    words = ["--compressor", '{name = "qsgd", levels = 1}', "--memory", '{name = "marina", probability = 0.3}']
    words += ["--rounds", "40"]
    assert main(["run", QUICKSTART, "-o", "run.h5", *words]) == 0
    capsys.readouterr()
    assert main(["plan", QUICKSTART, *words]) == 0
    said = dict(re.findall(r"^(\S.*?)  +(.*)$", capsys.readouterr().out, re.M))
    told = re.search(r"; 800 bytes in the (\d+) dense rounds of memory marina$", said["message"])
    dense = int(told[1])
    assert 5 < dense < 25
    sent = 100 * (dense * 800 + (40 - dense) * 28)  # 8 bytes of norm, 20 of levels
    assert load_results("run.h5").history["bytes_up"][-1] == sent
    assert said["40 rounds"].startswith(f"{sent / 1e6:.3g} MB up")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "yes: nothing is lost in compression"),
        (["--compressor.name", "natural"], "yes: delta (kappa + 1/H) = 0.335 is below 1/2"),
        (["--compressor.name", "qsgd"], "none: delta (kappa + 1/H) = 26.8 is not below 1/2"),
        (["--compressor.name", "sign"], "none known: the compressor is biased"),
        (["--memory.name", "momentum"], "none known: memory momentum has a theory of its own"),
        (["--aggregator.name", "phocas"], "none known: no kappa is known for this rule"),
        (["--aggregator.name", "mean"], "none: kappa is unbounded"),
        (["--aggregator.byzantine", "19"], "none: kappa is unbounded"),
        (["--aggregator.name", "mean", "--byzantine", "0"], "yes: nothing is lost in compression"),
    ],
)
def test_plan_says_whether_there_is_a_guarantee(here, capsys, words, expected):
    capsys.readouterr()
    assert main(["plan", QUICKSTART, *words]) == 0
    said = dict(re.findall(r"^(\S.*?)  +(.*)$", capsys.readouterr().out, re.M))
    assert said["guarantee"].startswith(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "nope.toml"], "config nope.toml cannot be read: No such file"),
        (["run", "broken.toml"], "broken.toml is not valid TOML"),
        (["show", "nope.h5"], "result file nope.h5 does not exist"),
        (["show", "linear.h5"], "linear.h5 is not a result file of mpicoded"),
        (["list", "rules"], "no family 'rules'; choose from: model"),
        (["data", "linear_regression", "-o", "x.h5", "--subset", "3"], "unknown argument '--subset'"),
        (["data", "linear_regression", "-o", "x.h5", "--subsets", "0"], "must be a whole number from 1 on"),
        (["data", "import", "nope.csv", "-o", "x.h5"], "nope.csv does not exist"),
        (["dance"], "invalid choice: 'dance'"),
        (["show", "linear.h5", "--loud"], "unknown argument '--loud'"),
    ],
)
def test_bad_words_are_one_line_and_code_2(here, capsys, words, expected):
    Path("broken.toml").write_text("devices = = 3")
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert expected in said


def test_a_closed_pipe_is_no_error(here):
    assert main(["run", QUICKSTART, "--quiet", "--rounds", "2"]) == 0
    command = f"{sys.executable} -m mpicoded list | head -n 1"
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stderr == ""


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, mpicoded.cli; print([m for m in ('numpy', 'h5py', 'mpi4py', 'scipy') if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


NOT_IN_A_PLAIN_RUN = (
    "scipy",  # where few numbers are added up
    "llvmlite",
    "torch",
    "importlib.metadata",  # no plug-in is named
    "email",
    "numpy.ma",  # what np.unique and np.median load
    "statistics",
    "mpicoded.data.streaming",  # for data.memory
    "mpicoded.data.readahead",
    "mpicoded.commands.sweep",
    "mpicoded.commands.show",
    "mpicoded.commands.launch",
    "mpicoded.figures",
    "mpicoded.training.probe",
)
FOR_THE_ONE_THAT_WRITES = ("mpicoded.commands.reporter", "mpicoded.commands.recorder", "mpicoded.data.results")
LOADED = """
import sys
before = set(sys.modules)
from mpicoded.cli import main, launched
assert main(["run", {config!r}, "--quiet", "--rounds", "2"]) == 0
with open(f"loaded.{{(launched() or (1, 0))[1]}}", "w") as file:
    print(*sorted(set(sys.modules) - before), file=file)
"""


def test_a_run_imports_only_what_it_uses(here, monkeypatch):
    monkeypatch.delenv("MPICODED_CHECK_SHAPES")  # whose packages load others
    subprocess.run([sys.executable, "-c", LOADED.format(config=QUICKSTART)], check=True)
    loaded = set((here / "loaded.0").read_text().split())
    assert not loaded & {*NOT_IN_A_PLAIN_RUN, "mpi4py"}
    assert loaded > set(FOR_THE_ONE_THAT_WRITES)


@pytest.mark.mpi
def test_ranks_that_do_not_write_load_nothing_for_it(program, here):
    (here / "go.py").write_text(LOADED.format(config=QUICKSTART))
    ended = program.python("go.py", ranks=2, timeout=60)
    assert ended.code == 0, ended.err
    loaded = [set((here / f"loaded.{rank}").read_text().split()) for rank in (0, 1)]
    assert loaded[0] > set(FOR_THE_ONE_THAT_WRITES)
    assert not loaded[1] & set(FOR_THE_ONE_THAT_WRITES)
    for modules in loaded:
        assert "mpi4py" in modules
        assert not modules & set(NOT_IN_A_PLAIN_RUN)


@pytest.mark.parametrize(("call", "frozen"), [("main()", True), ("main(sys.argv[1:])", False)])
def test_garbage_is_looked_for_during_a_run_but_not_in_what_was_loaded(here, call, frozen):
    """Nor at the end of the process, where the system takes all; a program that calls it keeps its own ways."""
    code = f"""
import gc, sys
from mpicoded.cli import main
from mpicoded.training.loop import Trainer
train = Trainer.train
def look(*words, **more):
    print(gc.isenabled(), gc.get_freeze_count() > 10_000)
    return train(*words, **more)
Trainer.train = look
assert {call} == 0
print(gc.isenabled(), gc.get_freeze_count() > len(gc.get_objects()))
"""
    words = [sys.executable, "-c", code, "run", QUICKSTART, "--quiet", "--rounds", "2"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["True", str(frozen)] * 2


def test_versions_are_those_that_are_installed(monkeypatch):
    found = recorder.versions()
    for package in ("numpy", "scipy", "h5py", "msgspec", "mpi4py"):
        assert found[package] == metadata.version(package)
    monkeypatch.setattr(recorder, "_wheels", dict)  # as where packages came in another way
    assert recorder.versions() == found
    monkeypatch.setattr(recorder, "_wheels", lambda: {"numpy": "1.0"})  # not the one that was imported
    assert recorder.versions() == found


@pytest.mark.mpi
def test_ranks_that_read_different_files_are_told_so(program, here):
    """As on nodes with stale copies: each rank goes to a folder of its own before it starts."""
    for rank, seed in ((0, "3"), (1, "3"), (2, "4")):
        (here / str(rank)).mkdir()
        assert main(["data", "linear_regression", "-o", f"{rank}/linear.h5", "--seed", seed]) == 0
    (here / "go.py").write_text(
        "import os, sys; from mpicoded.transport.launched import launched; os.chdir(str(launched()[1]))\n"
        "from mpicoded.cli import main; sys.exit(main())\n"
    )
    ended = program.python("go.py", "run", QUICKSTART, "--rounds", "3", ranks=3, timeout=60)
    assert ended.code == 2
    (line,) = (line for line in ended.err.splitlines() if "mpicoded: " in line)
    assert line.startswith("mpicoded: error: rank 2 on ")
    assert "another config, dataset or model's code than rank 0" in line


@pytest.mark.mpi
def test_resume_of_a_finished_run_says_so_once(program, here):
    assert main(["run", QUICKSTART, "--quiet", "--rounds", "2"]) == 0
    ended = program("resume", "quickstart.h5", ranks=3)
    assert ended.code == 0
    assert ended.out.count("nothing to do") == 1
    ended = program("resume", "nope.h5", ranks=3)
    assert ended.code == 2
    assert ended.err.count("mpicoded: error: result file nope.h5 does not exist") == 1


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", QUICKSTART, "--ranks", "2"], "this is one of 2 processes already"),
        (["data", "linear_regression", "-o", "x.h5"], "start it without mpiexec"),
    ],
)
def test_what_is_for_one_process_refuses_several(program, here, words, expected):
    ended = program(*words, ranks=2)
    assert ended.code == 2
    assert ended.err.count("mpicoded: error") == 1
    assert expected in ended.err


def test_files_of_others_are_never_replaced(here, capsys):
    with h5py.File("beamline.h5", "w") as file:
        file.attrs["experiment"] = "beamline 12"
    Path("notes.txt").write_text("precious")
    for name in ("beamline.h5", "notes.txt"):
        before = Path(name).read_bytes()
        assert main(["run", QUICKSTART, "--rounds", "2", "-o", name]) == 2
        assert main(["data", "linear_regression", "-o", name]) == 2
        assert Path(name).read_bytes() == before
    assert "is not a dataset of mpicoded: it is left as it is" in capsys.readouterr().err


def test_a_terminal_that_knows_only_ascii_is_no_error(here, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for words in (["run", QUICKSTART, "--rounds", "3"], ["list"]):
        ended = subprocess.run([sys.executable, "-m", "mpicoded", *words], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr


def test_training_goes_on_when_nobody_reads_what_it_says(here):
    command = f"{sys.executable} -m mpicoded run {QUICKSTART} --rounds 50 | head -n 1"
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert load_results("quickstart.h5").finished


def test_the_model_follows_from_the_data_unless_it_is_named(here):
    config = Path(QUICKSTART).read_text().replace('[model]\nname = "linear_regression"\n', "")
    assert "model" not in config
    Path("short.toml").write_text(config)
    assert main(["run", "short.toml", "--quiet", "--rounds", "2"]) == 0
    assert load_results("short.h5").experiment["model"] == {"name": "linear_regression"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (["--attack.name", "[1]"], "attack has no component [1]"),
        (["--filters.0.name", "[]"], "the config has no list filters"),
        (["--checkpoint_every", "soon"], "checkpoint_every must be a number of rounds or a time"),
        (["--optimizer.momentum", "1.5"], "optimizer.momentum: expected float < 1"),
        (["--data.path", "a\nb.h5"], "data file a b.h5 does not exist"),
        (["--data.path", "[" * 2000], "data file [[["),
    ],
)
def test_odd_overrides_are_one_line(here, capsys, override, expected):
    assert main(["run", QUICKSTART, *override]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert expected in said
