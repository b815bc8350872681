"""What the arrays of a result file are called, and what they are measured in."""

import hashlib
from collections.abc import Iterable
from typing import Any

import h5py

COLUMNS = {
    "round": ("1", "rounds done"),
    "loss": ("1", "loss F(x)"),
    "suboptimality": ("1", "suboptimality F(x) − F*"),
    "accuracy": ("1", "test accuracy"),
    "test_loss": ("1", "test loss"),
    "gradient_norm": ("1", "norm of the gradient of F"),
    "gradients": ("1", "subset gradients computed"),
    "bytes_up": ("byte", "bytes sent by all devices"),
    "bytes_down": ("byte", "bytes sent to all devices"),
    "bytes_overhead": ("byte", "bytes of headers"),
    "seconds": ("s", "seconds in rounds"),
    "bad_records": ("1", "bad records"),
    "missing_records": ("1", "missing records"),
    "saturated": ("1", "numbers cut to a type's limit"),
}
"""The columns of the history: units, and what they are in words."""
COUNTS = (
    "round",
    "gradients",
    "bytes_up",
    "bytes_down",
    "bytes_overhead",
    "bad_records",
    "missing_records",
    "saturated",
)

_DIGITS = 10  # of a hash: that two of ten thousand experiments share them happens once in twenty thousand times


def experiment_hash(toml: str) -> str:
    """What a resolved experiment is called where files or groups are named after what is in them."""
    return hashlib.sha256(toml.encode()).hexdigest()[:_DIGITS]


_DIMENSIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "": {"parameters": ("parameter",)},
    "timings": {"": ("mpi_rank",)},
    "memory": {"": ("mpi_rank",)},
    "bad_records": {"": ("device",)},
    "bad_records/events": {"": ("event",)},
    "suspicion": {"": ("device",), "rank_score": ("mpi_rank",)},
    "suspicion/over_time": {"": ("time", "device")},
    "estimates": {"": ("step",)},
    "lost_ranks": {"": ("lost_rank",)},
    "allocation": {"": ("subset",)},
}
"""What the axes of a group's arrays are called, by name or all; those of the history are its rounds."""


def name_dimensions(result: h5py.Group) -> None:
    """Name the axes of all arrays as netCDF does, so that xarray and others know which belong together."""
    history = _arrays(result["history"])
    rounds = history.pop("round")
    h5py.h5ds.set_scale(rounds, b"round")
    for column in history.values():
        h5py.h5ds.attach_scale(column, rounds, 0)
    scales: dict[str, Any] = {}
    for group, names in _DIMENSIONS.items():
        if group in result or not group:
            for name, array in _arrays(result[group] if group else result, () if group else names).items():
                axes = names.get(name) or names[""]
                for axis, (size, called) in enumerate(zip(array.shape, axes, strict=False)):
                    _name(result, array, axis, size, called, scales)


def _arrays(group: h5py.Group, names: Iterable[str] = ()) -> dict[str, Any]:
    """A group's arrays, those of these names or all, as HDF5 itself knows them: h5py's take three times as long."""
    found = {name: h5py.h5o.open(group.id, name.encode()) for name in names or group}
    return {name: each for name, each in found.items() if isinstance(each, h5py.h5d.DatasetID)}


def _name(result: h5py.Group, array: Any, axis: int, size: int, name: str, scales: dict[str, Any]) -> None:
    if name not in scales:  # an empty dataset that says what it is
        scales[name] = result.create_dataset(name, shape=(size,), dtype="f4").id
        what = f"This is a netCDF dimension but not a netCDF variable. {size:>10}"
        h5py.h5ds.set_scale(scales[name], what.encode())
    if scales[name].shape == (size,):
        h5py.h5ds.attach_scale(array, scales[name], axis)
