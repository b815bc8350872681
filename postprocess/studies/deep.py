"""Do the codes help deep networks on real images? Fashion-MNIST, five of 25 devices lie.

    python -m postprocess.studies deep FOLDER [--part mlp|cnn] [--seeds 3] [--picture docs/images/deep.png] > tables.md

Result files stay in FOLDER, and what is there is not run again.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mpicoded.data.results import Results
from postprocess.studies.runs import call, run

FIRST, REDUNDANCY = 3, 5
SKEWS = (0.1, 1.0)  # of the Dirichlet split
ATTACKS = ("none", "ipm", "sign_flip", "alie", "mimic", "label_flip")
NETWORKS: dict[str, tuple[str, int, tuple[object, ...]]] = {
    "mlp": ("mlp", 50890, ("--model.options", "{hidden = [64]}")),
    "cnn": ("cnn", 9098, ("--model.options", "{width = 8}", "--rounds", 200, "--evaluate_every", 40)),
}
"""The networks: factory, parameters, and what else is different."""
_NNM = '[{name = "nearest_neighbor_mixing"}]'
_FIELD = ("--memory", '{name = "momentum", beta = 0.9}', "--filters", _NNM, "--identities", "fixed")
_MASK = "{{name = 'rand_k', kept = {kept}, shared = true}}"
SYSTEMS: dict[str, tuple[str, bool, tuple[str, ...]]] = {
    "LAD": ("cyclic", False, ()),
    "CRA-DL": ("balanced", False, ()),
    "CWTM": ("partition", False, ()),
    "Com-LAD": ("cyclic", True, ()),
    "Com-CWTM": ("partition", True, ()),
    "momentum + NNM + CWTM": ("partition", False, _FIELD),
}
"""Allocation, whether a tenth of the coordinates is sent, and other words."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")  # told apart by the colour-blind, too
WHO = {"mlp": tuple(SYSTEMS), "cnn": ("LAD", "CWTM")}


def data(folder: Path, skew: float, seed: int) -> Path:
    """The split of a seed."""
    path = folder / f"fashion_{skew}_{seed}.h5"
    if not path.exists():
        part = path.with_suffix(".part.h5")
        words = ("--subsets", 25, "--split", "dirichlet", "--alpha", skew, "--seed", seed)
        call("data", "fashion_mnist", "-o", part, *words)
        part.replace(path)
    return path


def result(folder: Path, network: str, system: str, skew: float, attack: str, seed: int) -> Results:
    """One run; the attacks are as they are by default."""
    factory, dim, words = NETWORKS[network]
    allocation, compressed, more = SYSTEMS[system]
    table = f'{{name = "{allocation}"' + ("}" if allocation == "partition" else f", redundancy = {REDUNDANCY}}}")
    mask = ("--compressor", _MASK.format(kept=dim // 10).replace("'", '"')) if compressed else ()
    name = "_".join([network, system.replace(" + ", "_"), str(skew), attack, str(seed)])
    return run(
        folder / f"{name}.h5",
        "lad_fashion_mlp.toml",
        *("--data.path", data(folder, skew, seed), "--seed", seed, "--model.module", f"mpicoded.networks:{factory}"),
        *("--allocation", table, "--attack", f'{{name = "{attack}"}}', *mask, *words, *more),
    )


def table(folder: Path, network: str, skew: float, seeds: list[int], fair: bool = False) -> str:
    """Final test accuracy in percent, mean and standard deviation over the seeds.

    ``fair``: of coded systems after a fifth of the rounds, in which they compute as many gradients as others in all.
    """
    what = "as many gradients" if fair else "as many rounds"
    lines = [f"| {network}, Dirichlet {skew}, {what} | {' | '.join(f'`{attack}`' for attack in ATTACKS)} |"]
    lines.append("|---" * (1 + len(ATTACKS)) + "|")
    for system in WHO[network]:
        cells = []
        for attack in ATTACKS:
            found = [result(folder, network, system, skew, attack, seed) for seed in seeds]
            final = [100 * accuracy_after(one, last_round(one, fair)) for one in found]
            cells.append(f"{np.mean(final):.1f}" + (f" ± {np.std(final, ddof=1):.1f}" if len(final) > 1 else ""))
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines)


def last_round(found: Results, fair: bool) -> int:
    """The rounds that are compared."""
    coded = "redundancy" in found.experiment["allocation"]
    return int(found.experiment["rounds"]) // (REDUNDANCY if fair and coded else 1)


def accuracy_after(found: Results, rounds: int) -> float:
    """Test accuracy, where it was evaluated after so many rounds."""
    (place,) = np.flatnonzero(found.history["round"] == rounds)
    return float(found.history["accuracy"][place])


def curve(found: list[Results], over: str) -> tuple[Any, Any]:
    """Mean accuracy, and what it is drawn over."""
    history, first = found[0].history, found[0].experiment
    copies = first["allocation"].get("redundancy", 1)
    x = {
        "rounds": history["round"],
        "gradients of a subset computed by all devices": history["round"] * first["devices"] * copies,
        "MB sent by all devices": history["bytes_up"] / 1e6,
    }[over]
    return x, 100 * np.mean([one.history["accuracy"] for one in found], axis=0)


def picture(folder: Path, path: Path, network: str, skew: float, seeds: list[int]) -> None:
    """Accuracy over rounds, gradients and bytes: a row for each attack."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    over = ("rounds", "gradients of a subset computed by all devices", "MB sent by all devices")
    figure, axes = plt.subplots(len(ATTACKS), 3, figsize=(10, 13), sharey=True, layout="constrained")
    for row, attack in zip(axes, ATTACKS, strict=True):
        for axis, what in zip(row, over, strict=True):
            for number, system in enumerate(WHO[network]):
                found = [result(folder, network, system, skew, attack, seed) for seed in seeds]
                style = {
                    "color": COLOURS[number],
                    "linestyle": ("-", "--", ":")[number % 3],
                    "marker": "osD^v*"[number],
                }
                x, y = curve(found, what)
                first = 0 if what == "rounds" else 1  # zero has no place on a logarithmic axis
                axis.plot(x[first:], y[first:], label=system, markersize=3, **style)
            axis.set_xscale("linear" if what == "rounds" else "log")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
            if attack == ATTACKS[-1]:
                axis.set_xlabel(what)
        row[0].set_ylabel(f"{attack}\ntest accuracy, %")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", choices=NETWORKS, default="mlp")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--skews", type=float, nargs="+", default=SKEWS)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(exist_ok=True, parents=True)
    seeds = list(range(FIRST, FIRST + asked.seeds))
    for skew in asked.skews:
        for fair in (False, True):
            print(table(asked.folder, asked.part, skew, seeds, fair), end="\n\n", flush=True)
    if asked.picture is not None:
        picture(asked.folder, asked.picture, asked.part, asked.skews[0], seeds)


if __name__ == "__main__":
    main()
