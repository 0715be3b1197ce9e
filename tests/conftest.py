"""What all tests share: free ports, waiting, and a local server of each kind that a test needs."""

import argparse
import asyncio
import contextlib
import errno
import gc
import inspect
import itertools
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from feeds import feed_support, fetch_support
    from urlward.commands.arguments import Command
    from urlward.gateway.nft import Nft

_COMMON = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
# Every day the same examples; in CI others each time (URLWARD_SEED tells which, so that they can be
# had again); `long` many more (engine/support.py).
settings.register_profile("everyday", derandomize=True, **_COMMON)
settings.register_profile("ci", print_blob=True, **_COMMON)
settings.register_profile("long", print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "everyday"))

# Hundreds of processes are started, each of which would compile all of its modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a job in the background; what tests start would inherit it, and never end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A process of tests has ports of its own, none that the kernel gives to connections; so have those of a run
# that says that it is beside another. Others begin at different ones, and so do this module's two copies
# (pytest's and that which tests import).
_LEAST, _MOST = (30_000, 32_500) if os.environ.get("URLWARD_TESTS_BESIDE") else (10_000, 30_000)
_SPAN = (_MOST - _LEAST) // max(4, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
_FIRST = _LEAST + _SPAN * int(os.environ.get("PYTEST_XDIST_WORKER", "gw3").removeprefix("gw"))
_BEGIN = secrets.randbelow(_SPAN)
_ports = itertools.cycle(_FIRST + (_BEGIN + n) % _SPAN for n in range(_SPAN))


