"""Caller of a command, for records of who did what."""

import os
import pwd
from contextlib import suppress
from pathlib import Path

_NO_LOGIN = 2**32 - 1


def caller() -> str:
    """Name of the caller: the login that the kernel remembers through sudo and su, and the user ID."""
    uid = os.getuid()
    with suppress(OSError, ValueError):
        login = int(Path("/proc/self/loginuid").read_text())
        if login != _NO_LOGIN:
            return f"{_name(login)} (uid {uid})"
    # Only root can make others believe what sudo said.
    name = os.environ.get("SUDO_USER") if uid == 0 else None
    return f"{name if name and name.isprintable() else _name(uid)} (uid {uid})"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
