"""Every command in README and docs is run by CI, run here, or says why not; then at least its form is right.

A block of shell commands has one of these marks on the line before it::

    <!-- run by CI -->             by .ci/run, as the README's two commands are
    <!-- run by a test -->         here, as it is written: all such blocks of a page one after the other in one folder
    <!-- not run: REASON -->       minutes of computing, a cluster, a GPU, a file that only the reader has

and a block of any language that shows a file, ``<!-- file: NAME -->``: it is put into that folder first.
"""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from mpicoded import configs
from mpicoded.algorithms.component import snake_case
from mpicoded.arguments import parser
from mpicoded.data import datasets
from mpicoded.data.results import load_results
from mpicoded.errors import InputError

from .pages import PAGES, ROOT, blocks, name

SHELL = [block for page in PAGES for block in blocks(page) if block.language in ("bash", "sh", "console")]
RUN = [page for page in PAGES if any(block.page == page and block.mark == "run by a test" for block in SHELL)]
NOT_RUN = [block for block in SHELL if block.mark.startswith("not run: ")]
DATA = {"linear.h5": {"subsets": 100, "sigma_h": 0.3}, "linear_1000.h5": {"subsets": 1000, "sigma_h": 0.25}}
STAND_INS = (
    "mpicoded",
    "mpiexec",
    "mpirun",
    "sbatch",
    "salloc",
    "module",
    "docker",
    "git",
    "pre-commit",
    "sphinx-build",
)
PYTHONS = ("python", "python3", "pip", "pytest")
ALONE = ("results.md",)  # pages whose Python must work where mpicoded is not installed
WITH_OVERRIDES = ("run", "plan", "allocation", "sweep")


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.place)
def test_a_block_of_commands_says_whether_it_is_run(block):
    known = re.fullmatch(r"run by CI|run by a test|not run: .{8,}", block.mark)
    assert known, (
        f"{block.place}: put one of these on the line before the block: <!-- run by a test -->, "
        f"<!-- not run: REASON -->; {Path(__file__).name} says what they mean; there is: {block.mark!r}"
    )


