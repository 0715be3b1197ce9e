"""``urlward run``: mitmproxy's proxy core with the addons that a filter needs, and no others.

Stock mitmdump loads thirty addons, some of which keep what passes or change it. Here is what opens
connections, speaks TLS and resolves names, and urlward.
"""

import asyncio
import gc
import logging
import os
import re
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from mitmproxy import exceptions, options, tcp, udp

from urlward.config import Problem
from urlward.config.tables import join_address
from urlward.lines import finish, say
from urlward.proxy.access import Authentication
from urlward.proxy.addon import Urlward
from urlward.proxy.authority import key_size_of, make_authority, passphrase_of
from urlward.proxy.front import listen_in_front
from urlward.proxy.listeners import raise_limit
from urlward.proxy.live import Live
from urlward.proxy.mitm import (
    Block,
    Core,
    DnsResolver,
    Master,
    NextLayer,
    Proxyserver,
    StripDnsHttpsRecords,
    TlsConfig,
    UpstreamAuth,
    forget_log_events,
    relay_websockets,
)
from urlward.proxy.poller import Loop
from urlward.proxy.settings import DEFAULT_CONFDIR, RunError, Settings
from urlward.proxy.workers import Worker

_REPEAT = 5.0
_REPEATS = 16

DRAIN_WITHIN = 8.0
"""Seconds that what is under way has to end; the supervisor waits a little longer."""

DRAIN_LOOK = 0.5
"""Seconds between two looks at that."""

FEW: Final = 20_000
"""Objects by which it has to grow in any case: what is looked through in some milliseconds."""

OF_ONE: Final = 500
"""Objects that a connection, or a stream of one, may have made; one with `MAX_PENDING` requests under way has
(`proxy.relay`)."""

MANY: Final = 4_000_000
"""Objects beyond which it is looked for whatever the number of these."""

INTERVAL: Final = 0.25
"""Seconds between two looks at the number of objects."""

_CANNOT_LISTEN = re.compile(r"failed to listen on (\S+) with (.+)")

_ADDRESS = re.compile(
    r"(?<![\w:.])(?:\d+(?:\.\d+){3}(?!\w)|[\da-fA-F]*(?::[\da-fA-F]*){2,7}(?:\.\d+){0,3}(?![\w:]))"
)


class Messages(logging.Handler):
    """Log handler, one line a message: urlward's own from INFO, mitmproxy's from ERROR.

    What keeps urlward from starting is raised. mitmproxy only logs it, so its errors are kept until the start
    has succeeded. Its information and warnings name the hosts that clients go to, and a listed host must not
    stand in a log.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.startup_errors: list[str] | None = []
        self._said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, or keep mitmproxy's where the start has yet to succeed."""
        ours = record.name.split(".", 1)[0] == "urlward"
        if not ours and record.levelno < logging.ERROR:
            return
        text = record.getMessage().split("\n", 1)[0]
        if not ours and self.startup_errors is None:
            text = _ADDRESS.sub("an address", text)  # of a client, or of where it went
            # What is wrong with the machine, such as no file descriptors left, is said with each connection,
            # and that a datagram is none of WireGuard's with each of those, which anybody may send, by turns.
            now = time.monotonic()  # not when the record was made, by a clock that may be set back
            if now < self._said.get(text, -inf) + _REPEAT:
                return
            self._said.pop(text, None)
            self._said[text] = now
            if len(self._said) > _REPEATS:
                del self._said[next(iter(self._said))]
        if record.exc_info and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"
        if not ours and self.startup_errors is not None:
            self.startup_errors.append(text)
            return
        say(text if ours else f"mitmproxy: {text}", warning=record.levelno >= logging.WARNING)


def in_one_line(error: str) -> str:
    """mitmproxy's startup error in one line, without repetition."""
    match = _CANNOT_LISTEN.search(error)
    if match is None:
        return error
    where, reason = match.groups()
    if reason.startswith("could not bind on any address"):
        reason = "not an address of this machine"
    return f"cannot listen on {where}: {reason.rpartition('] ')[2]}"


class Startup:
    """Startup check: tells mitmproxy whether anything went wrong (it wants an addon of this name)."""

    name = "errorcheck"

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    async def shutdown_if_errored(self) -> None:
        """Raise RunError if mitmproxy has logged an error since the start."""
        await asyncio.sleep(0)
        if self._messages.startup_errors:
            raise RunError(in_one_line(self._messages.startup_errors[0]))

    def finish(self) -> None:
        """From here on errors are logged."""
        self._messages.startup_errors = None


