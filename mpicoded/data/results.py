"""Result files: the one writer and the one reader.

======================  ============================================================================================
``history/NAME``        1-D datasets of equal length, a row for round 0, every ``evaluate_every`` rounds, and the last
``parameters``          (dim,), dimension ``parameter``: the parameters after the last row's round; attribute ``parts``:
                        names and shapes of the arrays that they are, one after another, each row by row (JSON);
                        ``complete``: whether the model is made of nothing else
``timings/PHASE``       (ranks,) seconds that each rank spent in a phase
``memory/shards``       (ranks,) bytes of samples that each rank has brought into memory: where ranks of a node share
                        them, its part; ``memory/peak``: its resident memory at most, with what it shares
``suspicion/NAME``      (devices,) ``score``: how far out a device's votes are (near 1 for an honest one);
                        ``rank``, ``host`` of the device; (ranks,) ``rank_score``: the mean of a rank's devices
``suspicion/over_time`` (times, devices) ``score`` as it was after each ``round`` (times,) of some of the evaluations
``estimates/NAME``      (rounds,), where the number of liars is estimated: ``tolerated``, the Byzantine votes that parts
                        with ``byzantine = "auto"`` tolerated in each round; ``outlying``, the votes that stood out;
                        both 0 in rounds that were skipped; there, and where the code can prove lies: ``proven``, the
                        least number of devices that lied
``bad_records/NAME``    (devices,) ``bad``, ``missing``: records that were replaced, since they could not be used or did
                        not come; ``first_round`` (0: never), ``last_round``; ``rank``, ``host`` of the device;
                        attributes ``most_at_once``: in one round; ``undecoded``: rounds in which the code found more
                        lies than it corrects; ``skipped``: rounds without a step, as too few messages came
``bad_records/events``  the first of them one by one: ``round``, ``device``, ``rank``, ``host``, ``missing`` (1 or 0);
                        attribute ``left_out``: how many more there were
``lost_ranks/NAME``     (lost,) ``rank``, ``host`` and ``round`` (1 for the first) of each rank that died and that the
                        others went on without
``allocation/copies``   (subsets,) on how many devices each subset is; attributes hold the allocation's report
======================  ============================================================================================

Root attributes: ``format`` = "mpicoded-result", ``version`` = 1, ``experiment`` (the resolved config as TOML),
``finished``, ``versions`` and ``mpi`` (texts), ``hosts`` (one name a rank), ``warnings`` (one line each), ``data`` (how
the dataset was made, the words of ``mpicoded data``).

History: ``round`` counts the steps done; ``loss`` is F, ``suboptimality`` F - F* where the optimum is known,
``accuracy`` the share of the test split that is classified right and ``test_loss`` the mean loss of its samples,
``gradient_norm`` the norm of grad F.
``gradients`` are the gradients of subsets (or of their mini-batches) that devices computed, each device's own counted,
also where a rank computes what several of its devices need once.
``bytes_up`` are the records that devices sent, ``bytes_down`` the parameters that they received, and
``bytes_overhead`` the headers of the ranks, all cumulative; ``seconds`` is the time spent in rounds, evaluation
and writing left out. ``bad_records`` and ``missing_records`` count messages that were replaced, ``saturated`` numbers
at the limit of a wire's type that is shorter than what is computed.

The file exists before round 1 and is always replaced whole, so that a reader finds a complete file at
every instant and a killed run leaves one.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from mpicoded.algorithms.shapes import Array, Float
from mpicoded.data.naming import COLUMNS, COUNTS, name_dimensions
from mpicoded.data.whole import has_format, numbers, opened, read_tree, whole_file, write_tree
from mpicoded.errors import InputError
from mpicoded.toml import parse

FORMAT, VERSION = "mpicoded-result", 1


class Results(NamedTuple):
    """A result file in memory."""

    path: str
    experiment: dict[str, Any]  # the resolved config
    history: dict[str, Array]
    parameters: Float[Array, " dim"]
    parts: dict[str, tuple[int, ...]]  # names and shapes of the arrays in it; of older versions none
    complete: bool  # whether these are all that the model is made of
    timings: dict[str, Array]
    memory: dict[str, Array]
    bad_records: dict[str, Any]
    suspicion: dict[str, Any]
    estimates: dict[str, Array]
    lost_ranks: dict[str, Any]
    allocation: dict[str, Any]
    finished: bool
    versions: dict[str, str]
    mpi: str
    hosts: list[str]
    warnings: list[str]
    toml: str  # the resolved config as text
    data: str  # how the dataset was made: the words of ``mpicoded data``; of older versions empty


class ResultWriter:
    """Collects a run's results and replaces the file whole at each ``write``."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        experiment: str,
        *,
        versions: Mapping[str, str],
        mpi: str,
        hosts: list[str],
        allocation: Mapping[str, Any],
        copies: Array,
        warnings: list[str],
        parts: Mapping[str, tuple[int, ...]],
        complete: bool = True,
        data: str = "",
    ) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self.warnings = warnings
        self._attributes = {
            "format": FORMAT,
            "version": VERSION,
            "experiment": experiment,
            "versions": json.dumps(dict(versions)),
            "mpi": mpi,
            "data": data,
        }
        self._hosts = hosts
        self._allocation, self._copies = dict(allocation), copies
        self._parts = {"parts": json.dumps(list(parts.items())), "complete": complete}

    def append(self, row: dict[str, float]) -> None:
        """Add a row of the history."""
        self.rows.append(row)

    def write(
        self,
        parameters: Array,
        timings: Mapping[str, Array],
        memory: Mapping[str, Array],
        bad_records: Mapping[str, Any],
        suspicion: Mapping[str, Any],
        estimates: Mapping[str, Array],
        *,
        finished: bool,
        lost_ranks: Mapping[str, Any] | None = None,
    ) -> None:
        """Write everything so far to a temporary file and put it in place."""
        with whole_file(self.path) as file:
            text = h5py.string_dtype()
            file.attrs.update(self._attributes, finished=finished)
            file.attrs.create("hosts", self._hosts, dtype=text)
            file.attrs.create("warnings", self.warnings, shape=(len(self.warnings),), dtype=text)
            self._write_history(file)
            file["parameters"] = parameters
            file["parameters"].attrs.update(self._parts)
            for name, unit, values in (("timings", "s", timings), ("memory", "byte", memory)):
                for key, value in values.items():
                    file[f"{name}/{key}"] = value
                    file[f"{name}/{key}"].attrs["units"] = unit
            write_tree(file.create_group("bad_records"), bad_records)
            write_tree(file.create_group("suspicion"), suspicion)
            write_tree(file.create_group("estimates"), estimates)
            write_tree(file.create_group("lost_ranks"), lost_ranks or {})
            group = file.create_group("allocation")
            group["copies"] = self._copies
            group.attrs.update(self._allocation)
            name_dimensions(file)

    def _write_history(self, file: h5py.File) -> None:
        group = file.create_group("history")
        names = self.rows[0] if self.rows else dict.fromkeys(("round", "loss"), 0.0)
        for name in names:
            values = np.array([row[name] for row in self.rows], np.int64 if name in COUNTS else np.float64)
            group[name] = values
            unit, words = COLUMNS.get(name, ("1", name))
            group[name].attrs.update(units=unit, long_name=words)


