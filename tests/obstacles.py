"""What stands in the way of a state folder: files' permissions, also for root, and a disk without room."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from urlward.state import audit
from urlward.state.folder import StateError

_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def a_folder(path: Path) -> None:
    """In the place of a file."""
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    """Likewise."""
    path.unlink()
    os.mkfifo(path)


@contextmanager
def permissions_hold() -> Iterator[None]:
    """While this lasts, they do in this thread as for everybody else than root (capabilities(7))."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()
    _call(_libc.capget(header, before))
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    _call(_libc.capset(header, without))
    try:
        yield
    finally:
        _call(_libc.capset(header, before))


@contextmanager
def audit_on_a_full_disk() -> Iterator[None]:
    """While this lasts, the audit log takes no line."""

    def full(path: Path, _: bytes) -> None:
        raise StateError(f"{path}: {os.strerror(errno.ENOSPC)}") from OSError(errno.ENOSPC, "")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(audit, "append_private", full)
        yield


def _call(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
