"""``mpicoded allocation``: who computes what, in numbers and as a picture."""

import shutil
import sys
from collections.abc import Sequence

import numpy as np

from mpicoded import configs
from mpicoded.algorithms import allocations
from mpicoded.algorithms.allocations import Report
from mpicoded.algorithms.encoders import Encoder, Mean
from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.commands.text import table
from mpicoded.data import layout
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment
from mpicoded.figures import allocation as figures
from mpicoded.figures import look

_LINES = 40  # of a picture in the terminal, at most


def allocation(config: str, overrides: Sequence[str], output: str | None = None, round: int = 0) -> int:
    """Print what an experiment's allocation does, and draw it. Raises InputError where there is no such allocation."""
    experiment = configs.load(config, overrides)
    subsets = layout.describe(experiment.data.path).subsets
    part, devices = experiment.allocation, experiment.devices
    part.check(devices, subsets)
    if round >= experiment.rounds:
        raise InputError(f"--round must be below the experiment's {experiment.rounds} rounds, got {round}")
    if output is not None:
        look.check_output(output)
    held = part.assignment(devices, subsets, round, experiment.seed)
    title = f"{part.name()}: {devices} devices, {subsets} subsets, " + (
        f"round {round}" if part.varies else "the same in all rounds"
    )
    if output is not None:
        look.save(figures.draw(held, title), output)
    encoder = _spreading(experiment)
    report = allocations.report(
        part, devices, subsets, experiment.seed, round, weigh=lambda shown: encoder.code(shown, 0, devices).rows
    )
    print(f"{title}\n\n{_table(report, devices, subsets, encoder.name())}\n")
    try:
        part.check_encoder(experiment.encoder, devices, subsets)
        experiment.encoder.check(held, experiment.compressor, experiment.compute.dtype)
        if experiment.encoder.decodes:
            print(f"{_coded(experiment, held)}\n")
    except InputError as error:
        print(f"a run would be refused: {error}\n")
    columns = shutil.get_terminal_size((80, 24)).columns
    print(draw(held, columns, _LINES, _encodes(sys.stdout.encoding)))
    if output is not None:
        print(f"\n{output}")
    return 0


def _spreading(experiment: Experiment) -> Encoder:
    """The encoder whose messages' spread is told: where votes are decoded, messages alone say little."""
    return Mean() if experiment.encoder.decodes else experiment.encoder


def _coded(experiment: Experiment, held: Bool[Array, "devices subsets"]) -> str:
    """How many votes come out of the code, and how many of them devices can corrupt."""
    encoder, devices = experiment.encoder, experiment.devices
    each, votes = encoder.messages(held), encoder.decoder(held).votes
    one_more = next((f for f in range(1, devices + 1) if encoder.corrupted(held, f)), None)
    lines = [
        f"encoder {encoder.name()}: {each} {'messages' if each > 1 else 'message'} a device, {votes} "
        f"{'votes' if votes > 1 else 'vote'}; it takes {one_more} Byzantine devices to corrupt one"
    ]
    if experiment.byzantine:
        lines.append(f"{experiment.byzantine} can corrupt {encoder.corrupted(held, experiment.byzantine)} at most")
    return "; ".join(lines)


def _table(report: Report, devices: int, subsets: int, encoder: str) -> str:
    rows: list[list[str]] = [["", "min", "mean", "max"]]
    for what, spread in (
        ("subsets on a device (r)", report.redundancy),
        ("copies of a subset", report.copies),
        ("subsets that two devices share", report.overlap),
        ("subsets stored on a device", report.storage),
    ):
        rows.append([what, str(spread.min), f"{spread.mean:.4g}", str(spread.max)])
    share = subsets / devices
    load = [report.redundancy.min / share, report.redundancy.mean / share, report.redundancy.max / share]
    rows.append([f"load, uncoded = 1 ({share:.4g} subsets)", *(f"{value:.4g}" for value in load)])
    lost = f"lost: {report.lost} of {subsets} subsets are on no device"
    rho = (
        f"rho = {report.rho:.4g}: a message of encoder {encoder} is rho beta² from the gradient, in squared distance\n"
        "(where subsets are in random order)"
    )
    return "\n".join([table(rows), "", lost, rho])


def draw(held: Bool[Array, "devices subsets"], columns: int, lines: int, signs: bool) -> str:
    """The assignment as text, a row a device: half blocks where that fits, else braille; ``#`` and ``.`` without signs.

    Where it still does not fit, a dot stands for several devices and subsets and is set where at least as much is
    computed as on average.
    """
    devices, subsets = held.shape
    if not signs:
        tall, wide = 1, 1
    else:
        tall, wide = (2, 1) if devices <= 2 * lines and subsets <= columns else (4, 2)
    rows, width = min(devices, tall * lines), min(subsets, wide * columns)
    dots = shrink(held, rows, width)
    padded = np.zeros((-(-rows // tall) * tall, -(-width // wide) * wide), bool)
    padded[:rows, :width] = dots
    cells = padded.reshape(len(padded) // tall, tall, -1, wide)
    if not signs:
        text = np.where(padded, "#", ".")
    elif tall == 2:
        text = np.array(list(" ▀▄█"))[cells[:, 0, :, 0] + 2 * cells[:, 1, :, 0]]
    else:
        bits = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # Unicode's order of braille dots
        codes = 0x2800 + np.einsum("itjw,tw->ij", cells, bits)
        text = np.vectorize(chr, otypes=["U1"])(codes)
    heading = ["devices downwards, subsets to the right"]
    if (rows, width) != held.shape:
        heading.append(
            f"a {'dot' if signs else 'sign'} stands for {devices / rows:.3g} by {subsets / width:.3g} of them, "
            "and is set where at least as much is computed as on average"
        )
    return "\n".join([*heading, *("".join(row).rstrip() for row in text)])


def shrink(held: Bool[Array, "devices subsets"], rows: int, columns: int) -> Bool[Array, "rows columns"]:
    """Which of rows × columns rectangles, as equal as can be, have at least the average share of ones."""
    if held.shape == (rows, columns):
        return held
    down, across = (np.arange(count) * size // count for count, size in zip((rows, columns), held.shape, strict=True))
    ones = np.add.reduceat(np.add.reduceat(held, down, axis=0, dtype=np.int64), across, axis=1)
    heights, widths = np.diff([*down, held.shape[0]]), np.diff([*across, held.shape[1]])
    # Whole numbers on both sides: ones / area >= all ones / all area.
    return np.asarray((ones * held.size >= np.outer(heights, widths) * held.sum()) & (ones > 0))


def _encodes(encoding: str | None) -> bool:
    """Whether a stream of this encoding can show half blocks and braille."""
    try:
        "▀▄█⠿".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