@pytest.fixture(autouse=True)
def no_log_of_what_has_ended() -> None:
    """A master of mitmproxy that a test has left makes events of what is logged, on a loop that is closed."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        loop = getattr(getattr(handler, "master", None), "event_loop", None)
        if loop is not None and loop.is_closed():
            root.removeHandler(handler)


@pytest.fixture(scope="session", autouse=True)
def patient_askers() -> Iterator[None]:
    """A process that records and has to wait for a processor is there."""
    from urlward.records.asking import ask

    assert ask.__kwdefaults__ is not None
    with patch.dict(ask.__kwdefaults__, timeout=60.0):
        yield


@pytest.fixture(scope="session", autouse=True)
def keys_that_are_known() -> Iterator[None]:
    """A private key is checked once, however many filters read it: OpenSSL takes a tenth of a second."""
    from cryptography.hazmat.primitives import serialization

    load = serialization.load_pem_private_key
    with patch.object(serialization, "load_pem_private_key", lru_cache(maxsize=64)(load)):
        yield


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, for TCP and UDP: resolvers send from any, also of these."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = next(_ports)
        with (
            contextlib.suppress(OSError),
            contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as tcp,
            contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as udp,
        ):
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            udp.bind((host, port))
            return port


def listening(host: str = "127.0.0.1") -> socket.socket:
    """A socket that listens, for TCP, on a port that no test before had.

    One that the kernel chooses may be that of a server which has ended a moment ago, and to which a filter
    that several tests share still connects.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        try:
            return socket.create_server((host, next(_ports)), family=family)
        except OSError as e:
            if e.errno != errno.EADDRINUSE:
                raise


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens."""
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((host, port)) == 0


@contextlib.contextmanager
def nobody_listens() -> Iterator[int]:
    """A TCP port at which connections are refused, on 127.0.0.1 and other addresses of it, meanwhile."""
    with socket.socket() as one:
        one.bind(("0.0.0.0", 0))  # so that no other process gets it
        yield int(one.getsockname()[1])


class Done(NamedTuple):
    """What has become of a command: its exit code, and what it has said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The JSON object that it has said."""
        assert self.code == 0, self
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def problem(self) -> str:
        """The one line that an error is."""
        assert self.code == 2, self
        assert self.err.count("\n") == 1, self
        assert self.err.startswith("urlward: "), self
        return self.err.removeprefix("urlward: ").rstrip("\n")


def run_command(declare: "Callable[[Command], None]", *arguments: object) -> int:
    """Run a command in this process as `urlward.cli` would; its exit code."""
    from urlward.commands.arguments import subcommand

    parser = argparse.ArgumentParser(allow_abbrev=False)
    declare(partial(subcommand, parser.add_subparsers(required=True)))
    parsed = parser.parse_args([str(argument) for argument in arguments])
    code: int = parsed.command(parsed)
    return code


def wait_for(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    """Poll until true; a test waits for a state, never for an amount of time.

    Args:
        condition: it.
        what: it is, for who reads that it did not come.
        timeout: seconds, as `Stopwatch` has them.
    """
    watch = Stopwatch(timeout)
    while not condition():
        waited = watch.seconds()
        if waited > timeout:
            pytest.fail(f"waited {timeout} s for {what}")
        time.sleep(min(0.1, 0.01 + waited / 20))  # what is waited for needs the processor as well


async def until(condition: Callable[[], object], what: str = "that", timeout: float = 60.0) -> None:
    """The same where a loop goes on meanwhile; the condition may be a coroutine function."""
    watch = Stopwatch(timeout)
    while not (await found if inspect.isawaitable(found := condition()) else found):
        waited = watch.seconds()
        if waited > timeout:
            pytest.fail(f"waited {timeout} s for {what}")
        await asyncio.sleep(min(0.1, 0.005 + waited / 20))


class Stopwatch:
    """Seconds that others could use: where the machine stands still, or has this process wait for its turn,
    a long time counts as a short one. So it is to be looked at again and again.

    A limit on what others may take is told by this, since nobody is late who had no processor.

    Args:
        limit: seconds that this is about; a tenth of them, and one at most, count from one look to the next.
    """

    def __init__(self, limit: float) -> None:
        self._most = min(limit / 10, 1.0)
        self._seconds = 0.0
        self._looked = time.monotonic()

    def seconds(self) -> float:
        """So many since the start."""
        now = time.monotonic()
        self._seconds += min(now - self._looked, self._most)
        self._looked = now
        return self._seconds


async def rounds(seconds: float, count: int) -> None:
    """Wait until loops that sleep for just so long between two rounds have been round so often.

    For what a loop must not do: a test that only waits for a while would pass where the loop has not run.
    """
    passed, sleep = 0, asyncio.sleep

    async def counted(delay: float, *result: object) -> object:
        nonlocal passed
        passed += delay == seconds
        return await sleep(delay, *result)

    with patch("asyncio.sleep", counted):
        async with asyncio.timeout(60):
            while passed < count:
                await sleep(0.01)


@pytest.fixture
def port() -> int:
    """A free port on 127.0.0.1."""
    return free_port()


@pytest.fixture
def compiles_here() -> Iterator[None]:
    """What a process would be started for that refreshes a list is done in this one.

    For tests of what becomes of the answer; the process has tests of its own (`lists/test_worker.py`).
    """
    from urlward.feeds import feed as feeds_feed
    from urlward.feeds import refresh as feed_refresh

    def ask(
        module: str,
        request: dict[str, Any],
        meanwhile: Callable[..., None] = lambda *_: None,
        *_: object,
        **__: object,
    ) -> dict[str, Any]:
        assert module == feeds_feed.MODULE
        with patch.object(feed_refresh, "say", meanwhile):
            said: dict[str, Any] = feed_refresh.answer(json.loads(json.dumps(request)))
        return json.loads(json.dumps(said))  # type: ignore[no-any-return]

    with patch.object(feeds_feed, "ask", ask):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """No garbage is looked for among thousands of tests as they are read, nor later: it takes a third of the
    time that they are read in, in each process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """One seed for all that is drawn at random; in CI it is printed."""
    seed = os.environ.get("URLWARD_SEED", "0")
    if not seed.isdecimal():
        raise pytest.UsageError(f"URLWARD_SEED: {seed!r} is not a whole number")
    if "URLWARD_SEED" in os.environ and config.getoption("--hypothesis-seed", None) is None:
        config.option.hypothesis_seed = seed


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long bytes have no name of their own: what gzip makes has the second of its making in it, by which
    processes would not find the same tests."""
    return argname if isinstance(val, bytes) and len(val) > 24 else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where tests that take long are run alone, each process would read all others only to leave them out."""
    if config.option.markexpr != "long" or collection_path.suffix != ".py":
        return None
    return b"mark.long" not in collection_path.read_bytes() or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of what goes in turns, that whose turn it is by the seed, and where there is no seed, all of it; beside
    another run, nothing that is tried there and is ours alone."""
    seed, beside = os.environ.get("URLWARD_SEED"), "URLWARD_TESTS_BESIDE" in os.environ

    def waits(item: pytest.Item) -> bool:
        mark = item.get_closest_marker("turn")
        its_turn = not seed or not mark or int(seed) % mark.args[1] == mark.args[0]
        return not its_turn or (beside and item.get_closest_marker("ours") is not None)

    waiting = {item for item in items if waits(item)}
    config.hook.pytest_deselected(items=[*waiting])
    items[:] = [item for item in items if item not in waiting]


def in_turns(*rows: object, of: int = 2) -> list[Any]:
    """Parameters that are much alike and costly: CI takes one of so many, by the seed.

    Args:
        rows: tuples where there are several parameters.
        of: so many.
    """
    return [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.turn(n % of, of))
        for n, row in enumerate(rows)
    ]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests wait for processes for a good part of their time, those of networks for nearly all of it; those
    that take long are whole machines, and some begin several by themselves."""
    return len(os.sched_getaffinity(0)) + (2 if config.option.markexpr == "long" else 3)


