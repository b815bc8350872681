"""The scripts, as users start them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "postprocess").glob("*.py"))
PICTURES = ("allocation", "curves", "heatmap", "suspects", "timeline")


def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = str(ROOT / "postprocess" / f"{name}.py")
    return subprocess.run([sys.executable, path, *words], capture_output=True, text=True, check=False)


def test_there_are_no_others():
    assert sorted([*PICTURES, "table"]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_does(name):
    ended = script(name, "--help")
    assert ended.returncode == 0
    assert f"python postprocess/{name}.py" in ended.stdout


@pytest.mark.parametrize("name", PICTURES)
def test_each_draws_with_its_defaults(here, sweep, name):
    files = sweep if name in ("curves", "heatmap") else ["fixed.h5"]
    ended = script(name, *files)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{name}.png\n"
    assert Path(f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("ending", "magic"), [("pdf", b"%PDF"), ("SVG", b"<?xml")])
def test_a_picture_is_what_its_ending_says_and_one_column_wide(here, ending, magic):
    ended = script("curves", "fixed.h5", "uncoded.h5", "--column", "-o", f"c.{ending}", "--x", "bytes_up")
    assert ended.returncode == 0, ended.stderr
    made = Path(f"c.{ending}").read_bytes()
    assert made.startswith(magic)
    assert ending == "pdf" or b'width="252pt"' in made  # 3.5 inches


def test_several_files_are_several_pictures(here):
    ended = script("timeline", "fixed.h5", "uncoded.h5", "-o", "t.png")
    assert ended.stdout == "t-1.png: fixed.h5\nt-2.png: uncoded.h5\n"
    assert Path("t-2.png").exists()


def test_a_table_is_printed_or_written_as_its_ending_says(here, sweep):
    assert "sign_flip" in script("table", *sweep).stdout
    assert script("table", *sweep, "-o", "t.tex").stdout == "t.tex\n"
    assert Path("t.tex").read_text().startswith(r"\begin{tabular}")
    assert script("table", *sweep, "-o", "t.csv", "--columns", "loss").returncode == 0
    assert Path("t.csv").read_text().startswith("allocation.redundancy,attack.name,seeds,loss,loss_std\n")


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("curves", ["nope.h5"], "result file nope.h5 does not exist"),
        ("curves", ["fixed.h5", "--y", "accuracy"], "not all files have the history 'accuracy'; they share: "),
        ("curves", ["fixed.h5", "--labels", "a", "b"], "--labels needs 1 labels"),
        ("curves", ["fixed.h5", "-o", "c.docx"], "the ending must be one of .png, .pdf, .svg, got '.docx'"),
        ("curves", ["fixed.h5", "-o", "nowhere/c.png"], "picture nowhere/c.png cannot be written"),
        ("curves", ["data_3.h5"], "data_3.h5 is not a result file of mpicoded"),
        ("heatmap", ["fixed.h5"], "which two settings? --rows and --columns choose from: none"),
        ("table", ["fixed.h5", "--columns", "speed"], "no file has the history 'speed'; there are: round, loss"),
        ("table", ["fixed.h5", "-o", "nowhere/t.md"], "No such file or directory"),
        ("allocation", ["fixed.h5", "--round", "40"], "--round must be 0 to 39, got 40"),
        ("suspects", ["nope.h5"], "result file nope.h5 does not exist"),
        ("timeline", ["nope.h5"], "result file nope.h5 does not exist"),
    ],
)
def test_bad_words_are_one_line(here, name, words, expected):
    ended = script(name, *words)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{name}: error: ")
    assert ended.stderr.count("\n") == 1
    assert expected in ended.stderr
