"""Messages to the service manager: ready, alive, stopping (`sd_notify(3)`).

Without systemd all of it does nothing.
"""

import os
import socket
import time
from contextlib import suppress

SOCKET = "NOTIFY_SOCKET"
INTERVAL = "WATCHDOG_USEC"
WHO = "WATCHDOG_PID"

FOR_THE_MAIN_PROCESS = (SOCKET, INTERVAL, WHO)
"""Variables of the environment that a child must not have, or it would speak for its parent."""

_said = float("-inf")
_withheld: dict[str, str] = {}
_socket: socket.socket | None = None
"""Kept from the first word on, so that clients cannot take its place where descriptors are short."""


def ready() -> None:
    """Report that the filter serves."""
    _send("READY=1")


def stopping() -> None:
    """Report that the filter is stopping."""
    _send("STOPPING=1")


def withhold(why: str, of: str = "") -> None:
    """Withhold signs of life, so that the service manager restarts the filter; where empty, go on.

    Args:
        why: in words.
        of: whose reason it is; all must have none for signs of life to go on.
    """
    before = withheld()
    if why:
        _withheld[of] = why
    else:
        _withheld.pop(of, None)
    if withheld() != before:
        status(withheld())


def withheld() -> str:
    """Reasons for withholding signs of life, or an empty string."""
    return "; ".join(_withheld.values())


def status(text: str) -> None:
    """Report a status text."""
    _send(f"STATUS={text}")


def alive() -> None:
    """Send a sign of life, unless one was sent lately; every loop calls this in each round."""
    global _said
    if _withheld:
        return
    wait = interval()
    now = time.monotonic()
    if wait is not None and now - _said >= wait:
        _said = now
        _send("WATCHDOG=1")


def interval() -> float | None:
    """Seconds between two signs of life, half of the watchdog's timeout; None where there is no watchdog."""
    try:
        seconds = int(os.environ[INTERVAL]) / 1e6
        meant = int(os.environ.get(WHO, os.getpid()))
    except (KeyError, ValueError):
        return None
    return seconds / 2 if seconds > 0 and meant == os.getpid() else None


def _send(message: str) -> None:
    global _socket
    path = os.environ.get(SOCKET, "")
    if not path:
        return
    # A service manager that cannot be reached is no reason to stop filtering.
    with suppress(OSError):
        if _socket is None:
            _socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        _socket.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)