class ForgetMessages:
    """mitmproxy addon that drops TCP and UDP messages, which flows would keep."""

    def tcp_message(self, flow: tcp.TCPFlow) -> None:
        """Keep only the newest TCP message."""
        del flow.messages[:-1]

    def udp_message(self, flow: udp.UDPFlow) -> None:
        """Keep only the newest UDP message."""
        del flow.messages[:-1]


class Ready:
    """Logger of the addresses that the filter listens on."""

    def __init__(self, server: Proxyserver, worker: Worker, live: Live) -> None:
        self._server = server
        self._worker = worker
        self._live = live
        self._collecting: asyncio.Task[None] | None = None

    def running(self) -> None:
        """Log one line for each address."""
        for instance in self._server.servers:
            # A mode that takes QUIC as well listens on the same address twice.
            for host, port in dict.fromkeys(address[:2] for address in instance.listen_addrs):
                address = join_address(host, port)
                logging.getLogger("urlward").info("listening on %s (%s)", address, instance.mode.full_spec)
        self._collecting = asyncio.get_running_loop().create_task(collect(lambda: self._live.exchanges))
        self._worker.ready()


class Drain:
    """Graceful stop: ends the filter when what is under way has ended, or after `DRAIN_WITHIN` seconds."""

    def __init__(self, proxy: Master, worker: Worker) -> None:
        self._proxy = proxy
        self._worker = worker
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take no more connections, and end with the last; at once when called a second time."""
        if self._task is not None:
            self._proxy.shutdown()
            return
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        try:
            live = self._proxy.addons.get("urlward").live
            self._worker.stop()
            for instance in self._proxy.addons.get("proxyserver").servers:
                if instance.is_running:
                    await instance.stop()
            start = time.monotonic()
            await live.tick(start)
            # Where the end of something cannot be known, silence tells.
            await asyncio.sleep(DRAIN_LOOK)
            busy = live.close_idle()
            if busy:
                logging.getLogger("urlward").info(
                    "ending with the %d connections that are in use, in %d s at most", busy, DRAIN_WITHIN
                )
            while busy and time.monotonic() < start + DRAIN_WITHIN:
                await live.tick(time.monotonic())
                await asyncio.sleep(DRAIN_LOOK)
                busy = live.close_idle()
        finally:
            self._proxy.shutdown()


def prepare_authority(settings: Settings) -> None:
    """Make the certificate authority in the operator's name, where there is none.

    Raises:
        RunError: it cannot be written.
    """
    folder = Path(os.path.expanduser(settings.confdir or DEFAULT_CONFDIR))  # noqa: PTH111 - never raises
    try:
        make_authority(folder, settings.config.page.operator, key_size_of(settings.extra))
    except OSError as e:
        raise RunError(f"confdir: {e.filename or folder}: {e.strerror or e}") from e


def run(settings: Settings, addons: Sequence[object] = ()) -> None:
    """Filter until SIGINT or SIGTERM.

    Args:
        settings: see there.
        addons: further ones; they come behind urlward's.

    Raises:
        RunError: a list, an option or an address is not usable.
    """
    asyncio.run(_run(settings, addons, Worker()), loop_factory=Loop)


async def _run(settings: Settings, addons: Sequence[object], worker: Worker) -> None:
    messages = Messages()
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(messages)
    try:
        raise_limit()  # before anything goes by it
        proxy = _master(settings, messages, addons, worker)
        forget_log_events(root)
        loop = asyncio.get_running_loop()
        drain = Drain(proxy, worker)
        loop.add_signal_handler(signal.SIGINT, proxy.shutdown)
        loop.add_signal_handler(signal.SIGTERM, drain.begin)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # meant for the supervisor
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            await proxy.run()
        finally:
            await proxy.addons.get("urlward").close()
    finally:
        root.removeHandler(messages)
        finish()  # before another says why this ends


def system_authorities() -> dict[str, str]:
    """mitmproxy's options to trust origins by the system's store, where an operator's own authorities are.

    mitmproxy's default is the certifi package; it stays where the system has no store.
    """
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None:
        return {"ssl_verify_upstream_trusted_ca": paths.cafile}
    # OpenSSL's folders hold each certificate under the hash of its subject.
    if paths.capath is not None and any(Path(paths.capath).glob("*.0")):
        return {"ssl_verify_upstream_trusted_confdir": paths.capath}
    return {}


def _master(
    settings: Settings, messages: Messages, addons: Sequence[object] = (), worker: Worker | None = None
) -> Master:
    try:
        proxy = _without_lists(settings, messages, addons, worker)
        proxy.options.update(urlward_list=[str(path) for path in settings.lists], **settings.options)
    except exceptions.OptionsError as e:
        raise RunError(str(e).removeprefix("urlward: ")) from e
    except RunError as e:
        if e.problems:
            raise settings.config.refused(*e.problems) from e
        raise
    return proxy


def option_problems(settings: Settings) -> list[Problem]:
    """Problems with mitmproxy's own options, tried with an authority that is thrown away."""

    async def tried(folder: str) -> list[Problem]:
        messages, root = Messages(), logging.getLogger()
        root.addHandler(messages)
        try:
            _without_lists(replace(settings, confdir=folder), messages)
        except RunError as e:
            return [*e.problems] or [Problem("", str(e), in_file=False)]
        finally:
            root.removeHandler(messages)
            forget_log_events(root)
        return []

    with TemporaryDirectory(prefix="urlward-check-") as folder:
        return asyncio.run(tried(folder))


