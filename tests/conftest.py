"""What all tests share: free ports, waiting, and a local server of each kind that a test needs."""

import argparse
import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from urlward.lists.arguments import Command

# The same examples in every run, and none that fails because the machine is busy.
settings.register_profile(
    "everyday",
    deadline=None,
    derandomize=os.environ.get("HYPOTHESIS_PROFILE") != "long",
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("everyday")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a job in the background; what tests start would inherit it, and never end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A process without others beside it may still have them in another run.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw3").removeprefix("gw"))
_ports = itertools.cycle(range(10_000 + _WORKER * 5_000, 15_000 + _WORKER * 5_000))
"""Of this process alone, and none that the kernel gives to connections."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                s.bind((host, next(_ports)))
                return int(s.getsockname()[1])


def run_command(declare: "Callable[[Command], None]", *arguments: object) -> int:
    """Run a command in this process as `urlward.cli` would; its exit code."""
    from urlward.lists.arguments import subcommand

    parser = argparse.ArgumentParser(allow_abbrev=False)
    declare(partial(subcommand, parser.add_subparsers(required=True)))
    parsed = parser.parse_args([str(argument) for argument in arguments])
    code: int = parsed.command(parsed)
    return code


def wait_for(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Where everything that tests need is installed (CI says so), a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("URLWARD_NO_SKIPS") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} must not skip here: {reason}"
    return report
