"""Exact against approximate allocation in CRA-DL: a block design, its equals by chance, and no coding.

    python -m postprocess.studies designs FOLDER [--seeds 10] [--picture docs/images/designs.png] > table.md

Each seed has data and a run of its own for every allocation and attack; result files stay in FOLDER, and what is there
is not run again.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpicoded.data.results import Results
from postprocess.studies.runs import data, options, run

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


def result(folder: Path, scheme: Scheme, attack: str, seed: int) -> Results:
    """One run of configs/cra_dl_linear.toml, changed only where it must be."""
    name, byzantine, words = ATTACKS[attack]
    path = data(folder / f"data_{seed}.h5", "--subsets", SUBSETS, "--sigma-h", 0.25, "--seed", seed)
    held = () if scheme.allocation == "partition" else ("--allocation.redundancy", REDUNDANCY)
    return run(
        folder / f"{scheme.allocation}_{scheme.weighting}_{name}_{seed}.h5",
        "rba_dl_linear.toml" if scheme.allocation == "partition" else "cra_dl_linear.toml",
        *("--data.path", path, "--seed", seed, "--allocation.name", scheme.allocation, *held),
        *("--encoder.weighting", scheme.weighting, "--attack.name", name, *words),
        *("--byzantine", byzantine, "--aggregator.byzantine", byzantine),
    )


def spread(values: np.ndarray[Any, Any], digits: int = 2) -> str:
    """Mean ± standard deviation over the seeds."""
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def table(attack: str, ends: np.ndarray[Any, Any], means: np.ndarray[Any, Any]) -> str:
    """A row for each scheme, from values (schemes, seeds)."""
    lines = [
        f"| {attack} | after 300 rounds | mean of rounds 210 to 300 | ratio to the design, each seed, of these means |",
        "|---" * 4 + "|",
    ]
    for scheme, end, mean in zip(SCHEMES, ends, means, strict=True):
        ratios = mean / means[0]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        text = "1" if scheme is SCHEMES[0] else f"**{np.exp(np.log(ratios).mean()):.2f}**: {each}"
        lines.append(f"| {scheme.label} | {spread(end)} | {spread(mean)} | {text} |")
    return "\n".join(lines)


def picture(path: Path, values: dict[str, np.ndarray[Any, Any]]) -> None:
    """Every seed's ratio to the design."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, len(values), sharey=True)
    for axes, (attack, means) in zip(panels, values.items(), strict=True):
        axes.axhline(1, color=SCHEMES[0].colour, linewidth=1.5, label="block design")
        for place, scheme in enumerate(SCHEMES[1:]):
            ratios = means[place + 1] / means[0]
            sideways = place + np.linspace(-0.25, 0.25, len(ratios))
            label = scheme.label.replace("`", "")
            axes.plot(sideways, ratios, scheme.marker, color=scheme.colour, markersize=4, label=label)
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


def main() -> None:
    """Run what is missing, print a table for each attack, and draw."""
    asked = options(__doc__, 10, "--picture")
    drawn = {}
    for attack in ATTACKS:
        histories = np.array(
            [
                [result(asked.folder, scheme, attack, seed).history["suboptimality"] for seed in range(asked.seeds)]
                for scheme in SCHEMES
            ]
        )
        drawn[attack] = histories[..., -LAST:].mean(axis=-1)
        print(table(attack, histories[..., -1], drawn[attack]), end="\n\n", flush=True)
    if asked.picture:
        picture(asked.picture, drawn)


if __name__ == "__main__":
    main()