def _set_options(opts: options.Options, settings: Settings, messages: Messages) -> None:
    """Set mitmproxy's own options.

    Raises:
        RunError: it refuses some.
    """
    problems = []
    of_file = len(settings.config.mitmproxy)
    for n, option in enumerate(settings.extra):
        name = option.partition("=")[0]
        try:
            opts.set(option)
        except exceptions.OptionsError as e:
            text = str(e)
        except KeyError:
            text = f"no such option: {name}"
        else:
            # An addon that fails on one is named in the log alone.
            if not messages.startup_errors:
                continue
            text = messages.startup_errors.pop()
        in_file = n < of_file
        problems.append(Problem(f"mitmproxy.{name}" if in_file else "--set", text, in_file))
    if problems:
        raise RunError(str(problems[0]), problems)


def _without_lists(
    settings: Settings, messages: Messages, addons: Sequence[object] = (), worker: Worker | None = None
) -> Master:
    worker = worker or Worker()
    relay_websockets()
    opts = options.Options()
    proxy = Master(opts)
    server = Proxyserver()
    urlward = Urlward()
    listen_in_front(urlward, worker)
    worker.on_rules = urlward.take_rules
    proxy.addons.add(
        Core(),
        Block(),
        StripDnsHttpsRecords(),
        Authentication(urlward),
        server,
        DnsResolver(),
        urlward,
        *addons,
        NextLayer(),
        TlsConfig(),
        UpstreamAuth(),
        ForgetMessages(),
        Startup(messages),
        Ready(server, worker, urlward.live),
    )
    host, port = settings.listen
    names_authorities = any(each.startswith("ssl_verify_upstream_trusted_") for each in settings.extra)
    try:
        opts.update(
            mode=list(settings.modes),
            listen_host=host,
            listen_port=port,
            # A listed host must not be contacted before it is blocked.
            connection_strategy="lazy",
            # What does not look like HTTP must not be tunnelled unread.
            rawtcp=False,
            # The block lists are about what clients ask for, so the origin must be asked for the same.
            keep_host_header=True,
            # Clients with public addresses are an internet provider's customers.
            block_global=False,
            # Its flows are no match for floods (`urlward.proxy.http2_frames.Budget`).
            http2=False,
            # No other addon looks at flows here, so what HTTP/1 relays needs none.
            urlward_flows=False,
            # In a group of the origin's choice the processor is busy for half a second; browsers know none.
            ciphers_server="DEFAULT:!kDHE",
            # Before options of mitmproxy's own that do not go with it.
            urlward_keep_source=settings.config.gateway.keep_source,
            **({} if names_authorities else system_authorities()),
            **({"confdir": settings.confdir} if settings.confdir else {}),
            # With the folder, in which it opens the key.
            cert_passphrase=passphrase_of(settings.extra),
        )
    except exceptions.OptionsError as e:
        raise RunError(str(e)) from e
    if settings.config.proxy.users and not any(each.startswith("proxyauth=") for each in settings.extra):
        opts.update(proxyauth=f"@{settings.config.proxy.users}")
    _set_options(opts, settings, messages)
    return proxy


async def collect(exchanges: Callable[[], int]) -> None:
    """Collect garbage in place of Python's own schedule, until cancelled; what there is before stays.

    What a connection makes is freed by reference counting (`urlward.proxy.session`), so there is next to
    nothing to collect. But Python looks for it whenever some thousand objects have been made, among all that
    have been made lately: with 77,000 requests under way that is a pause of 5 to 25 ms for all clients
    several times a second, and of 200 ms now and then. Here it is looked for when there may be as much
    garbage as there is of use: when the number of objects has doubled, and is beyond what the connections,
    and their streams, have use for.

    Args:
        exchanges: how many connections and streams there are.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        alive = 0
        while True:
            await asyncio.sleep(INTERVAL)
            # Those made since the last time and not freed: no other collection makes any of them older.
            if gc.get_count()[0] >= max(min(FEW + OF_ONE * exchanges(), MANY), alive):
                gc.collect()
                alive = len(gc.get_objects())
    finally:
        gc.enable()
