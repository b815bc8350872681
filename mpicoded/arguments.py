"""The words of the command line, and what each is for."""

import argparse
import math
from typing import NoReturn

from mpicoded import __version__
from mpicoded.errors import InputError
from mpicoded.units import seconds


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """What takes the words apart. Raises InputError."""
    found = _Parser(
        prog="mpicoded",
        description="Coded, Byzantine-robust distributed training over MPI.",
        epilog="Start it alone, with --ranks P, or under mpiexec or srun: it is the same program.",
        allow_abbrev=False,
    )
    found.add_argument("--version", action="version", version=f"mpicoded {__version__}")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="train as a config says",
        description="Train as a config says. Any key of the config can be overridden: --section.key value.",
        usage="mpicoded run CONFIG.toml [-o OUT.h5] [--ranks P] [options] [--section.key value …]",
        allow_abbrev=False,
    )
    run.add_argument("config", help="the experiment, a TOML file")
    run.add_argument("-o", "--output", help="result file (default: the config's name in the current folder)")
    run.add_argument("--restart", action="store_true", help="begin anew where a stopped run could be resumed")
    plan = commands.add_parser(
        "plan",
        help="what a run would need and send, before it starts",
        description="Memory, messages, bytes and theory of a run, without running it; with --time, its seconds.",
        usage="mpicoded plan CONFIG.toml [--ranks P] [--time] [--nodes Q] [rates] [--section.key value …]",
        allow_abbrev=False,
    )
    plan.add_argument("config", help="the experiment, a TOML file")
    plan.add_argument("--ranks", type=_positive, metavar="P", help="the ranks that it would run on (default 1)")
    _add_rates(plan)
    allocation = commands.add_parser(
        "allocation",
        help="who computes what: numbers and a picture",
        description="What an experiment's allocation does with the subsets, as a table and as a picture.",
        usage="mpicoded allocation CONFIG.toml [-o PICTURE.png] [--round N] [--section.key value …]",
        allow_abbrev=False,
    )
    allocation.add_argument("config", help="the experiment, a TOML file")
    allocation.add_argument("-o", "--output", help="also draw it to this file: PNG, PDF or SVG by its ending")
    allocation.add_argument("--round", type=_count, default=0, metavar="N", help="of this round (default 0)")
    resume = commands.add_parser("resume", help="finish an interrupted run", allow_abbrev=False)
    resume.add_argument("result", help="the result file of the run")
    resume.add_argument("--trust", action="store_true", help="run the code that its config names (model torch)")
    for command in (run, resume):
        command.add_argument(
            "--time-limit",
            type=_seconds,
            metavar="T",
            help="stop with a checkpoint before this time is over, e.g. 55m (s, m or h)",
        )
    for command in (run, resume, _add_sweep(commands)):
        command.add_argument("--ranks", type=_positive, metavar="P", help="start P ranks under the installed mpiexec")
        command.add_argument(
            "--watchdog",
            type=_seconds,
            metavar="T",
            help="end the job, and say where each rank is, when nothing has happened for so long, e.g. 10m",
        )
        command.add_argument("--quiet", action="store_true", help="say nothing unless something is wrong")

    _add_data(commands)
    listing = commands.add_parser("list", help="every component with its fields and its paper", allow_abbrev=False)
    listing.add_argument("family", nargs="?", help="only this family, e.g. aggregator")
    listing.add_argument("--markdown", action="store_true", help="as tables for a document, without plug-ins")
    listing.add_argument("--reference", action="store_true", help="every key of a config, as a document")
    show = commands.add_parser("show", help="summarise and compare result files", allow_abbrev=False)
    show.add_argument("files", nargs="+", metavar="FILE", help="result files")
    show.add_argument("--timings", action="store_true", help="also the seconds of each phase")
    show.add_argument("--config", action="store_true", help="print the experiment of one, as a config to run again")
    show.add_argument("--follow", action="store_true", help="print the rows of one running job as they come")
    _add_merge(commands)
    _add_report(commands)
    _add_export(commands)
    commands.add_parser("doctor", help="is this machine right?", allow_abbrev=False)
    return found


def _add_export(commands: "argparse._SubParsersAction[_Parser]") -> None:
    export = commands.add_parser(
        "export",
        help="trained parameters, or histories, for other programs",
        description="The parameters of a result file as a safetensors file, a tensor for each of their names; or the "
        "histories of result files as a table, or for TensorBoard.",
        usage="mpicoded export OUT.h5 -o MODEL.safetensors [--trust]\n"
        "       mpicoded export --csv FILE … -o TABLE.csv\n"
        "       mpicoded export --tensorboard FILE … -o FOLDER [--follow]",
        allow_abbrev=False,
    )
    export.add_argument("files", nargs="+", metavar="FILE", help="result files; one for its parameters")
    export.add_argument("-o", "--output", required=True, help="the file or folder to write")
    what = export.add_mutually_exclusive_group()
    what.add_argument("--csv", action="store_true", help="the histories, a row each, with the settings that differ")
    what.add_argument("--tensorboard", action="store_true", help="the histories as TensorBoard's event files")
    export.add_argument("--follow", action="store_true", help="TensorBoard: go on while the job runs")
    export.add_argument("--trust", action="store_true", help="run the network's code where more of it is needed")


