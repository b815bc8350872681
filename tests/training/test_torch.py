"""Runs with PyTorch modules: a user's own file beside the config, any number of ranks, resume, export."""

import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.commands.job import STOPPED
from mpicoded.data import datasets
from mpicoded.data.results import load_results
from mpicoded.training.loop import Trainer

torch = pytest.importorskip("torch")

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden=12):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.hidden = nn.Linear(4 * 16, hidden)
        self.last = nn.Linear(hidden, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.first(x).relu(), 2)
        x = self.hidden(x.flatten(1)).relu()
        return self.last(self.drop(x))
"""
CONFIG = """
devices = 12
byzantine = 2
rounds = 6
seed = 4
evaluate_every = 3
data = {{ path = "digits.h5"{batch} }}
model = {{ name = "torch", module = "{module}:Net", shape = [1, 8, 8], shift = 1 }}
allocation = {{ name = "cyclic", redundancy = 4 }}
attack = {{ name = "{attack}" }}
optimizer = {{ step_size = 0.3 }}
compute = {{ dtype = "{dtype}" }}
transport = {{ name = "{transport}" }}
"""
USUAL = {"batch": ", batch_size = 5", "attack": "ipm", "dtype": "float32", "transport": "root"}
SETTINGS = {
    "mini-batches": USUAL,
    "whole subsets, label_flip": USUAL | {"batch": "", "attack": "label_flip", "dtype": "float64"},
    "sharded": USUAL | {"transport": "sharded"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A dataset, and a module of a name of its own in another folder: modules are imported once in a process."""
    made = tmp_path_factory.mktemp("torch")
    rng = np.random.default_rng(0)
    centres = 2 * rng.standard_normal((10, 64))
    y, more = rng.integers(0, 10, 400), rng.integers(0, 10, 300)
    x, test = (centres[labels] + rng.standard_normal((len(labels), 64)) for labels in (y, more))
    samples = datasets.Samples(x, y, 10, test=(test, more))
    words = {"subsets": 12, "kind": "dirichlet", "alpha": 0.3, "seed": 2, "made_by": "test"}
    datasets.write_split(str(made / "digits.h5"), samples, **words)
    (made / "configs").mkdir()
    (made / "configs" / "own_network.py").write_text(NET)
    return made


def config(folder: Path, name: str, **parts) -> str:
    path = folder / "configs" / f"{name}.toml"
    path.write_text(CONFIG.format(**{"module": "own_network"} | USUAL | parts))
    return str(path)


def same(one: Path, other: Path) -> None:
    first, second = load_results(one), load_results(other)
    assert first.parameters.tobytes() == second.parameters.tobytes()
    for name in set(first.history) - {"seconds", "bytes_overhead"}:
        np.testing.assert_array_equal(first.history[name], second.history[name], err_msg=name)


@pytest.mark.mpi
def test_on_the_test_split_alone(folder, common_program, monkeypatch, capsys):
    """The same run; less is known of it, by readers too."""
    monkeypatch.chdir(folder)
    written = config(folder, "evaluated")
    assert main(["run", written, "-o", "all.h5", "--quiet"]) == 0
    words = ["run", written, "--evaluate", "test", "--quiet", "-o"]
    assert main([*words, "test.h5"]) == 0
    for each in common_program.several(
        [[*words, str(folder / "test_2.h5"), "--data.path", str(folder / "digits.h5")]], 2
    ):
        assert {code for code, _, _ in each} == {0}, each
    known = load_results("all.h5")
    for name in ("test.h5", "test_2.h5"):
        found = load_results(name)
        assert found.parameters.tobytes() == known.parameters.tobytes()
        assert set(known.history) - set(found.history) == {"loss", "gradient_norm"}
        for column in ("accuracy", "test_loss", "bytes_up", "gradients"):
            np.testing.assert_array_equal(found.history[column], known.history[column])
    for command in (["show", "test.h5"], ["show", "test.h5", "--follow"], ["report", "test.h5", "-o", "r.html"]):
        assert main(command) == 0
    assert main(["export", "test.h5", "--csv", "-o", "rows.csv"]) == 0
    assert Path("rows.csv").read_text().splitlines()[0].startswith("file,round,accuracy,test_loss,gradients,")
    assert main(["data", "linear_regression", "-o", "line.h5", "--subsets", "12"]) == 0
    words = ["--model.name", "linear_regression", "--quiet", "--data.path", "line.h5"]
    assert main(["run", written, "-o", "line_run.h5", "--attack.name", "none", *words]) == 0
    assert main(["report", "test.h5", "line_run.h5", "-o", "mixed.html"]) == 0  # they share no quantity
    capsys.readouterr()
    assert (
        main(["run", written, "--data.path", "line.h5", "--evaluate", "test", "--model.name", "linear_regression"]) == 2
    )
    assert 'evaluate = "test" needs classes and a test split, which line.h5 does not have' in capsys.readouterr().err


