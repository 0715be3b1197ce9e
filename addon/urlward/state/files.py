"""Atomic files: written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Open a file that does not exist yet; it is written whole or not at all."""
    with os.fdopen(os.open(path, _NEW, mode), "wb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that does not exist yet, whole or not at all.

    Raises:
        OSError: it is there, or cannot be written.
    """
    with new_file(path, mode) as file:
        file.write(data)
