"""Memory allocator of `urlward run`.

Python's own keeps small objects in arenas that it can give back only whole. A reload leaves holes in
nearly all of them, and with each the process grows. The C library's can give back single pages; but its
fast bins keep freed chunks apart, so that giving back after a reload walks over millions of them, with
traffic waiting.
"""

import ctypes
import os
import sys

ALLOCATOR = "PYTHONMALLOC", "malloc"
"""Variable of the environment that chooses the C library's, and its value."""

_M_MXFAST = 1


def choose_allocator() -> None:
    """Restart with the C library's allocator, unless one has been chosen; then turn its fast bins off."""
    if sys.platform != "linux":
        return
    name, allocator = ALLOCATOR
    if name not in os.environ:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, name: allocator})  # noqa: S606
    # GNU's C library has it; where another does not, nothing is lost.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MXFAST, 0)