@pytest.mark.mpi
def test_own_module_has_the_same_bits_on_any_number_of_ranks(folder, common_program, monkeypatch):
    monkeypatch.chdir(folder)
    for number, setting in enumerate(SETTINGS.values()):
        written = config(folder, f"run{number}", **setting)
        assert main(["run", written, "-o", f"one{number}.h5", "--quiet"]) == 0
    for ranks in (2, 4):
        runs = range(len(SETTINGS)) if ranks == 2 else (0,)
        words = ["--quiet", "--data.path", str(folder / "digits.h5")]
        commands = [
            ["run", str(folder / "configs" / f"run{n}.toml"), "-o", str(folder / f"{n}_{ranks}.h5"), *words]
            for n in runs
        ]
        for each in common_program.several(commands, ranks):
            assert {code for code, _, _ in each} == {0}, each
        for n in runs:
            same(folder / f"one{n}.h5", folder / f"{n}_{ranks}.h5")
    results = load_results(folder / "one0.h5")
    assert results.experiment["model"]["folder"] == str(folder / "configs")
    assert results.history["accuracy"][-1] > 2 * results.history["accuracy"][0]
    assert {"torch", f"own_network:Net of '{folder}/configs'"} <= set(results.versions)


def test_it_is_resumed_only_by_those_who_trust_it(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    path = config(folder, "stopped")
    assert main(["run", path, "-o", "whole.h5", "--quiet"]) == 0
    real = Trainer._round

    def stopping(self, round):
        real(self, round)
        if round == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_round", stopping)
        assert main(["run", path, "-o", "part.h5", "--quiet", "--checkpoint_every", "2"]) == 130
    capsys.readouterr()
    assert main(["run", path, "-o", "part.h5", "--quiet"]) == 2
    assert "mpicoded resume part.h5 --trust goes on" in capsys.readouterr().err
    imported = sys.modules.pop("own_network")
    assert main(["resume", "part.h5", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert f"has mpicoded run own_network:Net of '{folder}/configs': if you trust that code, mpicoded resume" in said
    assert "own_network" not in sys.modules
    sys.modules["own_network"] = imported
    assert main(["resume", "part.h5", "--quiet", "--trust"]) == 0
    first, second = load_results("whole.h5"), load_results("part.h5")
    assert first.parameters.tobytes() == second.parameters.tobytes()


def test_code_that_has_changed_is_not_resumed(folder, monkeypatch, capsys, program):
    monkeypatch.chdir(folder)
    own = folder / "configs" / "changing_network.py"
    own.write_text(NET)
    path = config(folder, "changing", module="changing_network")
    words = ["--checkpoint_every", "2", "--time-limit", "0.01s", "--data.path", str(folder / "digits.h5")]
    assert main(["run", path, "-o", "change.h5", "--quiet", *words]) == STOPPED
    own.write_text(NET.replace("0.2", "0.3"))
    ended = program("resume", folder / "change.h5", "--trust")
    assert ended.code == 2
    assert "its model's code has changed" in ended.err


def test_exported_parameters_load_in_plain_torch_with_the_same_accuracy(folder, monkeypatch, capsys):
    from safetensors import safe_open
    from safetensors.torch import load_file

    monkeypatch.chdir(folder)
    assert main(["run", config(folder, "export"), "-o", "export.h5", "--quiet", "--rounds", "12"]) == 0
    assert main(["export", "export.h5", "-o", "net.safetensors"]) == 0
    assert "net.safetensors: 6 tensors, 950 parameters after 12 rounds" in capsys.readouterr().out
    sys.path.insert(0, str(folder / "configs"))
    import own_network

    module = own_network.Net()
    module.load_state_dict(load_file("net.safetensors"))
    module.eval()
    with torch.no_grad(), h5py.File("digits.h5") as file:
        outputs = module(torch.tensor(file["test/x"][:], dtype=torch.float32).reshape(-1, 1, 8, 8))
        labels = torch.tensor(file["test/y"][:])
    history = load_results("export.h5").history
    assert (outputs.argmax(dim=1) == labels).numpy().mean() == history["accuracy"][-1] > 0.2
    assert torch.nn.functional.cross_entropy(outputs, labels).item() == pytest.approx(
        history["test_loss"][-1], rel=1e-5
    )
    with safe_open("net.safetensors", "np") as file:
        assert file.metadata()["rounds"] == "12"
        assert file.metadata()["experiment"] == load_results("export.h5").toml


FROZEN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fixed = nn.Linear(64, 30).requires_grad_(False)
        self.register_buffer("scale", torch.rand(30))
        self.last = nn.Linear(30, 10)

    def forward(self, x):
        return self.last(self.fixed(x.flatten(1)).relu() * self.scale)
"""


def test_what_is_not_trained_is_exported_by_its_code_only(folder, monkeypatch, capsys):
    from safetensors.torch import load_file

    monkeypatch.chdir(folder)
    (folder / "configs" / "frozen_network.py").write_text(FROZEN)
    words = ["-o", "frozen.h5", "--quiet", "--rounds", "12", "--model.shift", "0"]
    assert main(["run", config(folder, "frozen", module="frozen_network"), *words]) == 0
    assert main(["export", "frozen.h5", "-o", "frozen.safetensors"]) == 2
    assert "which only its code can make, frozen_network:Net of " in capsys.readouterr().err
    assert main(["export", "frozen.h5", "-o", "frozen.safetensors", "--trust"]) == 0
    import frozen_network

    module = frozen_network.Net()
    module.load_state_dict(load_file("frozen.safetensors"))
    with torch.no_grad(), h5py.File("digits.h5") as file:
        outputs = module(torch.tensor(file["test/x"][:], dtype=torch.float32))
        right = (outputs.argmax(dim=1).numpy() == file["test/y"][:]).mean()
    assert right == load_results("frozen.h5").history["accuracy"][-1] > 0.2


def test_export_of_linear_models(folder, monkeypatch, capsys):
    from safetensors.numpy import load_file

    monkeypatch.chdir(folder)
    words = ["--model.name", "softmax_regression"]
    assert main(["run", config(folder, "softmax"), "-o", "softmax.h5", "--quiet", *words]) == 0
    assert main(["export", "softmax.h5", "-o", "softmax.safetensors"]) == 0
    tensors, results = load_file("softmax.safetensors"), load_results("softmax.h5")
    assert {name: each.shape for name, each in tensors.items()} == {"matrix": (64, 10), "bias": (10,)}
    np.testing.assert_array_equal(tensors["matrix"], results.parameters[:640].reshape(64, 10))
    for bad in ('[["a", [-1, -650]]]', "[[3, [650]]]", '[["a", [650]], ["a", [0]]]', "3", '[["a", 650]]', "{}x"):
        shutil.copy("softmax.h5", "crafted.h5")
        with h5py.File("crafted.h5", "a") as file:
            file["parameters"].attrs["parts"] = bad
        assert main(["export", "crafted.h5", "-o", "softmax.safetensors"]) == 2
    capsys.readouterr()
    assert main(["export", "softmax.h5", "-o", "softmax.pt"]) == 2
    assert "must end in .safetensors, got softmax.pt" in capsys.readouterr().err
    assert main(["export", "digits.h5", "-o", "x.safetensors"]) == 2
    assert main(["export", "softmax.h5", "-o", "nowhere/x.safetensors"]) == 2
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("module", ["own_network:Missing", "absent_network:Net", "own_network:nn.functional.relu"])
def test_bad_modules_are_one_line_before_the_run(folder, monkeypatch, capsys, module):
    monkeypatch.chdir(folder)
    assert main(["run", config(folder, "bad"), "-o", "bad.h5", "--model.module", module]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mpicoded: error: ")
    assert "model torch: " in said
    assert said.count("\n") == 1
    assert not Path("bad.h5").exists()


def test_the_module_of_the_documentation_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    code, table = (text.split(f"```{kind}\n")[1].split("```")[0] for kind in ("python", "toml"))
    Path("mynet.py").write_text(code)
    Path("mynet.toml").write_text('devices = 4\nrounds = 2\ndata.path = "images.h5"\n' + table)
    rng = np.random.default_rng(0)
    words = {"subsets": 4, "kind": "iid", "alpha": 1.0, "seed": 0, "made_by": "test"}
    images = rng.random((40, 784), np.float32)
    datasets.write_split("images.h5", datasets.Samples(images, np.arange(40) % 10, 10), **words)
    assert main(["run", "mynet.toml", "-o", "mynet.h5", "--quiet"]) == 0
    history = load_results("mynet.h5").history
    assert history["loss"][-1] < history["loss"][0]


def test_nothing_loads_pytorch_or_cupy_where_none_is_asked_for(tmp_path, program):
    datasets.linear_regression(str(tmp_path / "linear.h5"), subsets=8, features=5, seed=1)
    (tmp_path / "run.toml").write_text('devices = 8\nrounds = 2\ndata.path = "linear.h5"\n')
    heavy = "{'torch', 'cupy', 'safetensors', 'matplotlib', 'sklearn'}"
    code = f"import sys; from mpicoded.cli import main; main(sys.argv[1:]); sys.exit(len({heavy} & set(sys.modules)))"
    for words in (["run", "run.toml"], ["plan", "run.toml"], ["show", "run.h5"], ["list"]):
        assert program.python("-c", code, *words).code == 0, words