_NETWORKS = (
    "tests/gateway",
    "tests/e2e/test_processes.py",
    "tests/e2e/test_workers.py",
    "tests/e2e/test_steer",
    "tests/e2e/test_keep_source.py",
)
"""Tests that are several machines or workers each: beside one another they would starve signs of life."""


_SHARED = ("tests/evasion", "tests/install")
"""Folders whose tests share what takes long to make: servers of all kinds, packages."""


_BEGUN_FIRST = (
    "networks", "tests/install", "tests/evasion", "tests/lab/test_scenarios",
    "tests/dashboard/test_editing", "tests/dashboard/test_browser",
    "tests/e2e", "tests/benchmarks",
)  # fmt: skip
"""What takes long with few tests: begun last, one process would be at it when all others are done."""


_WAITING = (
    "networks", "tests/e2e", "tests/lab", "tests/fleet", "tests/publish", "tests/resolver", "tests/records",
    "tests/feeds", "tests/service", "tests/objections",
)  # fmt: skip
"""What waits for processes, servers and moments for most of its time: all of it at a time leaves processors
without work, and after all else most of all."""


class _Files(LoadScopeScheduling):  # type: ignore[misc]
    """A file's tests stay together, as do those of `_SHARED`; networks of several machines
    come one after another."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_NETWORKS):
            return "networks"
        shared = next((folder for folder in _SHARED if nodeid.startswith(folder)), None)
        return shared or nodeid.partition("::")[0]

    def _assign_work_unit(self, node: Any) -> None:
        """Every second process prefers what waits, the others what computes, so that each has of both."""
        waits = int(node.gateway.id.removeprefix("gw")) % 2 == 0
        queue = [scope for scope in self.workqueue if scope.startswith(_WAITING) is waits] or [
            *self.workqueue
        ]
        # Those with most tests come first, and of what waits those with fewest, which are whole filters.
        rest = queue[-1] if queue[0].startswith(_WAITING) else queue[0]
        begun = (scope for kind in _BEGUN_FIRST for scope in queue if scope.startswith(kind))
        self.workqueue.move_to_end(next(begun, rest), last=False)
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Files(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Where everything that tests need is installed (CI says so), a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("URLWARD_NO_SKIPS") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} must not skip here: {reason}"
    return report


# -- servers that several rooms' tests share


@pytest.fixture
def nft() -> "Iterator[Nft]":
    """Nftables of a network of the test's own."""
    from gateway.inside import own_network
    from urlward.gateway.nft import Nft

    with own_network():
        made = Nft()
        yield made
        made.close()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The folder of a PostgreSQL server's socket."""
    from records import support

    if reason := support.without_server():
        pytest.skip(reason)
    with support.postgresql_server() as folder:
        yield folder


_databases = itertools.count()


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """URL of an empty database."""
    import psycopg

    name = f"urlward{next(_databases)}"
    with psycopg.connect(
        host=postgresql_server, user="urlward", dbname="postgres", autocommit=True
    ) as server:
        server.execute(f"CREATE DATABASE {name}")
    return f"postgresql://urlward@/{name}?host={postgresql_server}"


@pytest.fixture(scope="session")
def feeds(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[fetch_support.Server]":
    """A server of feeds with each way of answering."""
    from feeds import fetch_support

    with fetch_support.running(tmp_path_factory.mktemp("feeds")) as server:
        yield server


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[feed_support.Server]":
    """An nginx for the module's tests, with nothing in it."""
    from feeds import feed_support

    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with feed_support.server(tmp_path_factory.mktemp("nginx")) as made:
        yield made


@pytest.fixture
def site(nginx: "feed_support.Server") -> "feed_support.Server":
    """The same, with nothing left of the test before."""
    for path in (nginx.folder / "www").rglob("feed*"):
        path.unlink()
    nginx.seen()
    return nginx


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)
