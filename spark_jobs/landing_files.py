"""The files of a landing folder, and what stands in the head of each, without a Spark job.

Unusual: pyarrow lists and opens them, several at once. A call into the JVM for each of ten thousand small files, let alone
the JVM's reading of their footers, takes longer than their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

_AT_ONCE = 8

Head = TypeVar("Head")


class UnreadableFileError(ValueError):
    """A landed file that is not what its name says, or not whole."""

    @classmethod
    def of(cls, file: str, error: Exception) -> UnreadableFileError:
        return cls(f"{file} cannot be read ({error}): land it again, whole, or remove it")


def files_in(folder: str) -> list[str]:
    """Return the files in a folder, by name; hidden ones are passed over, and a folder that is not there has none.

    Raises `UnreadableFileError` where a name is not UTF-8.
    """
    system, path = _system_of(folder)
    found = system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    try:
        names = [info.base_name for info in found if info.type == pafs.FileType.File]
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{folder} has a file whose name is not UTF-8 ({error}): rename it") from error
    return [f"{folder}/{name}" for name in sorted(names) if not name.startswith((".", "_"))]


def heads_of(files: list[str], read: Callable[[pa.NativeFile, str], Head]) -> list[Head]:
    """Return what `read` makes of each file and its name, in their order. Raises `UnreadableFileError`."""

    def head(file: str) -> Head:
        try:
            with open_file(file) as source:
                return read(source, file)
        except (pa.ArrowException, OSError) as error:
            raise UnreadableFileError.of(file, error) from error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(head, files))


def open_file(file: str) -> pa.NativeFile:
    """Open a file anywhere for reading."""
    system, path = _system_of(file)
    return system.open_input_file(path)


def write_to(file: str) -> pa.NativeFile:
    """Open a new file anywhere for writing."""
    system, path = _system_of(file)
    return system.open_output_stream(path)


def bytes_of(files: Sequence[str]) -> list[int]:
    """Return the size of each file."""
    systems = [_system_of(file) for file in files]
    return [system.get_file_info(path).size for system, path in systems]


def remove_files(files: Sequence[str]) -> None:
    """Remove files anywhere."""
    for file in files:
        system, path = _system_of(file)
        system.delete_file(path)


def make_folder(folder: str) -> None:
    """Make a folder anywhere, with those above it."""
    system, path = _system_of(folder)
    system.create_dir(path, recursive=True)


def remove_folder(folder: str) -> None:
    """Remove a folder anywhere with what is in it, if it is there."""
    system, path = _system_of(folder)
    if system.get_file_info(path).type != pafs.FileType.NotFound:
        system.delete_dir(path)


def _system_of(address: str) -> tuple[pafs.FileSystem, str]:
    return pafs.FileSystem.from_uri(address) if "://" in address else (pafs.LocalFileSystem(), address)
