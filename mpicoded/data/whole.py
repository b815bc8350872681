"""HDF5 files that appear whole or not at all, and that are read without trust in what they declare."""

import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mpicoded.errors import InputError, one_line

_MOST_COMPRESSED = 1100  # times; zlib's limit is 1030
_CHECKSUM = "crc32"
_COLLECTION = b"GCOL\x01\0\0\0"
_TEXTS = 256  # read together
_SCANNED = 1 << 20  # bytes at the beginning of a file, where attributes are


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator["_Written"]:
    """A new file that takes the place of ``path`` when the block ends well.

    It is written beside it and synced before it is renamed: at every instant, also after a kill or a power failure,
    the old or the new file stands there complete. Raises OSError where it cannot be written, and leaves the old one.
    """
    target = Path(path)
    temporary = _beside(target)
    written = None
    try:
        written = _Written(temporary)
        yield written
        written.close()
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    finally:
        with suppress(OSError):
            if written is not None:
                written.abandon()
            temporary.unlink(missing_ok=True)


def write_whole(path: str, content: bytes, what: str = "output") -> None:
    """Put a file of this content in place. Raises InputError where it cannot be written: ``what path …``."""
    try:
        with replaced(path) as file:
            file.write(memoryview(content))
    except OSError as error:
        raise InputError(f"{what} {path} cannot be written: {error.strerror}") from None


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """The same as HDF5."""
    # Version 1.8 of the format: the older one has no room for the names of more than 4095 hosts.
    with (
        replaced(path) as written,
        h5py.File(_beside(Path(path)), "w", driver="fileobj", fileobj=written, libver=("v108", "v110")) as file,
    ):
        yield file


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError where ``replaced`` cannot write this file now."""
    temporary = _beside(Path(path))
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
    os.unlink(temporary)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.part")


class _Written:
    """A new file, that HDF5 can write to. After a write that failed all others seem to succeed, until it is closed.

    HDF5 may crash where it closes a file after a failed write, on a full disk say, so it is never told of one.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._at = 0
        self._error: BaseException | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (os.fstat(self._file).st_size if whence == os.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: memoryview) -> int:
        done = 0
        try:
            while self._error is None and done < len(data):  # one call writes 2^31 bytes at most
                done += os.pwrite(self._file, data[done:], self._at + done)
        except BaseException as error:  # also a signal's
            self._error = error
        self._at += len(data)
        return len(data)

    def readinto(self, data: memoryview) -> int:
        return os.preadv(self._file, [data], self._at)

    def truncate(self, size: int) -> int:
        try:
            os.ftruncate(self._file, size)
        except OSError as error:
            self._error = self._error or error
        return size

    def flush(self) -> None:
        """Wait for the end: only a whole file matters."""

    def close(self) -> None:
        """Raise the error of the first write that failed; else bring the file to the disk."""
        if self._error is not None:
            raise self._error
        os.fsync(self._file)
        number, self._file = self._file, -1
        os.close(number)

    def abandon(self) -> None:
        if self._file != -1:
            os.close(self._file)


@contextmanager
def opened(path: str | os.PathLike[str], what: str, scanned: int = _SCANNED) -> Iterator[h5py.File]:
    """An HDF5 file to read. What is wrong with it, also where the block finds it, is an InputError: ``what path …``.

    A file that leads to others by links is refused. ``scanned``: bytes in which texts are looked at before HDF5 does.
    """
    if not os.path.isfile(path):  # neither a folder nor a pipe, for which one would wait
        raise InputError(f"{what} {os.fspath(path)} does not exist or is no file")
    try:
        _check_heaps(path, scanned)
        file = h5py.File(path, "r", locking=False)
    except PermissionError as error:
        raise InputError(f"{what} {os.fspath(path)} cannot be read: {error.strerror}") from None
    except Exception as error:  # what a damaged file makes HDF5 and others raise has no end
        why = one_line(error)
        raise InputError(f"{what} {os.fspath(path)} is damaged, it cannot be read as HDF5: {why}") from None
    try:
        with file:
            if (link := file.visititems_links(_elsewhere)) is not None:
                raise ValueError(f"{link} is a link to elsewhere")
            yield file
    except InputError:
        raise
    except Exception as error:
        why = one_line(error.__cause__ or error)  # h5py's locks put an exception of their own on top of some
        raise InputError(f"{what} {os.fspath(path)} is damaged: {why}") from None


def _elsewhere(name: str, link: Any) -> str | None:
    return None if isinstance(link, h5py.HardLink) else name


