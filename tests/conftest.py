"""What all tests share: free ports, waiting, and a local server of each kind that a test needs."""

import contextlib
import socket
import time
from collections.abc import Callable

import pytest


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as s:
        s.bind((host, 0))
        return int(s.getsockname()[1])


def wait_for(condition: Callable[[], object], what: str, timeout: float = 15.0) -> None:
    """Poll until true; a test waits for a state, never for an amount of time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout} s for {what}")
        time.sleep(0.02)


@pytest.fixture
def port() -> int:
    """A free port on 127.0.0.1."""
    return free_port()
