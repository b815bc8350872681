"""Do the codes help deep networks on real images? Fashion-MNIST, five of 25 devices lie."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpicoded.data.results import Results
from postprocess.studies.drawing import finish, panels, style
from postprocess.studies.runs import Data, Fetch, Run
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, Tolerance, spread

FIRST, REDUNDANCY = 3, 5
SKEWS = (0.1, 1.0)  # of the Dirichlet split
ATTACKS = ("none", "ipm", "sign_flip", "alie", "mimic", "label_flip")
_SHORTER = ("--rounds", 200, "--evaluate_every", 40, "--evaluate", "test")
NETWORKS: dict[str, tuple[str, int, tuple[object, ...]]] = {
    "mlp": ("mlp", 50890, ("--model.options", "{hidden = [64]}")),
    "cnn": ("cnn", 9098, ("--model.options", "{width = 8}", *_SHORTER)),
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


def runs(network: str, system: str, skew: float, attack: str, seeds: Sequence[int]) -> tuple[Run, ...]:
    """A run for each seed, with a split of its own; the attacks are as they are by default."""
    factory, dim, words = NETWORKS[network]
    allocation, compressed, more = SYSTEMS[system]
    table = f'{{name = "{allocation}"' + ("}" if allocation == "partition" else f", redundancy = {REDUNDANCY}}}")
    mask = ("--compressor", _MASK.format(kept=dim // 10).replace("'", '"')) if compressed else ()
    split = ("--subsets", 25, "--split", "dirichlet", "--alpha", skew, "--seed")
    words = (
        *("--model.module", f"mpicoded.networks:{factory}", "--allocation", table),
        *("--attack", f'{{name = "{attack}"}}', *mask, *words, *more),
    )
    return tuple(
        Run("lad_fashion_mlp", Data("fashion_mnist", (*split, seed)), ("--seed", seed, *words)) for seed in seeds
    )


def table(network: str, skew: float, seeds: Sequence[int], fair: bool) -> Table:
    """Final test accuracy in percent, mean and standard deviation over the seeds.

    ``fair``: of coded systems after a fifth of the rounds, in which they compute as many gradients as others in all.
    """

    def final(found: Results) -> float:
        return 100 * accuracy_after(found, last_round(found, fair))

    rows: list[tuple[str | Cell, ...]] = [
        (system, *(Cell(runs(network, system, skew, attack, seeds), spread(final, ".1f")) for attack in ATTACKS))
        for system in SYSTEMS
    ]
    title = f"{network.upper()}, Dirichlet {skew}, as many {'gradients' if fair else 'rounds'}"
    return Table((title, *(f"`{attack}`" for attack in ATTACKS)), rows)


def tables(seeds: Sequence[int]) -> list[Table]:
    """As many rounds, as many gradients."""
    return [table(network, skew, seeds, fair) for fair in (False, True) for network in NETWORKS for skew in SKEWS]


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
        "subset gradients computed": history["round"] * first["devices"] * copies,
        "MB sent by all devices": history["bytes_up"] / 1e6,
    }[over]
    return x, 100 * np.mean([one.history["accuracy"] for one in found], axis=0)


def picture(fetch: Fetch, path: Path, seeds: Sequence[int]) -> None:
    """Accuracy over rounds, gradients and bytes: a row for each attack, the stronger skew. The CNN beside the MLP."""
    for network in NETWORKS:
        draw(fetch, path if network == "mlp" else path.with_stem(f"{path.stem}_{network}"), network, seeds)


def draw(fetch: Fetch, path: Path, network: str, seeds: Sequence[int]) -> None:
    """One picture of one network."""
    from matplotlib.ticker import NullFormatter

    over = ("rounds", "subset gradients computed", "MB sent by all devices")
    figure, axes = panels(len(ATTACKS), len(over), 9.2, sharey=True)
    for row, attack in zip(axes, ATTACKS, strict=True):
        for axis, what in zip(row, over, strict=True):
            for number, system in enumerate(SYSTEMS):
                found = [fetch(run) for run in runs(network, system, SKEWS[0], attack, seeds)]
                x, y = curve(found, what)
                first = 0 if what == "rounds" else 1  # zero has no place on a logarithmic axis
                axis.plot(x[first:], y[first:], label=system, **style(number))
            axis.set_xscale("linear" if what == "rounds" else "log")
            axis.xaxis.set_minor_formatter(NullFormatter())
            if attack == ATTACKS[-1]:
                axis.set_xlabel(what)
        row[0].set_ylabel(f"{attack}\naccuracy, %")
    finish(figure, axes, path)


STUDY = Study(tables, range(FIRST, FIRST + 3), "2 hours", Tolerance(0.02), picture)
