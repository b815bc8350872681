"""Methods of the field, with and without coding: momentum, error feedback, variance reduction."""

from collections.abc import Sequence

from postprocess.studies.baselines import sent
from postprocess.studies.runs import Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, each, last

FIRST = 3
OWN = ("--compressor.shared", "false")
METHODS: dict[str, tuple[str, tuple[object, ...]]] = {
    "`cwtm_linear`, not compressed": ("cwtm_linear", ()),
    "`momentum_nnm_linear`, beta 0.9, not compressed": ("momentum_nnm_linear", ()),
    "`com_cwtm_linear`, rand-k, shared mask": ("com_cwtm_linear", ()),
    "`com_cwtm_linear`, own masks": ("com_cwtm_linear", OWN),
    "`rosdhb_linear`, beta 0.8, shared mask": ("rosdhb_linear", ()),
    "`rosdhb_linear`, own masks": ("rosdhb_linear", OWN),
    "`byz_ef21_linear`, top-k": ("byz_ef21_linear", ()),
    "`byz_dm21_linear`, eta 0.1, top-k": ("byz_dm21_linear", ()),
    "`byz_vr_marina_linear`, probability 0.1, shared mask": ("byz_vr_marina_linear", ()),
    "`byz_vr_marina_linear`, own masks": ("byz_vr_marina_linear", OWN),
    "`byz_dasha_page_linear`, own masks": ("byz_dasha_page_linear", ()),
}
WAYS = {
    f"{coded}, {rule}": ("--allocation", allocation, "--filters", filters)
    for coded, allocation in (
        ("coded", '{name = "balanced", redundancy = 20}'),
        ("uncoded", '{name = "partition"}'),
    )
    for rule, filters in (("TM", "[]"), ("NNM", '[{name = "nearest_neighbor_mixing"}]'))
}
SEEDED = ("cwtm", "momentum_nnm", "com_cwtm", "rosdhb", "byz_ef21", "byz_dm21", "byz_vr_marina", "byz_dasha_page")
_RAND_K = '{name = "rand_k", kept = 10, shared = true}'
LAD = {
    "`none`": '{name = "none"}',
    "`rand_k`, 10 kept, shared": _RAND_K,
    "`top_k`, 10 kept": '{name = "top_k", kept = 10}',
}
MEMORIES = (("`none`", "momentum"), ("`rand_k`, 10 kept, shared", "server_momentum"),
            ("`rand_k`, 10 kept, shared", "marina"), ("`top_k`, 10 kept", "dm21"))  # fmt: skip
END = each(last("suboptimality"), ".4g")


def run(config: str, words: Sequence[object], seed: int = FIRST) -> Run:
    """One run with fixed identities, on the data of the first seed."""
    return Run(config, linear(FIRST), ("--identities", "fixed", "--seed", seed, *words))


def tables(seeds: Sequence[int]) -> list[Table]:
    """All methods in four ways, other seeds, and LAD with a memory."""
    methods: list[tuple[str | Cell, ...]] = []
    for label, (config, words) in METHODS.items():
        ways = [run(config, (*words, *way)) for way in WAYS.values()]
        methods.append((label, Cell((ways[0],), sent), *(Cell((one,), END) for one in ways)))
    mixed = WAYS["coded, NNM"]
    others: list[tuple[str | Cell, ...]] = [
        (str(seed), *(Cell((run(f"{method}_linear", mixed, seed),), END) for method in SEEDED)) for seed in seeds
    ]
    lad: list[tuple[str | Cell, ...]] = []
    for label, compressor in LAD.items():
        one = run("lad_linear", ("--compressor", compressor))
        lad.append((label, "none", Cell((one,), sent), Cell((one,), END)))
    for label, memory in MEMORIES:
        one = run("lad_linear", ("--compressor", LAD[label], "--memory.name", memory))
        lad.append((f"{label}; `{memory}`", f"`{memory}`", Cell((one,), sent), Cell((one,), END)))
    return [
        Table(("config", "MB up", *WAYS), methods),
        Table(("run seed", *(f"`{method}`" for method in SEEDED)), others),
        Table(("LAD, compressor", "memory", "MB up", "suboptimality"), lad),
    ]


STUDY = Study(tables, range(FIRST, FIRST + 3), "3 minutes")
