"""Bad data files, result files and checkpoints."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from cases import ALLOCATION, CONFIG, PLAN, RESUME, RUN, SHOW, Case, also, case

from mpicoded.data import datasets

Damage = Callable[[h5py.File], object]


def replaced(name: str, **how: Any) -> Damage:
    """A dataset made anew, as h5py's create_dataset takes it."""

    def damage(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return damage


def without(name: str) -> Damage:
    def damage(file: h5py.File) -> None:
        del file[name]

    return damage


def linked(name: str, link: Any) -> Damage:
    def damage(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return damage


def told(name: str, value: Any) -> Damage:
    return lambda file: file.attrs.__setitem__(name, value)


def elsewhere(name: str, **how: Any) -> Damage:
    """The values of a dataset are in another file."""

    def damage(file: h5py.File) -> None:
        like = file[name]
        size = like.size * like.dtype.itemsize
        del file[name]
        file.create_dataset(name, like.shape, like.dtype, external=[("/dev/zero", 0, size)])

    return damage


def virtual(name: str) -> Damage:
    def damage(file: h5py.File) -> None:
        shape, dtype = file[name].shape, file[name].dtype
        made = h5py.VirtualLayout(shape, dtype)
        made[...] = h5py.VirtualSource("config.toml", "x", shape)
        del file[name]
        file.create_virtual_dataset(name, made)

    return damage


def enormous(name: str, dimensions: int = 1, dtype: str = "f8") -> Damage:
    shape = (2**57,) if dimensions == 1 else (2**52, 5)
    return replaced(name, shape=shape, dtype=dtype, chunks=(1,) * dimensions)


def unnamable(file: h5py.File) -> None:
    """A name that is no UTF-8."""
    file["history"].move(b"loss", b"lo\xff\xfess")


def emptied(file: h5py.File) -> None:
    for name in list(file["history"]):
        replaced(f"history/{name}", data=np.zeros(0))(file)


LONG = h5py.string_dtype()


def hdf5(what: str, path: str, words: list[str], damages: dict[str, tuple[Damage, str]]) -> None:
    for name, (damage, says) in damages.items():

        @case(f"{what}: {name}")
        def _(damage: Damage = damage, says: str = says) -> Case:
            with h5py.File(path, "r+") as file:
                damage(file)
            return words, says


def endless(raw: bytes) -> bytes:
    """The last text of a collection, which is its free space, has no size: HDF5 would look for the next for ever."""
    start = raw.index(b"GCOL")
    at, number = start + 16, 1
    while number:
        number, size = int.from_bytes(raw[at : at + 2], "little"), int.from_bytes(raw[at + 8 : at + 16], "little")
        at += 16 + -(-size // 8) * 8 if number else 0
    return raw[: at + 8] + bytes(8) + raw[at + 16 :]


def cut(what: str, path: str, words: list[str]) -> None:
    for name, change in {
        "empty": lambda raw: b"",
        "one byte": lambda raw: raw[:1],
        "half of it": lambda raw: raw[: len(raw) // 2],
        "without its last byte": lambda raw: raw[:-1],
        "zeros": lambda raw: bytes(len(raw)),
        "zeros behind the first 600 bytes": lambda raw: raw[:600] + bytes(len(raw) - 600),
        "text": lambda raw: b"hello\n" * 99,
        "texts without end": endless,
    }.items():

        @case(f"{what}: {name}")
        def _(change: Callable[[bytes], bytes] = change) -> Case:
            Path(path).write_bytes(change(Path(path).read_bytes()))
            return words, path


DATA = {
    "no x": (without("x"), "dataset x is missing"),
    "x is a group": (lambda file: (file.pop("x"), file.create_group("x")), "dataset x is missing"),
    "x holds NaN": (lambda file: file["x"].__setitem__((3, 2), np.nan), "x holds NaN or infinite values"),
    "x is infinite": (lambda file: file["x"].__setitem__((17, 4), -np.inf), "x holds NaN or infinite values"),
    "y holds NaN": (lambda file: file["y"].__setitem__(0, np.nan), "y holds NaN or infinite values"),
    "x of whole numbers": (replaced("x", data=np.ones((18, 5), int)), "x must be a matrix of floats"),
    "x of complex numbers": (replaced("x", data=np.ones((18, 5), complex)), "x must be a matrix of floats"),
    "x of text": (replaced("x", shape=(18, 5), dtype=LONG), "x must be a matrix of floats"),
    "x of lists": (replaced("x", shape=(18, 5), dtype=h5py.vlen_dtype("f8")), "x must be a matrix of floats"),
    "x of records": (replaced("x", shape=(18, 5), dtype=[("a", "f8")]), "x must be a matrix of floats"),
    "x is one number": (replaced("x", data=1.0), "x must be a matrix of floats"),
    "x has no space": (replaced("x", data=h5py.Empty("f8")), "x must be a matrix of floats"),
    "x has no rows": (replaced("x", shape=(0, 5), dtype="f8"), "must have 18 rows"),
    "x has no features": (replaced("x", shape=(18, 0), dtype="f8"), "x has no features"),
    "x has too few rows": (replaced("x", data=np.ones((17, 5))), "x must have 18 rows"),
    "x declares 2^54 bytes": (enormous("x", 2), "data file data.h5"),
    "x declares what it does not store": (replaced("x", shape=(18, 5), dtype="f8"), "stores 0"),
    "y is a matrix": (replaced("y", data=np.ones((18, 1))), "y must have shape (18,)"),
    "y of whole numbers": (replaced("y", data=np.ones(18, int)), "y must be floats"),
    "offsets fall": (replaced("offsets", data=[0, 3, 2, 9, 12, 15, 18]), "offsets must rise"),
    "offsets are negative": (replaced("offsets", data=[-3, 0, 6, 9, 12, 15, 18]), "offsets must rise"),
    "offsets go too far": (replaced("offsets", data=[0, 3, 6, 9, 12, 15, 2**62]), "rows"),
    "offsets are few": (replaced("offsets", data=[0]), "offsets must be M + 1 integers"),
    "offsets are all zero": (replaced("offsets", data=[0, 0, 0]), "offsets must rise"),
    "offsets declare 2^60 bytes": (enormous("offsets", dtype="i8"), "offsets"),
    "x is a soft link": (linked("x", h5py.SoftLink("/y")), "x is a link to elsewhere"),
    "x is an external link": (linked("x", h5py.ExternalLink("/dev/zero", "/x")), "x is a link to elsewhere"),
    "x is in another file": (elsewhere("x"), "stored in other files"),
    "x is virtual": (virtual("x"), "stored in other files"),
    "task is unknown": (told("task", "clustering"), "unknown task"),
    "task is a number": (told("task", 3), "unknown task"),
    "task is a list": (told("task", ["regression", "classification"]), "data file data.h5"),
    "classes are text": (told("classes", "ten"), "data file data.h5"),
    "classes of a regression": (told("classes", 10), "classes do not fit"),
    "no classes": (lambda file: file.attrs.__delitem__("classes"), "data file data.h5"),
    "another version": (told("version", 99), "layout version must be 1"),
    "another format": (told("format", "mpicoded-result"), "not a dataset of mpicoded"),
    "an optimum that is no number": (told("optimum_loss", np.nan), "optimum_loss must be finite"),
    "made by what is no text": (
        lambda file: file.attrs.create("made_by", b"\xff\xfe", dtype=LONG),
        "data.h5 is damaged: 'utf-8' codec can't encode",
    ),
    "an optimum that is text": (told("optimum_loss", "low"), "data file data.h5"),
    "a test split without targets": (
        lambda file: file.create_dataset("test/x", data=np.ones((4, 5))),
        "test/y must be a dataset",
    ),
    "a test split that is a number": (lambda file: file.create_dataset("test", data=1.0), "data file data.h5"),
}
cut("data", "data.h5", RUN)
hdf5("data", "data.h5", RUN, DATA)
hdf5("data, planned", "data.h5", PLAN, {name: DATA[name] for name in ("no x", "x declares 2^54 bytes")})
hdf5("data, allocated", "data.h5", ALLOCATION, {name: DATA[name] for name in ("offsets fall", "x is virtual")})
RESULT = {
    "no history": (without("history"), "done.h5 is damaged"),
    "no seconds": (without("history/seconds"), "lacks history/seconds"),
    "no rows": (emptied, "has no rows"),
    "a history of text": (replaced("history/loss", shape=(3,), dtype=LONG), "loss must be numbers"),
    "a history of lists": (replaced("history/loss", shape=(3,), dtype=h5py.vlen_dtype("f8")), "loss must be numbers"),
    "a history of NaN": (replaced("history/round", data=[np.nan] * 3), "done.h5"),
    "a history of 2^60 bytes": (enormous("history/round"), "stores"),
    "a history that is a matrix": (replaced("history/loss", data=np.ones((3, 1))), "loss must be numbers"),
    "unequal history": (replaced("history/loss", data=np.ones(2)), "unequal lengths"),
    "a name that is no text": (unnamable, "done.h5 is damaged: 'utf-8' codec can't decode"),
    "parameters of text": (replaced("parameters", shape=(5,), dtype=LONG), "parameters must be numbers"),
    "parameters of 2^60 bytes": (enormous("parameters"), "stores"),
    "parameters are a link": (linked("parameters", h5py.SoftLink("/history/loss")), "is a link to elsewhere"),
    "history is a link": (linked("history", h5py.ExternalLink("data.h5", "/")), "is a link to elsewhere"),
    "copies in another file": (elsewhere("allocation/copies"), "stored in other files"),
    "timings are text": (lambda file: file["timings"].create_dataset("x", data="slow"), "x must be numbers"),
    "unequal suspicion": (replaced("suspicion/rank", data=[0] * 5), "suspicion has unequal lengths"),
    "scores are text": (replaced("suspicion/score", shape=(6,), dtype=LONG), "done.h5"),
    "bad records are text": (replaced("bad_records/bad", data=["a"] * 6, dtype=LONG), "done.h5"),
    "bad records of 2^60 bytes": (enormous("bad_records/bad"), "stores"),
    "an allocation of one number": (lambda file: file["allocation"].attrs.__setitem__("redundancy", 1), "done.h5"),
    "an allocation of text": (lambda file: file["allocation"].attrs.__setitem__("redundancy", "abc"), "done.h5"),
    "experiment is no TOML": (told("experiment", "rounds = = 3"), "done.h5 is damaged"),
    "experiment is no text": (told("experiment", np.void(b"\0\xff")), "done.h5"),
    "versions are a list": (told("versions", "[1, 2]"), "done.h5 is damaged"),
    "another version": (told("version", 99), "version"),
    "no version": (lambda file: file.attrs.__delitem__("version"), "version"),
    "another format": (told("format", "mpicoded-data"), "is not a result file"),
}
cut("result", "done.h5", SHOW)
hdf5("result", "done.h5", SHOW, RESULT)
hdf5("result, compared", "done.h5", ["show", "part.h5", "done.h5"], {
    name: RESULT[name] for name in ("no seconds", "a history of NaN", "unequal history")
})  # fmt: skip
hdf5("result, resumed", "done.h5", ["resume", "done.h5"], {
    "experiment is no TOML": (lambda file: told("experiment", "rounds = = 3")(file), "done.h5"),
    "experiment is another": (lambda file: file.attrs.update(experiment="a = 1", finished=False), "done.h5"),
    "experiment is deep": (
        lambda file: file.attrs.update(experiment="a" + ".a" * 900 + " = 1", finished=False), "done.h5"
    ),
    "experiment's data is a pipe": (
        lambda file: (file.attrs.update(experiment=CONFIG.replace("data.h5", "pipe"), finished=False),
                      os.mkfifo("pipe")),
        "data file pipe does not exist or is no file",
    ),
})  # fmt: skip
STATE = {
    "no state": (without("state"), "part.h5.checkpoint"),
    "no server": (without("state/server"), "part.h5.checkpoint"),
    "no parameters": (without("state/parameters"), "part.h5.checkpoint"),
    "no devices": (without("state/devices"), "part.h5.checkpoint"),
    "no faults": (without("state/server/faults"), "part.h5.checkpoint"),
    "no history": (without("state/history"), "part.h5.checkpoint"),
    "no seconds": (lambda file: file["state/history"].attrs.__delitem__("seconds"), "part.h5.checkpoint"),
    "parameters are NaN": (lambda file: file["state/parameters"].__setitem__((), np.nan), "checksum"),
    "parameters of another shape": (replaced("state/parameters", data=np.ones(4)), "part.h5.checkpoint"),
    "parameters are one number": (replaced("state/parameters", data=1.0), "part.h5.checkpoint"),
    "parameters are text": (replaced("state/parameters", shape=(5,), dtype=LONG), "part.h5.checkpoint"),
    "parameters of 2^60 bytes": (enormous("state/parameters"), "stores"),
    "parameters are a link": (linked("state/parameters", h5py.SoftLink("/state/told_before")), "is a link"),
    "parameters in another file": (elsewhere("state/parameters"), "stored in other files"),
    "one bit of the devices": (
        lambda file: file["state/devices"].__setitem__((3, 1), file["state/devices"][3, 1] * (1 + 2**-52)),
        "checksum",
    ),
    "devices of another experiment": (replaced("state/devices", data=np.ones((3, 5))), "part.h5.checkpoint"),
    "the round is text": (told("round", "four"), "part.h5.checkpoint is damaged"),
    "the round is negative": (told("round", -3), "part.h5.checkpoint is damaged"),
    "the round is beyond the last": (told("round", 9), "part.h5.checkpoint"),
    "another digest": (told("digest", "0" * 64), "is of another experiment"),
    "no digest": (lambda file: file.attrs.__delitem__("digest"), "part.h5.checkpoint is damaged"),
    "another version": (told("version", 1), "has version 1, this program reads"),
    "another format": (told("format", "mpicoded-result"), "is not a checkpoint of mpicoded"),
    "a group in itself": (lambda file: file.__setitem__("state/server/again", file["state/server"]), "checkpoint"),
    "a seconds of text": (
        lambda file: file["state/history"].attrs.__setitem__("seconds", "long"),
        "part.h5.checkpoint",
    ),
}
cut("checkpoint", "part.h5.checkpoint", RESUME)
hdf5("checkpoint", "part.h5.checkpoint", RESUME, STATE)


def resumed(name: str, says: str, prepare: Callable[[], object]) -> None:
    also(f"checkpoint: {name}", says, RESUME, prepare)


def alone() -> None:
    Path("part.h5").unlink()
    with h5py.File("part.h5.checkpoint", "r+") as file:
        file.attrs["experiment"] = "= ="


def another_run() -> None:
    shutil.copy("part.h5.checkpoint", "done.h5.checkpoint")
    Path("config.toml").write_text(CONFIG.replace("seed = 4", "seed = 5"))


resumed("alone, and its experiment is no TOML", "part.h5", alone)
resumed(
    "of a run whose data were made anew",
    "is of another experiment, or its dataset or its model's code has changed",
    lambda: datasets.linear_regression("data.h5", subsets=6, features=5, samples_per_subset=3, seed=2),
)
resumed(
    "of a run whose data were cut",
    "data file data.h5 is damaged",
    lambda: os.truncate("data.h5", os.path.getsize("data.h5") - 100),
)
resumed("of a run whose data are gone", "data file data.h5 does not exist", lambda: Path("data.h5").unlink())
also(
    "checkpoint: another run's",
    "stopped after round 4: mpicoded resume done.h5 goes on",
    ["run", "config.toml", "-o", "done.h5"],
    another_run,
)
