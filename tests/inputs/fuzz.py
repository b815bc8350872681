"""Random damage to good files: a line and code 2, or no harm; never a traceback, a crash or a hang.

``python fuzz.py FOLDER SEED FIRST STOP [KIND]`` runs some cases in FOLDER, one after another in one process; the last
line that it prints is the case that it was at. A case is made again by its seed and number alone.
"""

import contextlib
import io
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from cases import ALLOCATION, PLAN, RESUME, RUN, SHOW, make_good

from mpicoded.cli import main

KINDS = {
    "config.toml": [PLAN, ALLOCATION],
    "data.h5": [RUN, PLAN],
    "done.h5": [SHOW, [*SHOW, "part.h5"], ["resume", "done.h5"]],
    "part.h5": [RESUME, ["show", "part.h5"]],
    "part.h5.checkpoint": [RESUME],
}
SECONDS = 20  # of a case at most, on a busy machine
MEMORY = 8 << 30
TOKENS = [b"-", b"0", b"9" * 30, b"[", b"]]", b"{", b'"', b"'", b"nan", b"inf", b"true", b"\0", b"\xff", b"\n", b"=",
          b".", b"name", b"auto", b"1e999", b"0x", b"#", b"[[filters]]\n", b"\xe2\x80\xa8", b"2020-01-01"]  # fmt: skip


def damaged(raw: bytes, rng: np.random.Generator, text: bool) -> bytes:
    """A copy in which something is other: bits, bytes, a run of them, the length, the order."""
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 4))):
        at, size = int(rng.integers(len(data) + 1)), int(min(rng.geometric(0.1), 64))
        match int(rng.integers(7 if text else 6)):
            case 0:
                if at < len(data):
                    data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + size] = rng.bytes(len(data[at : at + size]))
            case 2:
                data[at : at + size] = bytes([int(rng.choice([0, 255]))]) * len(data[at : at + size])
            case 3:
                if rng.random() < 0.3:
                    del data[at:]
            case 4:
                other = int(rng.integers(len(data) + 1))
                piece = data[other : other + size]
                data[at : at + len(piece)] = piece
            case 5:
                del data[at : at + size]
            case 6:
                data[at:at] = TOKENS[int(rng.integers(len(TOKENS)))]
        if not data:
            break
    return bytes(data)


def run(good: dict[str, bytes], seed: int, number: int, only: str | None) -> str | None:
    """What is wrong with how the program takes a case, if anything."""
    rng = np.random.default_rng([seed, number])
    for name in os.listdir():
        if name not in good:
            os.unlink(name)
    for name, raw in good.items():
        Path(name).write_bytes(raw)
    kind = only or list(KINDS)[number % len(KINDS)]
    words = KINDS[kind][int(rng.integers(len(KINDS[kind])))]
    Path(kind).write_bytes(damaged(good[kind], rng, kind == "config.toml"))
    print(number, kind, *words, flush=True)
    out, err = io.StringIO(), io.StringIO()
    start = time.monotonic()
    signal.alarm(SECONDS)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except (Exception, SystemExit):
            code = -1
            traceback.print_exc()
    signal.alarm(0)
    said = err.getvalue()
    lines = [line for line in said.splitlines() if not line.startswith("mpicoded: warning: ")]
    fine = (code == 0 and not lines) or (code == 2 and len(lines) == 1 and lines[0].startswith("mpicoded: error: "))
    left = [name for name in os.listdir() if ".part" in name]
    if fine and not left and time.monotonic() - start < SECONDS:
        return None
    return f"case {number} of seed {seed} ({kind}): code {code}, left {left}\n{said}"


def late(number: int, frame: object) -> None:
    raise SystemExit("a case takes too long")


def campaign(folder: str, seed: int, first: int, stop: int, only: str | None = None) -> int:
    """How many of the cases were not taken well."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, late)
    os.chdir(folder)
    make_good(Path(folder), lambda words: main(words))
    good = {name: Path(name).read_bytes() for name in os.listdir()}
    wrong = 0
    for number in range(first, stop):
        if (found := run(good, seed, number, only)) is not None:
            wrong += 1
            print(found, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{stop - first} cases, {wrong} wrong, peak memory {peak} MiB")
    return wrong


if __name__ == "__main__":
    sys.exit(min(campaign(sys.argv[1], *map(int, sys.argv[2:5]), *sys.argv[5:]), 100))
