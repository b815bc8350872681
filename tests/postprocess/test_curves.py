import subprocess
import sys
from pathlib import Path

import pytest

from mpicoded.cli import main
from mpicoded.data.compare import differences, labels
from mpicoded.data.results import load_results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "linear_regression", "-o", "linear.h5"]) == 0
    made = []
    for name, words in {
        "lad": [],
        "less": ["--allocation.redundancy", "5"],
        "uncoded": ["--allocation.name", "partition"],
    }.items():
        config = str(ROOT / "configs" / "quickstart.toml")
        assert main(["run", config, "--quiet", "--rounds", "20", "-o", f"{name}.h5", *words]) == 0
        made.append(f"{name}.h5")
    return made


def curves(*words: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "postprocess" / "curves.py")
    return subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)


def test_labels_say_what_differs(files):
    results = [load_results(path) for path in files]
    assert set(differences(results)[0]) == {"allocation.name", "allocation.redundancy", "allocation.permute"}
    assert labels(results) == [
        "cyclic, redundancy 20, permute True",
        "cyclic, redundancy 5, permute True",
        "partition",
    ]
    assert labels(results[:2]) == ["redundancy 20", "redundancy 5"]
    assert labels([results[0], results[0]]) == ["(lad.h5)", "(lad.h5)"]


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_many_files_become_one_picture(files, tmp_path, ending, magic):
    ended = curves(*files, "-o", f"c.{ending}", "--x", "bytes_up")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / f"c.{ending}").read_bytes().startswith(magic)


def test_every_file_has_its_labelled_curve(files):
    sys.path.insert(0, str(ROOT / "postprocess"))
    import curves as module

    results = [load_results(path) for path in files]
    axes = module.draw(results, labels(results), "round", "suboptimality", None).axes[0]
    assert [line.get_label() for line in axes.lines] == labels(results)
    assert axes.get_xscale() == "linear"
    logarithmic = module.draw(results, labels(results), "bytes_up", "suboptimality", None, log_x=True).axes[0]
    assert logarithmic.get_xscale() == "log"
    assert axes.lines[1].get_ydata().tolist() == results[1].history["suboptimality"].tolist()
    assert len({line.get_color() for line in axes.lines}) == 3
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nope.h5"], "result file nope.h5 does not exist"),
        (["lad.h5", "--y", "accuracy"], "not all files have the history 'accuracy'; they share: "),
        (["lad.h5", "--labels", "a", "b"], "--labels needs 1 labels"),
        (["lad.h5", "-o", "c.docx"], "docx"),
    ],
)
def test_bad_words_are_one_line(files, words, expected):
    ended = curves(*words)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert ended.stderr.count("\n") == 1
