"""Components of other packages: found, held to the rules, used; and what cannot be used is said in a line.

Packages are made as files here: a module, and the metadata that an installer would have written beside it.
"""

import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from mpicoded import plugins
from mpicoded.algorithms.aggregators import Ctma, Krum
from mpicoded.algorithms.component import members
from mpicoded.cli import main
from mpicoded.configs import FAMILIES, decode, load, loads
from mpicoded.data import datasets, layout
from mpicoded.data.results import load_results
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "plugin"
HEAD = """from typing import ClassVar
import numpy as np
from mpicoded.algorithms import (
    aggregators, allocations, attacks, compressors, encoders, filters, memories, models, optimizers)
"""
FIRST = """
class First(aggregators.Aggregator):
    \"\"\"The first vote.\"\"\"
    sign: float = 1.0

    def aggregate(self, votes, previous=None, out=None):
        return self.sign * votes[0]
"""


def package(folder, name, source, version="1.0", classes=None):
    """A package of one module; its entry points are all of the classes in it, or those named."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(HEAD + source)
    found = classes if classes is not None else re.findall(r"^class (\w+)", source, re.M)
    meta = folder / f"{name}-{version}.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"e{i} = {name}:{cls}" for i, cls in enumerate(found)]
    (meta / "entry_points.txt").write_text("\n".join([f"[{plugins.GROUP}]", *lines]))
    return folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder whose packages are installed as long as the test runs."""
    folder = tmp_path / "site"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    plugins.found.cache_clear()
    yield folder
    plugins.found.cache_clear()
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
            del sys.modules[name]


def config(**changes):
    base = {"devices": 10, "rounds": 5, "data": {"path": "x.h5"}, "model": {"name": "linear_regression"}}
    return base | changes


BASES = {
    "model": "models.Model",
    "allocation": "allocations.Allocation",
    "encoder": "encoders.Encoder",
    "attack": "attacks.Attack",
    "compressor": "compressors.Compressor",
    "memory": "memories.Memory",
    "filters": "filters.Filter",
    "aggregator": "aggregators.Aggregator",
    "optimizer": "optimizers.Optimizer",
}


def test_every_family_of_methods_can_be_joined():
    assert list(BASES) == list(plugins.FAMILIES) == [name for name in FAMILIES if name not in ("transport", "faults")]
    for name, family in plugins.FAMILIES.items():
        assert all(issubclass(cls, family.base) for cls in members(FAMILIES[name]).values())
        assert BASES[name].endswith(f".{family.base.__name__}")


@pytest.mark.parametrize("family", BASES)
def test_a_config_names_a_plug_in_as_it_names_our_own(site, family):
    package(
        site,
        "odd",
        f'class OddOne({BASES[family]}, kw_only=True):\n    """Odd."""\n    odd: float\n    size: int = 3\n',
    )
    part = {"name": "odd_one", "odd": 2.5}
    experiment = decode(config(**{family: [part] if family == "filters" else part}), "a")
    found = getattr(experiment, family)
    (found,) = found if family == "filters" else (found,)
    assert type(found).__name__ == "OddOne"
    assert (found.size, found.odd) == (3, 2.5)
    assert isinstance(experiment, Experiment)
    assert experiment.__struct_fields__ == Experiment.__struct_fields__
    assert loads(experiment.to_toml(), "b") == experiment
    assert plugins.packages(experiment) == {"odd": "1.0"}
    others = decode(config(), "a")
    assert type(others) is Experiment  # of which nothing has changed
    assert plugins.packages(others) == {}


def test_keys_and_values_of_a_plug_in_are_as_strict(site):
    package(site, "first", FIRST)
    for part, text in (
        ({"name": "first", "sgn": 1}, "aggregator first has no key 'sgn'; it has: sign"),
        ({"name": "first", "sign": "a"}, "aggregator.sign: expected float, got 'a'"),
        ({"name": "frst"}, "aggregator has no component 'frst'; choose from: mean, .*ctma.*, first$"),
    ):
        with pytest.raises(InputError, match=f"^config a: {text}"):
            decode(config(aggregator=part), "a")


