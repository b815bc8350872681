"""Com-LAD: what short messages cost, and what they need."""

from collections.abc import Sequence
from pathlib import Path

from postprocess.studies.baselines import sent
from postprocess.studies.drawing import curve, finish, panels
from postprocess.studies.runs import Fetch, Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, each, last

FIRST = 3
NNM = ("--filters", '[{name = "nearest_neighbor_mixing"}]')
STAYING = ("--allocation.permute", "false", "--identities", "fixed")
METHODS = {
    "lad_linear": "LAD, trimmed mean, not compressed",
    "cwtm_linear": "none, trimmed mean, not compressed",
    "com_lad_linear": "LAD, trimmed mean",
    "com_lad_nnm_linear": "LAD, NNM + trimmed mean",
    "com_cwtm_linear": "none, trimmed mean",
    "com_cwtm_nnm_linear": "none, NNM + trimmed mean",
    "com_va_linear": "none, mean",
    "com_tgn_linear": "none, norm threshold",
}
COMPRESSORS: dict[str, tuple[object, ...]] = {
    "`none`, float16 on the wire": ("--compressor", '{name = "none", dtype = "float16"}'),
    "`natural`": ("--compressor", '{name = "natural"}'),
    "`qsgd`, 7 levels": ("--compressor", '{name = "qsgd", levels = 7}'),
    "`qsgd`, 1 level": ("--compressor", '{name = "qsgd", levels = 1}'),
    "`sign`, scaled": ("--compressor", '{name = "sign"}'),
    "`top_k`, 10 kept": ("--compressor", '{name = "top_k", kept = 10}'),
    "`top_k`, 10 kept, memory `ef21`; windows and identities fixed": (
        *("--compressor", '{name = "top_k", kept = 10}', "--memory.name", "ef21"),
        *STAYING,
    ),
    "`none`; windows and identities fixed, to compare": STAYING,
}
CODED = {
    "CRA-DL, not compressed": ("cra_dl_linear", ()),
    "its uncoded twin, not compressed": ("rba_dl_linear", ()),
    "compressed, trimmed mean": ("com_cra_dl_linear", ()),
    "compressed, NNM + trimmed mean": ("com_cra_dl_linear", NNM),
}
OWN = ("--compressor.shared", "false")
END = each(last("suboptimality"), ".4g")


def runs(config: str, words: Sequence[object], seeds: Sequence[int]) -> tuple[Run, ...]:
    """A run for each seed, all on the data of the first."""
    data = linear(FIRST, 1000, 0.25) if "dl_linear" in config else linear(FIRST)
    return tuple(Run(config, data, ("--seed", seed, *words)) for seed in seeds)


def masks(config: str, words: Sequence[object], seeds: Sequence[int]) -> tuple[str | Cell, ...]:
    """Bytes, and where training ends with a shared mask and with masks of each device's own."""
    own: str | Cell = Cell(runs(config, (*OWN, *words), seeds), END) if config.startswith("com") else ""
    shared = runs(config, words, seeds)
    return Cell(shared[:1], sent), Cell(shared, END), own


def tables(seeds: Sequence[int]) -> list[Table]:
    """Methods, compressors, and CRA-DL."""
    compressors: list[tuple[str | Cell, ...]] = []
    for label, words in COMPRESSORS.items():
        alone, mixed = runs("lad_linear", words, [FIRST]), runs("lad_linear", (*words, *NNM), [FIRST])
        compressors.append((label, Cell(alone, sent), Cell(alone, END), Cell(mixed, END)))
    return [
        Table(
            ("config", "coding, filter, rule", "MB up", "shared mask", "own masks"),
            [(f"`{config}`", label, *masks(config, (), seeds)) for config, label in METHODS.items()],
        ),
        Table(("compressor", "MB up", "trimmed mean", "NNM + trimmed mean"), compressors),
        Table(
            ("CRA-DL", "MB up", "shared mask", "own masks"),
            [(label, *masks(config, words, seeds)) for label, (config, words) in CODED.items()],
        ),
    ]


def picture(fetch: Fetch, path: Path, seeds: Sequence[int]) -> None:
    """Over bytes, the first seed."""
    shown: list[tuple[str, str, Sequence[object]]] = [
        ("LAD", "lad_linear", ()),
        ("Com-LAD, shared mask", "com_lad_linear", ()),
        ("Com-LAD, own masks", "com_lad_linear", OWN),
        ("Com-LAD, NNM, shared mask", "com_lad_nnm_linear", ()),
        ("Com-LAD, NNM, own masks", "com_lad_nnm_linear", OWN),
        ("CWTM", "cwtm_linear", ()),
        ("Com-CWTM, shared mask", "com_cwtm_linear", ()),
        ("Com-CWTM-NNM, shared mask", "com_cwtm_nnm_linear", ()),
        ("Com-VA, own masks", "com_va_linear", OWN),
        ("Com-TGN, own masks", "com_tgn_linear", OWN),
    ]
    figure, axes = panels(1, 1, 4.6)
    for number, (label, config, words) in enumerate(shown):
        curve(axes[0, 0], [fetch(run) for run in runs(config, words, seeds[:1])], number, label, "bytes_up")
    axes[0, 0].set(xscale="log", yscale="log", xlabel="MB sent by all devices", ylabel="suboptimality")
    finish(figure, axes, path)


STUDY = Study(tables, range(FIRST, FIRST + 3), "2 minutes", picture=picture)
