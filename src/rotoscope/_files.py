"""Files: in natural order, and either written whole or not at all."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rotoscope.errors import OutputError


def natural_key(path: Path) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """What to sort files by so that numbers in their names count as numbers: 2 < 10 < a2 < a10 < b1; ties in order of the whole name."""
    parts = re.split(r"(\d+)", path.stem.casefold())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part), path.name


def write_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new and nothing between.

    Args:
        path: the file; its folder exists.
        content: the bytes.
        durable: wait until the bytes are on the disk, so that they survive a power cut too.

    Raises:
        OutputError: the file cannot be written; what was there before is unchanged.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise output_error(path, error) from error


@contextmanager
def writing_atomically(path: Path) -> Iterator[TextIO]:
    """A text file to write piece by piece, which takes its name when the block ends, and is dropped when the block raises.

    Raises:
        OutputError: the file cannot be written; what was there before is unchanged.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise output_error(path, error) from error
        raise


def output_error(path: Path, error: OSError) -> OutputError:
    """What to tell the user when a file could not be written."""
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"the disk is full: {path} could not be written; what was written before is valid. "
            "Free some space and go on, with --resume where there is one"
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return OutputError(f"{path} is not writable; check its permissions, or choose another folder")
    return OutputError(f"{path} could not be written: {error.strerror or error}")