def _add_merge(commands: "argparse._SubParsersAction[_Parser]") -> None:
    merge = commands.add_parser(
        "merge",
        help="many results in one file",
        description="One file with a group for each result, named by its experiment's hash; all that reads result "
        "files reads it.",
        allow_abbrev=False,
    )
    merge.add_argument("files", nargs="+", metavar="FILE", help="result files, or merged ones")
    merge.add_argument("-o", "--output", required=True, metavar="MERGED.h5", help="the file to write")


def _add_report(commands: "argparse._SubParsersAction[_Parser]") -> None:
    report = commands.add_parser(
        "report",
        help="result files as one page for a browser",
        description="A page that needs nothing else: curves, table, what differs, timings, bytes, suspects, warnings, "
        "versions, and the commands to repeat it.",
        allow_abbrev=False,
    )
    report.add_argument("files", nargs="+", metavar="FILE", help="result files")
    report.add_argument("-o", "--output", default="report.html", help="the page (default: report.html)")
    report.add_argument("--title", help="its title")


def _add_rates(plan: _Parser) -> None:
    """What the predicted seconds depend on; each of these asks for them."""
    told = plan.add_argument_group("seconds of a round, predicted (any of these asks for it)")
    told.add_argument("--time", action="store_true", help="measure this machine for some seconds, and predict")
    told.add_argument("--nodes", type=_positive, metavar="Q", help="nodes that the ranks are on (default 1)")
    for name, metavar, text in (
        ("alpha", "S", "seconds of a message between nodes (default 2e-6)"),
        ("beta", "S", "seconds of each byte of it (default 1/3e9)"),
        ("node-alpha", "S", "seconds of a message within a node (default: measured)"),
        ("node-beta", "S", "seconds of each byte of it (default: measured)"),
        ("call", "S", "seconds of a collective call beside its messages (default: measured)"),
        ("flops", "F", "of gradients, what a rank does in a second (default: measured)"),
    ):
        told.add_argument(f"--{name}", type=_rate, metavar=metavar, help=text)


RATES = ("alpha", "beta", "node_alpha", "node_beta", "call", "flops")


def predicts(arguments: argparse.Namespace) -> bool:
    """Whether any option of ``plan`` asks for seconds."""
    return bool(arguments.time) or any(getattr(arguments, name) is not None for name in ("nodes", *RATES))


def _add_sweep(commands: "argparse._SubParsersAction[_Parser]") -> _Parser:
    sweep = commands.add_parser(
        "sweep",
        help="a grid of experiments: list or run it",
        description="The grid of all --vary over all configs. Unless told otherwise, list its experiments by number.",
        usage="mpicoded sweep CONFIG.toml … [--vary section.key=value,value …] [-o FOLDER] "
        "[--run | --array | --index N] [--ranks P] [--section.key value …]",
        allow_abbrev=False,
    )
    sweep.add_argument("configs", nargs="+", metavar="CONFIG.toml", help="experiments, TOML files")
    sweep.add_argument("--vary", action="append", default=[], metavar="KEY=V,V", help="the values of one key")
    sweep.add_argument("-o", "--output", default="results", help="folder of the result files (default: results)")
    what = sweep.add_mutually_exclusive_group()
    what.add_argument("--run", action="store_true", help="run those that are not finished, one after another")
    what.add_argument("--array", action="store_true", help="print the numbers of those, for sbatch --array")
    what.add_argument("--index", type=_count, metavar="N", help="run, or resume, number N, unless it is finished")
    return sweep


def _add_data(commands: "argparse._SubParsersAction[_Parser]") -> None:
    data = commands.add_parser("data", help="make or import a dataset", allow_abbrev=False)
    names = data.add_subparsers(dest="dataset", required=True, metavar="NAME")
    common = _Parser(add_help=False, allow_abbrev=False)
    common.add_argument("-o", "--output", required=True, help="the HDF5 file to write")
    common.add_argument("--seed", type=_count, default=0)
    split = _Parser(add_help=False, allow_abbrev=False)
    split.add_argument("--subsets", type=_positive, default=100, help="subsets to split into (default 100)")
    split.add_argument("--split", choices=("iid", "by_label", "dirichlet"), default="iid")
    split.add_argument("--alpha", type=float, help="of the Dirichlet split (default 1)")
    linear = names.add_parser(
        "linear_regression", parents=[common], help="the papers' synthetic problem", allow_abbrev=False
    )
    linear.add_argument("--subsets", type=_positive, default=100)
    linear.add_argument("--features", type=_positive, default=100)
    linear.add_argument("--samples-per-subset", type=_positive, default=1)
    linear.add_argument("--sigma-h", type=float, default=0.3, help="how much the subsets differ (default 0.3)")
    names.add_parser("digits", parents=[common, split], help="8 × 8 digits of scikit-learn", allow_abbrev=False)
    fashion = names.add_parser(
        "fashion_mnist", parents=[common, split], help="28 × 28 images of clothes", allow_abbrev=False
    )
    fashion.add_argument("--source", help="folder of the IDX files (default: that of Debian's package)")
    source = names.add_parser(
        "import", parents=[common, split], help="an npz, HDF5, CSV or LIBSVM file", allow_abbrev=False
    )
    source.add_argument("source", metavar="SOURCE")
    source.add_argument("--target", help="CSV: name or number of the target column (default: the last)")
    source.add_argument("--task", choices=("auto", "regression", "classification"), default="auto")
    source.add_argument("--test-fraction", type=float, default=0.2, help="classification: share of the test split")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return found


def _seconds(text: str) -> float:
    if (found := seconds(text)) is None:
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 55m or 2h, got {text!r}")
    return found


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)
