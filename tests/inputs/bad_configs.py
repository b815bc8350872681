"""Bad configs, outputs and sources, and what stands in the place of files."""

import os
from pathlib import Path

from cases import ALLOCATION, CONFIG, PLAN, RESUME, RUN, SHOW, Case, also, case


def config(name: str, content: str | bytes, says: str, words: list[str] = RUN) -> None:
    @case(f"config: {name}")
    def _() -> Case:
        raw = content if isinstance(content, bytes) else content.encode()
        Path("config.toml").write_bytes(raw)
        return words, says


def edit(name: str, old: str, new: str, says: str, words: list[str] = RUN) -> None:
    assert old in CONFIG
    config(name, CONFIG.replace(old, new), says, words)


config("empty", "", "the top level lacks")
config("a BOM", "\ufeff" + CONFIG, "is not valid TOML")
config("NUL bytes", CONFIG.replace("6", "\0"), "is not valid TOML")
config("not UTF-8", b"# \xff\xfe\n" + CONFIG.encode(), "is not valid TOML")
config("UTF-16", CONFIG.encode("utf-16"), "is not valid TOML")
config("half of it", CONFIG[: len(CONFIG) // 2 - 3], "config.toml")
config("brackets without end", "a = " + "[" * 5000, "is not valid TOML")
config("a very deep table", "a" + ".a" * 900 + " = 1\n" + CONFIG, "config config.toml")
config("a deeper table", "a" + ".a" * 100_000 + " = 1\n" + CONFIG, "nested too deeply")
config("a deep table of data", CONFIG + "[data.path" + ".a" * 5000 + "]\n", "config")
config("a number of 5000 digits", CONFIG.replace("rounds = 8", "rounds = " + "9" * 5000), "is not valid TOML")
config("5000 hexadecimal digits", CONFIG.replace("rounds = 8", "rounds = 0x" + "f" * 5000), "rounds")
config("more than a config has", "# x\n" * 400_000, "config config.toml")
config("a table twice", CONFIG + '[data]\npath = "b.h5"\n', "is not valid TOML")
config("a date for a number", CONFIG.replace("rounds = 8", "rounds = 2020-01-01"), "rounds: expected int")
edit("2^63 rounds", "rounds = 8", f"rounds = {2**63}", "rounds")
edit("2^64 devices", "devices = 6", f"devices = {2**64}", "devices")
edit("10^15 devices", "devices = 6", f"devices = {10**15}", "devices")
config(
    "10^13 devices",
    CONFIG.replace("devices = 6", f"devices = {10**13}").replace("cyclic", "uniform").replace('momentum"', 'none"'),
    "out of memory",
)
edit("10^15 devices, planned", "devices = 6", f"devices = {10**15}", "devices", PLAN)
edit("10^15 devices, allocated", "devices = 6", f"devices = {10**15}", "devices", ALLOCATION)
edit("-1 devices", "devices = 6", "devices = -1", "devices: expected int >= 1")
edit("true devices", "devices = 6", "devices = true", "devices: expected int")
edit("no rounds", "rounds = 8", "rounds = 0", "rounds: expected int >= 1", PLAN)
edit("a step that is no number", "1e-4", "nan", "step_size")
edit("an infinite step", "1e-4", "inf", "step_size")
edit("a momentum that is no number", "momentum = 0.9", "momentum = nan", "momentum")
edit("an attack that is no number", '"sign_flip"', '"sign_flip"\nscale = nan', "scale")
edit("filters that are a table", "[attack]", "[filters.a]\nb = 1\n[attack]", "filters")
edit("filters that are numbers", "seed = 4", "filters = [1, 2]", "filters must be a table with a name")
edit("an attack that is a list", '[attack]\nname = "sign_flip"', "[[attack]]", "attack")
edit("a name that is a list", '"sign_flip"', '["sign_flip"]', "attack has no component")
edit("data that are a list", '[data]\npath = "data.h5"', "[[data]]", "data")
edit("a path with a NUL", '"data.h5"', '"data\\u0000.h5"', "does not exist or is no file")
edit("a path of 5000 letters", '"data.h5"', f'"{"d" * 5000}"', "data file ddd")
edit("a path that is a number", '"data.h5"', "5", "data.path: expected str, got 5", ALLOCATION)
also("config: a path that is no text", "data.path: expected text", [*RUN, "--data.path", "\udcff.h5"])
edit("an empty path", '"data.h5"', '""', "does not exist or is no file")
edit("an endless device as data", '"data.h5"', '"/dev/zero"', "does not exist or is no file")
edit("batches of nothing", '"data.h5"', '"data.h5"\nbatch_size = 0', "batch_size: expected int >= 1")
edit("memory that is no size", '"data.h5"', '"data.h5"\nmemory = "much"', "data.memory must be a size")
edit("a quoted key", "seed = 4", '"seed\\n" = 4', "has no key")
edit("a redundancy of 10^18", "redundancy = 2", f"redundancy = {10**18}", "redundancy")
edit("a checkpoint in 1e400 s", "checkpoint_every = 4", 'checkpoint_every = "1e400s"', "checkpoint_every")
edit("a checkpoint in 400 digits", "checkpoint_every = 4", f'checkpoint_every = "{"9" * 400}s"', "checkpoint_every")


def in_place_of(what: str, path: str, words: list[str], says: str) -> None:
    """A folder, a pipe, an endless device or nothing stands where a file should."""

    @case(f"{what}: a folder")
    def _() -> Case:
        Path(path).unlink(missing_ok=True)
        Path(path).mkdir()
        return words, says

    @case(f"{what}: a pipe")
    def _() -> Case:
        Path(path).unlink(missing_ok=True)
        os.mkfifo(path)
        return words, says

    @case(f"{what}: an endless device")
    def _() -> Case:
        Path(path).unlink(missing_ok=True)
        Path(path).symlink_to("/dev/zero")
        return words, says

    @case(f"{what}: a link to itself")
    def _() -> Case:
        Path(path).unlink(missing_ok=True)
        Path(path).symlink_to(path)
        return words, says


in_place_of("config", "config.toml", RUN, "config config.toml")
in_place_of("data", "data.h5", RUN, "data file data.h5 does not exist or is no file")
in_place_of("result", "done.h5", SHOW, "result file done.h5 does not exist or is no file")
in_place_of("checkpoint", "part.h5.checkpoint", RESUME, "part.h5.checkpoint is not a checkpoint of mpicoded")
in_place_of("source", "table.csv", ["data", "import", "table.csv", "-o", "new.h5"], "table.csv does not exist or is no")

# --- what is written

also("output: a pipe", "new.h5 exists and is not a result file of mpicoded", RUN, lambda: os.mkfifo("new.h5"))
also("output: a name that is too long", "cannot be written", ["run", "config.toml", "-o", "n" * 250 + ".h5"])
also("output: a name of 5000 letters", "output nnn", ["run", "config.toml", "-o", "n" * 5000])
also("output: in a folder that is a file", "output data.h5/new.h5", ["run", "config.toml", "-o", "data.h5/new.h5"])
also(
    "output: a checkpoint that is a folder",
    "new.h5.checkpoint is not a checkpoint of mpicoded",
    RUN,
    lambda: Path("new.h5.checkpoint").mkdir(),
)
also("output: a picture, nowhere", "picture nowhere/x.png cannot be written", [*ALLOCATION, "-o", "nowhere/x.png"])
also("output: data, nowhere", "cannot write nowhere/x.h5", ["data", "linear_regression", "-o", "nowhere/x.h5"])
also(
    "output: data, to a pipe",
    "new.h5 exists and is not a dataset of mpicoded",
    ["data", "linear_regression", "-o", "new.h5"],
    lambda: os.mkfifo("new.h5"),
)

# --- what is imported


def source(name: str, file: str, content: bytes, says: str, *words: str) -> None:
    @case(f"source: {name}")
    def _() -> Case:
        Path(file).write_bytes(content)
        return ["data", "import", file, "-o", "new.h5", "--subsets", "2", *words], says


source("empty", "a.csv", b"", "is empty")
source("NUL bytes", "a.csv", b"1,2\n\0,\0\n", "a.csv")
source("not UTF-8", "a.csv", b"1,2\n\xff\xfe,3\n", "cannot be read")
source("a line that is short", "a.csv", b"1,2\n3\n", "line 2 has not 2 values")
source("one column", "a.csv", b"1\n2\n3\n", "needs x (samples, features)")
source("infinite", "a.csv", b"1,2\n1e999,3\n", "NaN or infinite")
source("a header alone", "a.csv", b"a,b\n", "a.csv")
source("no zip", "a.npz", b"PK\x03\x04" + b"x" * 99, "cannot be read")
source("no gzip", "a.csv.gz", b"\x1f\x8bxxxx", "cannot be read")
source("a LIBSVM index of 10^9", "a.svm", b"1 1000000000:1\n2 1:1\n" * 9, "too many to store dense")
source("no number in LIBSVM", "a.svm", b"1 1:x\n", "cannot be read")
