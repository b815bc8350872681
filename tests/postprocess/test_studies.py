import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import mpicoded
from mpicoded import load_results
from mpicoded.errors import InputError
from postprocess.studies import __main__ as entrance
from postprocess.studies import study as frame
from postprocess.studies.runs import Data, Folder, Run
from postprocess.studies.study import PAGES, Study, main
from postprocess.studies.tables import Cell, Table, Tolerance, differences, each, last, parse, places, spread, strays

ROOT = Path(__file__).parents[2]
STUDIES = {name: module.STUDY for name in entrance.NAMES
           if hasattr(module := import_module(f"postprocess.studies.{name}"), "STUDY")}  # fmt: skip

# --- tables and pages


@pytest.mark.parametrize(
    ("page", "computed", "same"),
    [
        ("104.2", "104.9", True),
        ("104.2", "105.9", False),
        ("0.15 ± 0.02", "0.16 ± 0.02", True),  # may be rounding
        ("0.15 ± 0.02", "0.17 ± 0.02", False),
        ("**5 5 4**", "5 5 4", True),
        ("5 5 4", "5 5 5", False),  # counts are not rounded
        ("3.64e-12", "9.1e-13", True),  # below the floor
        ("3.64e-12", "3.64e-8", False),
        ("1.00e+01", "1.01e+01", True),
        ("−2, 3–5", "-2, 3–5", True),
        ("two places", "cloud", False),
        ("4255, 4255", "4255", False),
        ("> start", "12", False),
    ],
)
def test_numbers_may_be_a_little_off_and_words_not(page, computed, same):
    assert Tolerance(0.01, 1e-9).equal(page, computed) == same


def words(text):
    return Cell((), lambda found: text)


TABLE = Table(("method", "cost", "end"), [("`one`", "1", words("100 ± 3")), ("`two`", "4", words("20"))])
PAGE = """Text.

| method | cost | end |
|---|---|---|
| `one` | 1 | **100 ± 3** |
| `two` | 4 | 20 |

| other |
|---|
"""


def lines(page):
    return [*differences(places([TABLE]), page, lambda run: None, Tolerance()), *strays([TABLE], page)]


def test_a_page_with_the_same_tables_has_no_differences():
    assert parse(PAGE)[0][0] == TABLE.head
    assert lines(PAGE) == []
    assert lines(PAGE.replace("| 20 |", "| 20.1 |")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("| 20 |", "| 21 |", "`two`: end: the page has 21, computed is 20"),
        ("**100 ± 3**", "about 100 ± 3", "`one`: end: the page has about 100 ± 3"),
        ("| 4 |", "| 5 |", "`two`: cost"),
        ("| `two` | 4 | 20 |\n", "", "`two`: end: the page has no such row"),
        ("| `two` | 4 | 20 |\n", "| `two` | 4 |\n", "one of other length"),
        ("| `two` | 4 | 20 |\n", "| `two` | 4 | 20 |\n| `three` | 4 | 20 |\n", "a row `three`"),
        ("| method |", "| methods |", "the page has 0 tables with the head method"),
        (PAGE, 2 * PAGE, "the page has 2 tables"),
    ],
)
def test_what_differs_is_said(old, new, said):
    assert old in PAGE
    assert any(said in line for line in lines(PAGE.replace(old, new)))


def test_a_sample_is_spread_over_all_cells():
    many = [Table((str(n), "a", "b"), [(str(row), "words", words("1")) for row in range(10)]) for n in range(4)]
    chosen = places(many, 4)
    assert [place.table for place in chosen] == many
    assert places(many, 4) == chosen
    assert len(places(many, 1000)) == 40
    assert all(isinstance(place.cell, Cell) for place in places(many, 1000))


@pytest.mark.parametrize("name", STUDIES)
def test_every_page_has_all_tables_of_its_study(name):
    """Heads and rows; the numbers take minutes."""
    stored = parse((PAGES / f"{name}.md").read_text())
    for table in STUDIES[name].tables(list(STUDIES[name].seeds)):
        (rows,) = [rows for head, rows in stored if head == table.head]
        assert [row[0] for row in rows] == [row[0] for row in table.rows]
        assert all(len(row) == len(table.head) for row in (*rows, *table.rows))


# --- runs that stay


SMALL = Data("linear_regression", ("--subsets", 20, "--features", 6, "--seed", 1))


def small(**changed):
    settings = {"devices": 20, "byzantine": 4, "aggregator.byzantine": 4, "allocation.redundancy": 5}
    settings |= {"rounds": 3, "seed": 1, **changed}
    return Run("quickstart", SMALL, tuple(word for key, value in settings.items() for word in (f"--{key}", value)))


def times(paths):
    return {path: path.stat().st_mtime_ns for path in paths.values()}


def test_what_is_finished_is_not_run_again(tmp_path):
    runs = [small(), small(seed=2)]
    kept = dict(Folder(tmp_path).keep(runs))
    before = times(kept)
    assert len(before) == 2
    kept[runs[1]].unlink()
    assert Folder(tmp_path).keep(runs) == kept
    after = times(kept)
    assert after[kept[runs[0]]] == before[kept[runs[0]]]
    assert after[kept[runs[1]]] != before[kept[runs[1]]]


