"""What holds of the batch scripts without a SLURM."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from mpicoded.cli import main

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))
MARK = "# ---- From here on the same in "


def test_what_the_scripts_share_is_the_same() -> None:
    """sbatch copies a script to the node, where it cannot read another one."""
    assert [script.name for script in SCRIPTS] == ["gpu.sbatch", "run.sbatch", "sweep.sbatch"]
    own, shared = zip(*(script.read_text().split(MARK) for script in SCRIPTS), strict=True)
    assert len(set(shared)) == 1
    assert len(shared[0].splitlines()) > 30
    assert len(set(own)) == len(own)
    signals = [re.findall(r"^#SBATCH --signal=.*", text, re.M) for text in own]
    assert signals == [["#SBATCH --signal=B:USR1@60 --requeue --open-mode=append"]] * len(own)


def test_the_script_for_gpus_asks_for_one_a_rank_and_says_so_to_mpicoded() -> None:
    gpu, run = (_choice(ROOT / "slurm" / name) for name in ("gpu.sbatch", "run.sbatch"))
    assert gpu == run.replace('(run "$config"', '(run "$config" --compute.device cuda')
    assert gpu != run
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", (ROOT / "slurm/gpu.sbatch").read_text(), re.M))
    assert asked["gres"] == f"gpu:{asked['ntasks-per-node']}"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", *SCRIPTS, ROOT / "tests/slurm/cluster.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _choice(script: Path) -> str:
    """The part that chooses the words for mpicoded."""
    (found,) = re.findall(r"^choose\(\) \{\n.*?^\}\n", script.read_text(), re.M | re.S)
    return found


def test_the_readmes_grid_is_one(tmp_path, monkeypatch, capsys) -> None:
    (line,) = re.findall(r'^grid="(.*)"$', (ROOT / "README.md").read_text(), re.M)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    assert main(["data", "linear_regression", "-o", "linear.h5", "--seed", "3"]) == 0
    capsys.readouterr()
    assert main(["sweep", *shlex.split(line), "--array"]) == 0
    assert capsys.readouterr().out == "0-5\n"