def _text(file: h5py.Group, name: str) -> str:
    return _valid(str(file.attrs[name]))


def _valid(text: str) -> str:
    """Raise ValueError where a text is none: HDF5 does not look whether it is UTF-8."""
    text.encode()
    return text


def _equal(columns: dict[str, Array], name: str) -> dict[str, Array]:
    if len({values.shape for values in columns.values()}) > 1:
        raise ValueError(f"{name} has unequal lengths")
    return columns


def _history(file: h5py.Group) -> dict[str, Array]:
    """Its columns. Raises ValueError where they are not rows of rounds one after another."""
    always = ("round", "bytes_up", "bytes_down", "bytes_overhead", "seconds")
    found = _equal(_group(file, "history"), "history")
    rows = len(found.get("round", ()))
    for name in always if rows else always[:1]:
        if name not in found:
            raise ValueError(f"it lacks history/{name}")
    if rows and (found["round"].dtype.kind not in "iu" or (np.diff(found["round"]) <= 0).any()):
        raise ValueError("history/round must be whole numbers that rise")
    return found


def _suspicion(file: h5py.Group) -> dict[str, Any]:
    """Scores of devices, and over time where there are any. Raises ValueError where these do not fit together."""
    found = _device_table(file, "suspicion")
    score = found.get("score")
    if score is not None and (np.ndim(score) != 1 or np.asarray(score).dtype.kind not in "iuf" or not len(score)):
        raise ValueError("suspicion/score must be a number for each device")
    kept = found.get("over_time")
    if kept is None or score is None:
        return found
    if not isinstance(kept, dict) or not {"round", "score"} <= set(kept):
        raise ValueError("suspicion/over_time must have round and score")
    shape = np.shape(kept["round"]) + np.shape(score)
    if np.shape(kept["score"]) != shape and len(kept["round"]):
        raise ValueError(f"suspicion/over_time/score must be {shape}, is {np.shape(kept['score'])}")
    return found


