"""Exact against approximate allocation in CRA-DL: a block design, its equals by chance, and no coding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpicoded.data.results import Results
from postprocess.studies.runs import Fetch, Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, last, spread

SUBSETS, REDUNDANCY, LAST = 825, 33, 10


class Scheme(NamedTuple):
    """An allocation and how it is encoded."""

    label: str
    allocation: str
    weighting: str
    colour: str
    marker: str


SCHEMES = (
    Scheme("`block_design`, 2-(100,4,1)", "block_design", "unbiased", "#0072B2", "o"),
    Scheme("`balanced`", "balanced", "unbiased", "#009E73", "s"),
    Scheme("`uniform`, unbiased weights", "uniform", "unbiased", "#E69F00", "^"),
    Scheme("`uniform`, plain weights", "uniform", "plain", "#D55E00", "v"),
    Scheme("`partition`, no coding", "partition", "unbiased", "#CC79A7", "D"),
)
ATTACKS = {
    "sign flip, 20 Byzantine": ("sign_flip", 20, ("--attack.scale", -1.0)),
    "Gaussian, 3 Byzantine": ("gaussian", 3, ("--attack.deviation", 200.0)),
    "sample duplicating, 40 Byzantine": ("sample_duplicate", 40, ()),
}
"""CRA-DL's attacks with its shares of Byzantine devices; scale and deviation are choices of ours."""


def runs(scheme: Scheme, attack: str, seeds: Sequence[int]) -> tuple[Run, ...]:
    """Runs of CRA-DL's config, or of its uncoded twin's, changed only where they must be."""
    name, byzantine, words = ATTACKS[attack]
    coded = scheme.allocation != "partition"
    words = (
        *("--allocation.name", scheme.allocation, *(("--allocation.redundancy", REDUNDANCY) if coded else ())),
        *("--encoder.weighting", scheme.weighting, "--attack.name", name, *words),
        *("--byzantine", byzantine, "--aggregator.byzantine", byzantine),
    )
    config = "cra_dl_linear" if coded else "rba_dl_linear"
    return tuple(Run(config, linear(seed, SUBSETS, 0.25), ("--seed", seed, *words)) for seed in seeds)


def late(found: Results) -> float:
    """The mean of the last ten evaluations."""
    return float(found.history["suboptimality"][-LAST:].mean())


def ratios(found: list[Results]) -> Any:
    """Of late values: those of the second half of the runs to those of the first, the design's, seed by seed."""
    values = np.array([late(one) for one in found])
    return values[len(values) // 2 :] / values[: len(values) // 2]


def ratio(found: list[Results]) -> str:
    """Their geometric mean, and all of them."""
    values = ratios(found)
    return f"**{np.exp(np.log(values).mean()):.2f}**: {', '.join(f'{value:.2f}' for value in values)}"


def tables(seeds: Sequence[int]) -> list[Table]:
    """One for each attack, a row for each scheme."""
    found = []
    for attack in ATTACKS:
        design = runs(SCHEMES[0], attack, seeds)
        rows: list[tuple[str | Cell, ...]] = []
        for scheme in SCHEMES:
            own = runs(scheme, attack, seeds)
            ends = Cell(own, spread(last("suboptimality"), ".2f")), Cell(own, spread(late, ".2f"))
            rows.append((scheme.label, *ends, "1" if scheme is SCHEMES[0] else Cell(design + own, ratio)))
        head = ("after 300 rounds", "mean of rounds 210 to 300", "ratio to the design, each seed, of these means")
        found.append(Table((attack, *head), rows))
    return found


def picture(fetch: Fetch, path: Path, seeds: Sequence[int]) -> None:
    """Every seed's ratio to the design."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, len(ATTACKS), sharey=True)
    for axes, attack in zip(panels, ATTACKS, strict=True):
        design = runs(SCHEMES[0], attack, seeds)
        axes.axhline(1, color=SCHEMES[0].colour, linewidth=1.5, label="block design")
        for place, scheme in enumerate(SCHEMES[1:]):
            values = ratios([fetch(run) for run in design + runs(scheme, attack, seeds)])
            sideways = place + np.linspace(-0.25, 0.25, len(values))
            label = scheme.label.replace("`", "")
            axes.plot(sideways, values, scheme.marker, color=scheme.colour, markersize=4, label=label)
        axes.set_yscale("log")
        axes.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
        axes.set_xticks([])
        axes.set_title(attack, fontsize="small")
        axes.grid(alpha=0.25, axis="y")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("suboptimality / block design's", fontsize="small")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


STUDY = Study(tables, range(10), "1 minute", picture=picture)