def _check_heaps(path: str | os.PathLike[str], scanned: int) -> None:
    """Raise ValueError where a collection of texts is damaged: it has no checksum, and HDF5 may read it for ever.

    The collection is a signature, its size, and objects that fill it: number, references, size, content up to a
    multiple of 8; number 0 is the free space at the end, whose size is with its header.
    """
    with open(path, "rb") as file:
        raw = file.read(scanned)
    start = raw.find(_COLLECTION)
    while start >= 0:
        at, stop = start + 16, start + int.from_bytes(raw[start + 8 : start + 16], "little")
        if not at < stop <= os.path.getsize(path):
            raise ValueError(f"a collection of texts at byte {start} has no such size")
        while at + 16 <= min(stop, len(raw)):
            number, size = int.from_bytes(raw[at : at + 2], "little"), int.from_bytes(raw[at + 8 : at + 16], "little")
            step = 16 + -(-size // 8) * 8 if number else size
            if step < 16 or at + step > stop:
                raise ValueError(f"a text at byte {at} has no such size")
            at += step
        start = raw.find(_COLLECTION, start + 8)


def has_format(path: str | os.PathLike[str], name: str) -> bool:
    """Whether a file is HDF5 with this ``format`` attribute."""
    if not os.path.isfile(path):
        return False
    try:
        _check_heaps(path, _SCANNED)
        with h5py.File(path, "r", locking=False) as file:
            return bool(file.attrs.get("format") == name)
    except Exception:  # whatever it is, it is not that
        return False


def values(dataset: h5py.Dataset, rows: Any = ()) -> Any:
    """What a dataset holds. Raises ValueError where that is less than it declares, or in another file."""
    check_stored(dataset)
    return dataset[rows]


def check_stored(dataset: h5py.Dataset) -> None:
    """Raise ValueError where a dataset holds less than it declares, or is in another file: before memory is taken."""
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} is stored in other files")
    if dataset.shape is not None and dataset.nbytes > _MOST_COMPRESSED * dataset.id.get_storage_size():
        raise ValueError(f"{dataset.name} declares {dataset.nbytes} bytes and stores {dataset.id.get_storage_size()}")


def numbers(group: h5py.Group, name: str, dimensions: int = 1) -> Any:
    """A dataset of numbers with so many dimensions. Raises ValueError where it is none, or is not there."""
    dataset = group.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"it lacks {name}")
    if dataset.shape is None or dataset.ndim != dimensions or dataset.dtype.kind not in "iufb":
        raise ValueError(f"{name} must be numbers in {dimensions} dimension(s), is {dataset.shape} {dataset.dtype}")
    return values(dataset)


def write_tree(group: h5py.Group, tree: Mapping[str, Any], *, checked: bool = False) -> None:
    """Arrays as datasets, mappings as groups, single values as attributes. ``checked``: arrays with checksums."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            write_tree(group.create_group(name), value, checked=checked)
        elif np.ndim(value) == 0:
            group.attrs[name] = value
        elif np.asarray(value).dtype.kind in "UO":
            group.create_dataset(name, data=list(value), shape=(len(value),), dtype=h5py.string_dtype())
        else:
            made = group.create_dataset(name, data=value)
            if checked:
                made.attrs[_CHECKSUM] = _checksums(np.asarray(value))


def read_tree(
    group: h5py.Group,
    rows: Mapping[str, slice] | None = None,
    *,
    checked: bool = False,
    leave_out: Collection[str] = (),
) -> dict[str, Any]:
    """What ``write_tree`` wrote; of the datasets in ``rows`` only these. Raises ValueError for wrong checksums."""
    tree: dict[str, Any] = dict(group.attrs)
    for name, item in group.items():
        if name in leave_out:
            continue
        if isinstance(item, h5py.Group):
            tree[name] = read_tree(item, checked=checked)
        elif h5py.check_string_dtype(item.dtype):
            check_stored(item)
            tree[name] = _texts(item)
        else:
            some = rows[name] if rows and name in rows else ()
            tree[name] = values(item, some)
            if checked and not np.array_equal(item.attrs[_CHECKSUM][some], _checksums(tree[name])):
                raise ValueError(f"{item.name} is not what was written: its checksum is another")
    return tree


def _texts(dataset: h5py.Dataset) -> Any:
    """Texts of one dimension. Raises ValueError where they are more than the file: many references to one of them."""
    left = dataset.file.id.get_filesize()
    found: list[str] = []
    for start in range(0, len(dataset), _TEXTS):
        some = dataset.asstr()[start : start + _TEXTS]
        left -= sum(map(len, some))
        if left < 0:
            raise ValueError(f"{dataset.name} has more text than the file has bytes")
        found.extend(some)
    for text in set(found):
        text.encode()  # HDF5 does not look whether it is UTF-8
    return np.asarray(found)


def _checksums(array: Any) -> Any:
    """The CRC-32 of each row of an array, so that some rows can be read alone; of one of a single dimension, of all."""
    rows = np.ascontiguousarray(array)
    parts = rows if rows.ndim > 1 else [rows]
    return np.array([zlib.crc32(part.data if part.size else b"") for part in parts], np.uint32)