def test_a_plug_in_may_stand_inside_our_own(site):
    package(site, "first", FIRST)
    tree = config(byzantine=2, aggregator={"name": "ctma", "base": {"name": "first", "sign": 2}})
    rule = decode(tree, "a").aggregator
    assert isinstance(rule, Ctma)
    assert rule.name() == "ctma"
    assert (rule.byzantine, type(rule.base).__name__, rule.base.sign) == (2, "First", 2.0)
    assert plugins.packages(decode(tree, "a")) == {"first": "1.0"}
    with pytest.raises(InputError, match="aggregator ctma: base first has no key 'sgn'; it has: sign"):
        decode(config(aggregator={"name": "ctma", "base": {"name": "first", "sgn": 2}}), "a")
    tree["aggregator"]["base"] = {"name": "krum"}
    assert decode(tree, "a").aggregator == Ctma(byzantine=2, base=Krum(byzantine=2))


def test_a_plug_in_inherits_the_number_of_byzantine_devices(site):
    package(site, "told", 'class Told(aggregators.TolerantAggregator):\n    """Told."""\n')
    assert decode(config(byzantine=3, aggregator={"name": "told"}), "a").aggregator.byzantine == 3


def test_what_a_code_decodes_on_the_tasks_of_a_plug_in_is_inherited(site, tmp_path):
    """Two liars corrupt one of four groups of three; the rule must be told of one, as with our own allocation."""
    package(site, "twin", 'class Twin(allocations.Repetition):\n    """As repetition."""\n    source = "a test"\n')
    path = str(tmp_path / "linear.h5")
    datasets.linear_regression(path, subsets=12, features=2, samples_per_subset=1, seed=1)
    told = []
    for name in ("repetition", "twin"):
        parts = {"allocation": {"name": name, "copies": 3}, "encoder": {"name": "majority_vote"}}
        tree = config(devices=12, byzantine=2, data={"path": path}, aggregator={"name": "trimmed_mean"}, **parts)
        told.append(decode(tree, "a").aggregator.byzantine)
    assert told == [1, 1]


def test_the_command_line_names_a_plug_in(site, tmp_path):
    package(site, "first", FIRST)
    path = tmp_path / "a.toml"
    path.write_text('devices = 10\nrounds = 5\n[data]\npath = "x.h5"\n[model]\nname = "linear_regression"\n'
                    '[aggregator]\nname = "trimmed_mean"\nbyzantine = 2\n')  # fmt: skip
    rule = load(str(path), ["--aggregator.name", "first", "--aggregator.sign=3"]).aggregator
    assert (type(rule).__name__, rule.sign) == ("First", 3.0)  # trimmed_mean's key has gone with it


def test_nothing_is_looked_for_where_a_config_names_our_own_only(monkeypatch):
    monkeypatch.setattr(plugins, "found", lambda: pytest.fail("looked for plug-ins"))
    experiment = decode(config(filters=[{"name": "clip", "tau": 1}], aggregator={"name": "ctma"}), "a")
    assert plugins.packages(experiment) == {}


def test_packages_are_read_once(site, monkeypatch):
    package(site, "first", FIRST)
    decode(config(aggregator={"name": "first"}), "a")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **name: pytest.fail("read again"))
    decode(config(aggregator={"name": "first"}), "a")


# --- what cannot be used