def test_what_ci_runs_is_the_readme(capsys):
    asked = re.findall(r"readme_command (\d+)", (ROOT / ".ci" / "run").read_text())
    marked = [name(block.page) for block in SHELL if block.mark == "run by CI"]
    assert marked == ["README.md"] * len(asked)
    assert [int(number) for number in asked] == list(range(1, len(asked) + 1))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The datasets that pages take for granted."""
    folder = tmp_path_factory.mktemp("made")
    for file, words in DATA.items():
        datasets.linear_regression(str(folder / file), features=100, samples_per_subset=1, seed=3, **words)
    return folder


@pytest.fixture
def place(tmp_path, made):
    """A folder with what a reader has beside the page."""
    for folder in ("configs", "postprocess", "slurm", "benchmarks", "examples", "docs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for file in DATA:
        (tmp_path / file).symlink_to(made / file)
    return tmp_path


@pytest.mark.mpi
@pytest.mark.parametrize("page", RUN, ids=name)
def test_commands_of_a_page_run_as_they_are_written(page, place, program, monkeypatch):
    shown(page, place)
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=":")
    for block in blocks(page):
        if block.mark != "run by a test":
            continue
        if block.language == "python":
            text = "import sys; sys.modules['mpicoded'] = None\n" + block.text if page.name in ALONE else block.text
            ended = program.python("-W", "error", "-c", text)
        else:
            ended = program.start(["bash", "-euo", "pipefail", "-c", block.text], 4)
        assert ended.code == 0, f"{block.place}: exit code {ended.code}\n{ended.out}\n{ended.err}"
        missing = [file for file in written(block.text) if not (place / file).exists()]
        assert not missing, f"{block.place}: says that it writes {missing}"
    for file, said in re.findall(r"^\| `(\w+\.h5)` \|.*\| ([\d.]+) \|$", page.read_text(), re.M):
        ended_at = load_results(place / file).history["suboptimality"][-1]
        assert float(said) == pytest.approx(ended_at, rel=1e-3), f"{name(page)}: {file} ends at {ended_at:.4g}"


def shown(page, place):
    """Write the files that a page shows; a package among them can be imported, and its entry points are found."""
    for block in blocks(page):
        if block.file:
            with (place / block.file).open("a") as file:
                file.write(block.text + "\n\n")
    if (place / "pyproject.toml").exists():
        about = tomllib.loads((place / "pyproject.toml").read_text())["project"]
        meta = place / f"{about['name']}-{about['version']}.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
        ((group, entries),) = about["entry-points"].items()
        lines = [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
        (meta / "entry_points.txt").write_text("\n".join(lines))


def written(text):
    """The files that commands are told to write, but for names that the shell makes."""
    told = re.findall(r"(?:-o|[^<]>) +([\w./]+\.\w+)", re.sub(r"#.*", "", text))
    runs = re.findall(r"mpicoded run configs/(\w+)\.toml(.*)", text.replace("\\\n", " "))
    return told + [f"{config}.h5" for config, rest in runs if " -o " not in rest]


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.place)
def test_commands_that_are_not_run_would_be_understood(block, place, monkeypatch):
    """The shell runs them with programs in place of the real ones, which only write down what they are called with."""
    inside = ROOT / "examples" in block.page.parents
    monkeypatch.chdir(place / block.page.relative_to(ROOT).parent if inside else place)
    for words in spoken(block, place):
        program, *rest = words
        if program in ("mpiexec", "mpirun") and "mpicoded" in rest:
            program, *rest = rest[rest.index("mpicoded") :]
        if program == "mpicoded":
            understood(rest, own(block.page))
        elif program == "python" and rest[0].endswith(".py"):
            assert Path(rest[0]).exists(), f"{block.place}: there is no {rest[0]}"
        elif program == "sbatch":
            script = next(word for word in rest if word.endswith(".sbatch"))
            assert Path(script).exists(), f"{block.place}: there is no {script}"


def spoken(block, place):
    """The commands of a block, as the shell understands them."""
    stand_in = "#!/bin/sh\n{ printf '%s\\036' \"${0##*/}\" \"$@\"; printf '\\035'; } >> " + f"'{place}/.spoken'\n"
    (place / ".bin").mkdir()
    for program in STAND_INS + PYTHONS:
        (place / ".bin" / program).write_text(stand_in)
        (place / ".bin" / program).chmod(0o755)
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / ".venv" / "bin" / "activate").touch()
    environment = {"PATH": f"{place}/.bin:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-uc", block.text], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{block.place}: {done.stderr}"
    said = (place / ".spoken").read_text().split("\035")[:-1] if (place / ".spoken").exists() else []
    return [one.split("\036")[:-1] for one in said]


def own(page):
    """The components that a page shows, or the package beside it."""
    texts = [page.read_text(), *(path.read_text() for path in page.parent.glob("mpicoded_*.py"))]
    return {snake_case(found) for text in texts for found in re.findall(r"^class (\w+)\(", text, re.M)}


def understood(words, shown):
    """Raise InputError where mpicoded would not know what to do; words in capitals are the reader's to fill in."""
    arguments, rest = parser().parse_known_args([word for word in words if word != "…"])
    assert not rest or arguments.command in WITH_OVERRIDES, f"unknown: {rest}"
    given = {"run": "config", "plan": "config", "allocation": "config", "sweep": "configs"}.get(arguments.command)
    paths = getattr(arguments, given) if given else []
    for path in [paths] if isinstance(paths, str) else paths:
        if path.isupper():
            continue
        try:
            configs.load(path, rest)
        except InputError as error:
            name = re.search(r"has no component '(\w+)'", str(error))
            if not (name and name[1] in shown):
                raise