def _device_table(file: h5py.File, name: str) -> dict[str, Any]:
    """A group whose datasets have a row for each device, but for ``rank_score``."""
    if name not in file:  # written by a version that had none
        return {}
    tree = read_tree(file[name])
    if len({np.shape(values) for key, values in tree.items() if np.ndim(values) == 1 and key != "rank_score"}) > 1:
        raise ValueError(f"{name} has unequal lengths")
    return tree


def _parts(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """What the parameters are made of. Raises ValueError where that is something else."""
    parameters = file["parameters"]
    stored = json.loads(parameters.attrs.get("parts", "[]"))
    found = {}
    for name, shape in stored:
        if not (
            isinstance(name, str) and name.isprintable() and all(type(size) is int and size >= 0 for size in shape)
        ):
            raise ValueError("its parameters have parts without a name or a shape")
        found[name] = tuple(shape)
    if stored and (len(found) < len(stored) or sum(map(math.prod, found.values())) != parameters.size):
        raise ValueError("its parameters are not the parts that it names")
    return found


def is_result(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a result of ours, whatever its version."""
    return has_format(path, FORMAT)


def _group(file: h5py.File, name: str) -> dict[str, Array]:
    """The columns of a group; none where a version of the program did not write it yet."""
    return {key: numbers(file[name], key) for key in file[name]} if name in file else {}


def load_results(path: str | os.PathLike[str]) -> Results:
    """Read a result file. Raises InputError where it is missing, damaged or something else."""
    name = os.fspath(path)
    with opened(name, "result file", scanned=1 << 30) as file:
        return read_result(file, name)


def read_result(file: h5py.Group, name: str) -> Results:
    """A result from an open file, or from a group of one. Raises InputError, or ValueError where it is damaged."""
    if file.attrs.get("format") != FORMAT:
        raise InputError(f"{name} is not a result file of mpicoded")
    if (version := file.attrs.get("version")) != VERSION:
        raise InputError(f"result file {name} has version {version}, this program reads {VERSION}")
    toml = _text(file, "experiment")
    return Results(
        path=name,
        experiment=parse(toml),
        history=_history(file),
        parameters=numbers(file, "parameters"),
        parts=_parts(file),
        complete=bool(file["parameters"].attrs.get("complete", True)),
        timings=_equal(_group(file, "timings"), "timings"),
        memory=_equal(_group(file, "memory"), "memory"),
        bad_records=_device_table(file, "bad_records"),
        suspicion=_suspicion(file),
        estimates=_group(file, "estimates"),
        lost_ranks=_device_table(file, "lost_ranks"),
        allocation={**file["allocation"].attrs, "copies": numbers(file, "allocation/copies")},
        finished=bool(file.attrs["finished"]),
        versions={str(name): str(version) for name, version in json.loads(_text(file, "versions")).items()},
        mpi=_text(file, "mpi"),
        hosts=[_valid(str(host)) for host in file.attrs["hosts"]],
        warnings=[_valid(str(line)) for line in file.attrs["warnings"]],
        toml=toml,
        data=_text(file, "data") if "data" in file.attrs else "",
    )