WRONG = {
    "no such class": ("", ["Gone"], r"AttributeError: module 'bad' has no attribute 'Gone'"),
    "an error at import": ("import no_such_module", ["Gone"], "ModuleNotFoundError: No module named 'no_such_module'"),
    "an exit at import": ("raise SystemExit(3)", ["Gone"], "SystemExit: 3"),
    "a syntax error": ("class Bad(:", ["Bad"], "SyntaxError: "),
    "no class": ("Bad = 3", ["Bad"], "it must be a subclass of mpicoded.algorithms.component.Component, got 3"),
    "another class": ("class Bad: pass", ["Bad"], "it must be a subclass of .*Component, got <class 'bad.Bad'>"),
    "no family": (
        'from mpicoded.algorithms.component import Component\nclass Bad(Component):\n    """A."""',
        ["Bad"],
        "Bad must derive from one of Model, .*Optimizer, and does from 0",
    ),
    "a base itself": ("Bad = aggregators.Aggregator", ["Bad"], "Aggregator must derive from one of "),
    "not frozen": (
        'class Bad(aggregators.Aggregator, frozen=False):\n    """A."""',
        ["Bad"],
        ".*frozen|Bad must stay frozen",
    ),
    "not strict": (
        'class Bad(aggregators.Aggregator, forbid_unknown_fields=False):\n    """A."""',
        ["Bad"],
        "Bad must stay frozen, without unknown fields and tagged by its name",
    ),
    "no docstring": ("class Bad(aggregators.Aggregator): pass", ["Bad"], "Bad needs a docstring: its first line"),
    "a name that is taken": ('class Krum(aggregators.Krum):\n    """A."""', ["Krum"], "mpicoded has a component aggre"),
    "no snake case": ('class Bad(attacks.Attack, tag="Ba d"):\n    """A."""', ["Bad"], "the name .*, got 'Ba d'"),
    "a field that no config can hold": (
        'class Bad(attacks.Attack):\n    """A."""\n    x: int | str | bytes | np.ndarray | list[int] | set[int] = 3',
        ["Bad"],
        "TypeError: ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_one_line_that_names_package_and_entry_point(site, case, capsys):
    source, classes, reason = WRONG[case]
    package(site, "bad", source, "0.3", classes)
    package(site, "first", FIRST)
    (line,) = plugins.found().refused
    assert re.match(rf"^bad 0\.3, entry point e0 = bad:{classes[0]}: ({reason})", line)
    assert "\n" not in line
    assert main(["list"]) == 0
    assert f"Plug-ins that cannot be used:\n  {line}" in capsys.readouterr().out
    # Others work, and a name that nobody has says why it might be missing.
    assert type(decode(config(aggregator={"name": "first"}), "a").aggregator).__name__ == "First"
    with pytest.raises(InputError, match=r"has no component 'frst'; .*, first; plug-ins that cannot be used: bad 0\.3"):
        decode(config(aggregator={"name": "frst"}), "a")


def test_a_broken_plug_in_alone_is_named_too(site):
    package(site, "bad", "import no_such_module", classes=["Bad"])
    with pytest.raises(InputError, match=r"'bad'; choose from: .*; plug-ins that cannot be used: bad 1\.0, entry poi"):
        decode(config(aggregator={"name": "bad"}), "a")


def test_metadata_that_is_broken_is_said(site, capsys):
    package(site, "first", FIRST)
    (site / "first-1.0.dist-info" / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nno equals sign\n")
    assert main(["list"]) == 0
    assert (
        "Plug-ins that cannot be used:\n  an installed package's entry points cannot be read: "
        in capsys.readouterr().out
    )
    with pytest.raises(InputError, match=r"'first'; .*: an installed package's entry points cannot be read: "):
        decode(config(aggregator={"name": "first"}), "a")


def test_of_two_plug_ins_with_one_name_neither_is_used(site):
    package(site, "one", FIRST)
    package(site, "other", FIRST)
    found = plugins.found()
    assert not found.plugins
    assert [line.split(":")[0] for line in found.refused] == [
        "one 1.0, entry point e0 = one",
        "other 1.0, entry point e0 = other",
    ]
    assert all(line.endswith("another plug-in is aggregator first too") for line in found.refused)


def test_one_name_in_two_families_is_no_conflict(site):
    package(site, "one", FIRST)
    package(site, "other", 'class First(attacks.Attack):\n    """A."""\nclass Krum(attacks.Attack):\n    """B."""\n')
    experiment = decode(config(aggregator={"name": "first"}, attack={"name": "krum"}), "a")
    assert plugins.packages(experiment) == {"one": "1.0", "other": "1.0"}


def test_the_list_says_whose_a_plug_in_is(site, capsys):
    package(site, "first", FIRST)
    assert main(["list", "aggregator"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^  first +The first vote\.\n +plug-in of first 1\.0\n", said, re.M)
    assert "- sign: float, default 1.0" in said
    assert "cannot be used" not in said
    assert main(["list", "attack"]) == 0
    assert "first" not in capsys.readouterr().out
    assert main(["list", "--markdown"]) == 0  # of our own, wherever it is printed
    assert "first 1.0" not in capsys.readouterr().out


# --- runs


@pytest.fixture
def experiment(tmp_path):
    datasets.linear_regression(str(tmp_path / "linear.h5"), subsets=10, features=4, samples_per_subset=2, seed=1)
    path = tmp_path / "a.toml"
    path.write_text(
        'devices = 10\nbyzantine = 2\nrounds = 5\n[data]\npath = "linear.h5"\n[aggregator]\nname = "first"\n'
    )
    return path


def test_a_result_file_names_the_packages_that_it_depends_on(site, experiment, monkeypatch):
    package(site, "first", FIRST, "1.7")
    package(site, "unused", 'class Unused(attacks.Attack):\n    """A."""\n')
    package(site, "bad", "", classes=["Gone"])
    monkeypatch.chdir(experiment.parent)
    assert main(["run", "a.toml", "--quiet", "--attack.name", "sign_flip"]) == 0
    result = load_results("a.h5")
    assert result.versions["first"] == "1.7"
    assert "unused" not in result.versions
    assert any(line.startswith("plug-in that cannot be used: bad 1.0, entry") for line in result.warnings)
    assert tomllib.loads(result.toml)["aggregator"] == {"name": "first", "sign": 1.0}
    assert main(["run", "a.toml", "--quiet", "--aggregator.name", "mean", "-o", "b.h5"]) == 0
    assert "first" not in load_results("b.h5").versions
    assert layout.describe("linear.h5").subsets == 10


APART = """import sys
if sys.argv[1] != "none":
    sys.path.insert(0, sys.argv[1])
from mpicoded.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("versions", "text"),
    [
        ((None, "1.0"), "rank 0 on .*aggregator has no component 'first'"),
        (("1.0", "1.1"), r"this rank has the plug-ins first 1\.1, rank 0 has first 1\.0"),
        (("1.0", "broken"), "rank 1 on .*has no component 'first'.*cannot be used: first broken, .*SystemExit"),
    ],
    ids=str,
)
def test_ranks_with_other_plug_ins_than_rank_0_end_the_run_with_one_error(program, experiment, versions, text):
    from mpicoded.commands.launch import find_launcher

    folder = experiment.parent
    (folder / "apart.py").write_text(APART)
    sites = ["none", "none"]
    for rank, version in enumerate(versions):
        if version:
            source = FIRST if version != "broken" else FIRST + "raise SystemExit(0)"
            sites[rank] = str(package(folder / f"rank{rank}", "first", source, version))
    launcher = find_launcher()
    assert launcher is not None
    ranks = [["-n", "1", sys.executable, "apart.py", path, "run", "a.toml", "--quiet"] for path in sites]
    began = time.monotonic()
    ended = program.start([launcher[0], *ranks[0], ":", *ranks[1]], 2)
    assert ended.code == 2, ended
    assert time.monotonic() - began < 30
    lines = [line for line in ended.err.splitlines() if line.startswith("mpicoded: error")]
    assert len(lines) == 1
    assert re.search(text, lines[0]), lines
    assert "Traceback" not in ended.err
    assert not (folder / "a.h5").exists()


# --- the README's package and the example


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example and the README's package, installed by pip into a folder of their own."""
    for needed in ("pip", "hatchling"):  # the latter comes with the extra "test"
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("packages")
    shutil.copytree(EXAMPLE, folder / "example")
    section = (ROOT / "README.md").read_text().partition("## Add your own part")[2].partition("\n## ")[0]
    (folder / "readme").mkdir()
    for name, kind in (("mine.py", "python"), ("pyproject.toml", "toml"), ("test_mine.py", "python")):
        text, section = section.partition(f"```{kind}\n")[2].split("```", 1)
        (folder / "readme" / name).write_text(text)
    command = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", "site"]
    subprocess.run([sys.executable, *command, "./example", "./readme"], cwd=folder, check=True, timeout=120)
    return folder


def test_packages_are_listed_and_train(installed, program, experiment, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(installed / "site"))
    listed = program("list", "aggregator")
    assert "plug-in of mpicoded-example 1.0" in listed.out, listed
    assert "plug-in of mine 1.0" in listed.out, listed
    words = ["--aggregator.name", "faba", "--attack.name", "free_rider", "--attack.noise", "0.1", "-o"]
    assert program("run", "a.toml", *words, "one.h5").code == 0
    ended = program("run", "a.toml", *words, "two.h5", ranks=2)
    assert ended.code == 0, ended
    one, two = (load_results(experiment.parent / name) for name in ("one.h5", "two.h5"))
    assert one.parameters.tobytes() == two.parameters.tobytes()
    assert one.versions["mpicoded-example"] == two.versions["mpicoded-example"] == "1.0"
    assert one.history["loss"][-1] < one.history["loss"][0]


def test_packages_pass_their_own_tests(installed, program, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(installed / "site"))
    folders = [installed / "example", installed / "readme"]
    ended = program.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", installed, *folders)
    assert ended.code == 0, ended.out
    assert re.search(r"\b\d{3} passed", ended.out), ended.out