def test_other_settings_are_another_file_and_words_for_the_same_are_not(tmp_path):
    kept = Folder(tmp_path).keep([small(), small(rounds=4), Run("quickstart", SMALL, (*small().words, "--rounds", 3))])
    assert len(set(kept.values())) == 2


def test_a_file_of_other_settings_under_the_name_is_noticed(tmp_path, capsys):
    one, other = small(), small(seed=2)
    kept = Folder(tmp_path).keep([one, other])
    shutil.copy(kept[other], kept[one])
    assert Folder(tmp_path).result(one).experiment["seed"] == 1
    assert "of other settings than its name says, so it is run again" in capsys.readouterr().err


def test_a_file_of_another_version_is_noticed(tmp_path, capsys, monkeypatch):
    (before,) = times(Folder(tmp_path).keep([small()])).values()
    written_by = mpicoded.__version__
    monkeypatch.setattr(mpicoded, "__version__", "99")
    (after,) = times(Folder(tmp_path).keep([small()])).values()
    assert after != before
    assert f"of version {written_by} of mpicoded, so it is run again" in capsys.readouterr().err


def test_one_process_and_two_make_the_same(tmp_path):
    runs = [small(seed=seed) for seed in range(3)]
    alone, both = Folder(tmp_path / "1").keep(runs, 1), Folder(tmp_path / "2").keep(runs, 2)
    assert [alone[run].name for run in runs] == [both[run].name for run in runs]
    for run in runs:
        one, other = load_results(alone[run]), load_results(both[run])
        np.testing.assert_array_equal(one.parameters, other.parameters)
        np.testing.assert_array_equal(one.history["loss"], other.history["loss"])


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_run_refuses_ends_the_study_with_its_words(tmp_path, jobs):
    with pytest.raises(InputError, match=r"ended with 2: .*needs at least 41 votes, got 20"):
        Folder(tmp_path).keep([small(seed=seed, **{"aggregator.byzantine": 20}) for seed in range(2)], jobs)


# --- the command


def tables(seeds):
    runs = tuple(small(seed=seed) for seed in seeds)
    return [Table(("tiny", "ends", "spread"), [
        ("all", Cell(runs, each(last("suboptimality"))), Cell(runs, spread(last("suboptimality"))))
    ])]  # fmt: skip


TINY = Study(tables, range(1, 3), "no time")


@pytest.fixture
def pages(tmp_path, monkeypatch):
    monkeypatch.setattr(frame, "PAGES", tmp_path)
    return tmp_path


def test_what_a_study_prints_passes_its_check(pages, capsys):
    folder = str(pages / "runs")
    assert main("tiny", TINY, [folder, "--jobs", "1"]) == 0
    page = capsys.readouterr().out
    (pages / "tiny.md").write_text(f"# Tiny\n\n{page}")
    assert main("tiny", TINY, [folder, "--jobs", "1", "--check"]) == 0
    assert "2 cells compared, no differences" in capsys.readouterr().out
    (pages / "tiny.md").write_text(page.replace("±", "+"))
    assert main("tiny", TINY, [folder, "--jobs", "1", "--check"]) == 1
    assert "tiny: all: spread: the page has" in capsys.readouterr().out
    assert main("tiny", TINY, [folder, "--jobs", "1", "--check", "--sample", "1"]) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--sample", "3"], "--sample is for --check"),
        (["--check", "--seeds", "1"], "--check needs the page's 2 seeds, got 1"),
        (["--only", "nothing"], "--only nothing: tiny has no such table"),
        (["--picture", "x.png"], "tiny has no picture"),
    ],
)
def test_words_that_do_not_fit_are_refused(pages, capsys, given, said):
    assert main("tiny", TINY, [str(pages / "runs"), *given]) == 2
    assert capsys.readouterr().err == f"studies: error: {said}\n"


@pytest.mark.parametrize("word", ["0", "-1", "two", "1.5"])
def test_a_count_that_is_none_is_refused(pages, capsys, word):
    with pytest.raises(SystemExit) as ended:
        main("tiny", TINY, [str(pages / "runs"), f"--seeds={word}"])
    assert ended.value.code == 2
    assert f"argument --seeds: needs a number from 1 on, got {word}" in capsys.readouterr().err


def studies(*given, **options):
    command = [sys.executable, "-m", "postprocess.studies", *given]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_without_a_name_all_are_listed_and_a_wrong_one_is_refused():
    listed = studies()
    assert [line.split()[0] for line in listed.stdout.splitlines()[2:]] == entrance.NAMES
    assert listed.returncode == 0
    wrong = studies("lda")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("studies: error: lda is no study; there are attackers,")


# --- the pages say what the studies compute


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("name", "cells"), [("exact_codes", 12), ("attackers", 3), ("baselines", 2), ("com_lad", 1), ("cra_dl", 1)]
)
def test_a_sample_of_the_page_is_what_comes_out(name, cells, tmp_path):
    ended = studies(name, str(tmp_path), "--check", "--sample", str(cells))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{name}: {cells} cells compared, no differences" in ended.stdout
