"""``mpicoded allocation``: the numbers of the report, and pictures that say who computes what."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpicoded.algorithms import allocations
from mpicoded.algorithms.allocations import BlockDesign, Cyclic
from mpicoded.algorithms.component import members
from mpicoded.cli import main
from mpicoded.commands import allocation as command
from mpicoded.data import datasets
from mpicoded.data.results import load_results
from mpicoded.figures import allocation as figures

QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.toml")
ONE_LIES = ["--byzantine", "1", "--aggregator.byzantine", "1"]
FANO = ["--devices", "7", *ONE_LIES, "--data.path", "14.h5", "--allocation", '{name = "block_design"}']


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with small datasets, named after their numbers of subsets, entered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    for subsets in (9, 10, 14, 25):
        datasets.linear_regression(f"{subsets}.h5", subsets=subsets, features=6, seed=3)
    datasets.linear_regression("linear.h5", subsets=100, features=6, seed=3)
    return tmp_path


def decode(text):
    """The matrix that a picture in text shows."""
    lines = [line for line in text.splitlines() if not line.startswith(("devices downwards", "a dot", "a sign"))]
    width = max(map(len, lines))
    if set(text.partition("\n")[2]) <= set("#.\n"):
        return np.array([[sign == "#" for sign in line] for line in lines])
    rows = []
    for line in lines:
        signs = line.ljust(width)
        if set(signs) <= set(" ▀▄█"):
            rows += [[sign in "▀█" for sign in signs], [sign in "▄█" for sign in signs]]
        else:
            dots = [[ord(sign) - 0x2800 for sign in signs]] * 4
            masks = [(0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80)]
            rows += [[bool(dot & bit) for dot in row for bit in pair] for row, pair in zip(dots, masks, strict=True)]
    return np.array(rows)


def drawn(devices, subsets, share=0.3):
    return np.random.default_rng(devices).random((devices, subsets)) < share


@pytest.mark.parametrize(
    ("devices", "subsets", "signs", "characters"),
    [
        (7, 60, True, set(" ▀▄█")),
        (80, 60, True, set(" ▀▄█")),
        (81, 60, True, None),
        (20, 61, True, None),
        (160, 120, True, None),
        (40, 60, False, set("#.")),
        (1, 1, True, set(" ▀▄█")),
    ],
)
def test_a_picture_that_fits_is_the_assignment(devices, subsets, signs, characters):
    held = drawn(devices, subsets)
    held[-1, -1] = True
    text = command.draw(held, 60, 40, signs)
    heading, *lines = text.splitlines()
    assert heading == "devices downwards, subsets to the right"
    assert max(map(len, lines)) <= 60
    assert len(lines) <= 40
    if characters:
        assert set("".join(lines)) <= characters
    else:
        assert all(0x2800 <= ord(sign) < 0x2900 for line in lines for sign in line)
    shown = decode(text)
    np.testing.assert_array_equal(shown[:devices, :subsets], held)
    assert not shown[devices:].any()
    assert not shown[:, subsets:].any()


@pytest.mark.parametrize("signs", [True, False])
@pytest.mark.parametrize(("devices", "subsets"), [(161, 100), (100, 1000), (1000, 30), (500, 700)])
def test_a_picture_that_does_not_fit_is_scaled_down(devices, subsets, signs):
    held = drawn(devices, subsets)
    heading, scale, *lines = command.draw(held, 60, 40, signs).splitlines()
    assert heading == "devices downwards, subsets to the right"
    rows, columns = (160, 120) if signs else (40, 60)
    rows, columns = min(rows, devices), min(columns, subsets)
    assert re.match(r"a (dot|sign) stands for (\S+) by (\S+) of them", scale)[2] == f"{devices / rows:.3g}"
    assert max(map(len, lines)) <= 60
    assert len(lines) <= 40
    shown = decode("\n".join([heading, *lines]))[:rows, :columns]
    np.testing.assert_array_equal(shown, command.shrink(held, rows, columns))


def test_a_dot_is_set_where_at_least_the_average_is_computed():
    """By loops over the rectangles."""
    held = drawn(23, 37, 0.2)
    small = command.shrink(held, 5, 8)
    for row in range(5):
        for column in range(8):
            part = held[row * 23 // 5 : (row + 1) * 23 // 5, column * 37 // 8 : (column + 1) * 37 // 8]
            assert small[row, column] == (part.mean() >= held.mean())
    for value in (True, False):
        assert (command.shrink(np.full((23, 37), value), 5, 8) == value).all()
    one = np.zeros((40, 40), bool)
    one[17, 39] = True
    assert np.argwhere(command.shrink(one, 4, 4)).tolist() == [[1, 3]]


def test_the_table_has_the_numbers_of_the_report(here, capsys):
    assert main(["allocation", QUICKSTART, *FANO]) == 0
    said = capsys.readouterr().out
    assert said.startswith("block_design: 7 devices, 14 subsets, the same in all rounds\n")
    for line in (
        "subsets on a device (r)           6    6     6",
        "copies of a subset                3    3     3",
        "subsets that two devices share    2    2     2",
        "subsets stored on a device        6    6     6",
        "load, uncoded = 1 (2 subsets)     3    3     3",
    ):
        assert re.sub(" +", " ", line) in re.sub(" +", " ", said)
    assert "lost: 0 of 14 subsets are on no device" in said
    assert f"rho = {(14 - 6) / (6 * 13):.4g}: a message of encoder mean" in said
    held = BlockDesign().assignment(7, 14, 0, 3)
    np.testing.assert_array_equal(decode(said[said.index("devices downwards") :])[:7, :14], held)


def test_rho_is_that_of_the_encoder(here, capsys):
    rhos = []
    for weighting in ("plain", "unbiased"):
        words = ["--data.path", "10.h5", "--devices", "8", *ONE_LIES, "--allocation.name", "uniform"]
        words += ["--allocation.redundancy", "6", "--encoder", f'{{name = "mean", weighting = "{weighting}"}}']
        assert main(["allocation", QUICKSTART, *words]) == 0
        rhos.append(re.search(r"rho = (\S+):", capsys.readouterr().out)[1])
        assert main(["plan", QUICKSTART, *words]) == 0
        assert f"rho = {rhos[-1]}:" in capsys.readouterr().out
    assert rhos[0] != rhos[1]


def test_a_varying_allocation_is_drawn_for_the_round_that_is_asked_for(here, capsys):
    shown = {}
    for round in (0, 4):
        assert main(["allocation", QUICKSTART, "--round", str(round), "--allocation.redundancy", "20"]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"cyclic: 100 devices, 100 subsets, round {round}\n")
        shown[round] = decode(said[said.index("devices downwards") :])[:100, :100]
        np.testing.assert_array_equal(shown[round], Cyclic(redundancy=20).assignment(100, 100, round, 3))
    assert (shown[0] != shown[4]).any()
    rounds = re.search(r"^rounds = (\d+)", Path(QUICKSTART).read_text(), re.M)[1]
    assert main(["allocation", QUICKSTART, "--round", rounds]) == 2
    assert f"--round must be below the experiment's {rounds} rounds, got {rounds}" in capsys.readouterr().err


@pytest.mark.parametrize(("encoding", "signs"), [("utf-8", True), ("ascii", False), ("latin-1", False)])
def test_a_terminal_without_these_signs_gets_plain_ones(here, encoding, signs):
    call = [sys.executable, "-m", "mpicoded", "allocation", QUICKSTART, *FANO]
    ended = subprocess.run(call, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.decode(encoding)
    shown = decode(said[said.index("devices downwards") :])[:7, :14]
    np.testing.assert_array_equal(shown, BlockDesign().assignment(7, 14, 0, 3))
    assert ("#" in said) is not signs


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")])
def test_the_picture_is_written_as_its_ending_says(here, capsys, ending, magic):
    assert main(["allocation", QUICKSTART, *FANO, "-o", f"fano.{ending}"]) == 0
    assert Path(f"fano.{ending}").read_bytes().startswith(magic)
    assert capsys.readouterr().out.endswith(f"\nfano.{ending}\n")


def test_the_picture_is_blue_where_a_device_computes_a_subset():
    held = drawn(5, 8)
    figure = figures.draw(held, "some: 5 devices")
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("subset", "device", "some: 5 devices")
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), held)
    colours = image.cmap(image.norm(held.astype(float)))
    assert {tuple(np.round(255 * colour[:3]).astype(int).tolist()) for colour in colours[held]} == {(0, 0x72, 0xB2)}
    assert (colours[~held] == 1).all()
    assert axes.yaxis_inverted()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("fano.gif", "picture fano.gif: the ending must be one of .png, .pdf, .svg, got '.gif'"),
        ("fano", "the ending must be one of .png, .pdf, .svg, got 'none'"),
        ("nowhere/fano.png", "picture nowhere/fano.png cannot be written: No such file or directory"),
    ],
)
def test_a_picture_that_cannot_be_written_is_one_line_and_code_2(here, capsys, output, expected):
    capsys.readouterr()
    assert main(["allocation", QUICKSTART, *FANO, "-o", output]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert not Path(output).exists()


def test_without_matplotlib_there_is_text_but_no_picture(here, capsys, monkeypatch):
    for name in ("matplotlib", "matplotlib.colors", "matplotlib.figure", "matplotlib.ticker"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["allocation", QUICKSTART, *FANO]) == 0
    capsys.readouterr()
    assert main(["allocation", QUICKSTART, *FANO, "-o", "fano.png"]) == 2
    assert capsys.readouterr() == (
        "",
        "mpicoded: error: a picture needs matplotlib: pip install 'mpicoded[plots]'\n",
    )


def test_an_allocation_that_does_not_exist_names_those_that_do(here, capsys):
    capsys.readouterr()
    for name in ("allocation", "plan", "run"):
        assert main([name, QUICKSTART, "--allocation", '{name = "block_design"}']) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "nearest: 101 devices with 101 subsets, 99 with 99, 16 with 100, 100 with 825" in said
    assert main(["allocation", QUICKSTART, "--allocation.redundance", "3"]) == 2
    assert "has no key 'redundance'" in capsys.readouterr().err


LOSES = ["--devices", "5", *ONE_LIES, "--data.path", "25.h5", "--allocation", '{name = "orthogonal_array"}']


def test_unbiased_weights_of_an_array_that_loses_subsets_are_refused_before_a_run(here, capsys):
    capsys.readouterr()
    refused = (
        "weighting unbiased cannot be, as allocation orthogonal_array leaves 4 of 25 subsets on none of the 5 devices"
    )
    for name in ("run", "plan"):
        assert main([name, QUICKSTART, *LOSES]) == 2
        assert refused in capsys.readouterr().err
    assert main(["allocation", QUICKSTART, *LOSES]) == 0
    said = capsys.readouterr().out
    assert "lost: 4 of 25 subsets" in said
    assert f"a run would be refused: encoder mean: {refused}" in said
    assert main(["run", QUICKSTART, *LOSES, "--encoder", '{name = "mean", weighting = "plain"}', "--rounds", "2"]) == 0
    assert load_results("quickstart.h5").allocation["lost"] == 4
    assert main(["allocation", QUICKSTART, *LOSES, "--devices", "6"]) == 0
    assert "refused" not in capsys.readouterr().out


RUNS = {
    "block_design": (7, 14, ""),
    "orthogonal_array": (6, 25, ""),
    "repetition": (9, 14, ""),
    "latin_square": (9, 9, ""),
    "all_subsets": (5, 10, ", copies = 2"),
}


def test_every_allocation_of_this_room_runs():
    assert set(RUNS) == set(members(allocations.Choice)) - {"partition", "cyclic", "uniform", "balanced"}


def words_of(name):
    devices, subsets, fields = RUNS[name]
    words = ["--devices", str(devices), *ONE_LIES, "--rounds", "40", "--data.path", f"{subsets}.h5"]
    return [*words, "--allocation", f'{{name = "{name}"{fields}}}']


@pytest.mark.parametrize("name", RUNS)
def test_training_with_it_comes_nearer_to_the_optimum(here, name):
    assert main(["run", QUICKSTART, "--quiet", *words_of(name)]) == 0
    history = load_results("quickstart.h5").history
    assert history["suboptimality"][-1] < 0.8 * history["suboptimality"][0]


@pytest.mark.mpi
def test_training_with_it_has_the_same_bits_on_3_ranks(program, here):
    words = {name: ["run", QUICKSTART, "--quiet", *words_of(name), "--attack.name", "alie", "-o"] for name in RUNS}
    three = program.several([[*words[name], f"{name}_3.h5"] for name in RUNS], ranks=3)
    assert [code for ranks in three for code, *_ in ranks] == [0] * 3 * len(RUNS)
    for name in RUNS:
        assert main([*words[name], f"{name}_1.h5"]) == 0
        one, three = load_results(f"{name}_1.h5"), load_results(f"{name}_3.h5")
        assert len(three.hosts) == 3
        np.testing.assert_array_equal(one.parameters, three.parameters)
        np.testing.assert_array_equal(one.history["loss"], three.history["loss"])


@pytest.mark.mpi
def test_under_mpiexec_it_is_said_once(program, here):
    ended = program("allocation", QUICKSTART, *FANO, ranks=2)
    assert ended.code == 0, ended.err
    assert ended.out.count("block_design: 7 devices") == 1
