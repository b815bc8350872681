"""What the arrays of a result file are called, and what they are measured in."""

import hashlib

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
    history = dict(result["history"].items())
    rounds = history.pop("round")
    rounds.make_scale("round")
    for column in history.values():
        h5py.h5ds.attach_scale(column.id, rounds.id, 0)
    scales: dict[str, h5py.Dataset] = {}
    for group, names in _DIMENSIONS.items():
        if group in result or not group:
            arrays = result[group].items() if group else [(name, result[name]) for name in names]
            for name, array in arrays:
                axes = names.get(name) or names[""]
                if isinstance(array, h5py.Dataset):
                    for axis, (size, called) in enumerate(zip(array.shape, axes, strict=False)):
                        _name(result, array, axis, size, called, scales)


def _name(
    result: h5py.Group, array: h5py.Dataset, axis: int, size: int, name: str, scales: dict[str, h5py.Dataset]
) -> None:
    if name not in scales:  # an empty dataset that says what it is
        scales[name] = result.create_dataset(name, shape=(size,), dtype="f4")
        scales[name].make_scale(f"This is a netCDF dimension but not a netCDF variable. {size:>10}")
    if scales[name].shape == (size,):
        h5py.h5ds.attach_scale(array.id, scales[name].id, axis)
