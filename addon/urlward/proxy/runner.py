"""``urlward run``: mitmproxy's proxy core with the addons that a filter needs, and no others.

Stock mitmdump loads thirty addons, some of which keep what passes or change it. Here is what opens
connections, speaks TLS and resolves names, and urlward.
"""

import asyncio
import gc
import logging
import re
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mitmproxy import exceptions, http, log, master, options, tcp, udp
from mitmproxy.addons import (
    block,
    core,
    disable_h2c,
    dns_resolver,
    next_layer,
    proxyserver,
    strip_dns_https_records,
    tlsconfig,
    upstream_auth,
)
from mitmproxy.proxy import mode_specs

from urlward.engine.errors import UrlwardError
from urlward.proxy import notify
from urlward.proxy.addon import Urlward
from urlward.proxy.front import listen_in_front
from urlward.proxy.workers import is_worker, share_addresses, tell_ready

_REPEAT = 5.0

DRAIN_WITHIN = 8.0
"""Seconds that what is under way has to end; the supervisor of workers waits a little longer."""

DRAIN_LOOK = 0.5
"""Seconds between two looks at that."""

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080

_CANNOT_LISTEN = re.compile(r"failed to listen on (\S+) with (.+)")


class RunError(UrlwardError):
    """The filter could not start."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``urlward run`` was asked to do.

    Attributes:
        lists: sources and artifacts; none where the configuration names feeds.
        modes: mitmproxy mode specifications.
        listen: host and port; an empty host stands for all addresses.
        options: values for ``urlward_…`` options.
        confdir: where mitmproxy keeps its certificate authority, or empty for its default.
        extra: ``OPTION=VALUE`` for mitmproxy's own options.
        http2: whether HTTP/2 may be spoken inside intercepted TLS, through mitmproxy's flows.
    """

    lists: tuple[Path, ...]
    modes: tuple[str, ...]
    listen: tuple[str, int]
    options: dict[str, str | int | list[str]]
    confdir: str
    extra: tuple[str, ...]
    http2: bool = False


class Messages(logging.Handler):
    """One line a message: urlward's own from INFO, mitmproxy's from ERROR.

    mitmproxy's information and warnings name the hosts that clients go to, and a listed host must
    not stand in a log.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.startup_errors: list[str] | None = []
        self._last = ""
        self._said = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, or keep it where the start has yet to succeed."""
        ours = record.name.split(".", 1)[0] == "urlward"
        if not ours and record.levelno < logging.ERROR:
            return
        text = record.getMessage().split("\n", 1)[0]
        if not ours:
            # What is wrong with the machine, such as no file descriptors left, is said with each connection.
            if text == self._last and record.created < self._said + _REPEAT:
                return
            self._last, self._said = text, record.created
        if record.exc_info and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"
        if record.levelno >= logging.ERROR and self.startup_errors is not None:
            self.startup_errors.append(text)
            return
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            # In one piece: several workers write to the same place.
            stream.write(f"{text}\n" if ours else f"mitmproxy: {text}\n")
            stream.flush()
        except (OSError, ValueError):
            # Nobody reads any more; traffic is more important than the log.
            return


def in_one_line(error: str) -> str:
    """mitmproxy's word on why it could not start, without what it says twice."""
    match = _CANNOT_LISTEN.search(error)
    if match is None:
        return error
    where, reason = match.groups()
    if reason.startswith("could not bind on any address"):
        reason = "not an address of this machine"
    return f"cannot listen on {where}: {reason.rpartition('] ')[2]}"


class Startup:
    """Tells the master's start whether anything went wrong (mitmproxy asks for an addon of this name)."""

    name = "errorcheck"

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    async def shutdown_if_errored(self) -> None:
        """Raise RunError if an error has been logged since the start."""
        await asyncio.sleep(0)
        if self._messages.startup_errors:
            raise RunError(in_one_line(self._messages.startup_errors[0]))

    def finish(self) -> None:
        """From here on errors are logged."""
        self._messages.startup_errors = None


class ForgetMessages:
    """mitmproxy keeps each WebSocket, TCP and UDP message in its flow while the connection lives."""

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Keep only the message under way."""
        assert flow.websocket is not None
        del flow.websocket.messages[:-1]

    def tcp_message(self, flow: tcp.TCPFlow) -> None:
        """Likewise."""
        del flow.messages[:-1]

    def udp_message(self, flow: udp.UDPFlow) -> None:
        """Likewise."""
        del flow.messages[:-1]


class Ready:
    """Says where the filter listens."""

    def __init__(self, server: proxyserver.Proxyserver) -> None:
        self._server = server

    def running(self) -> None:
        """Log one line for each address."""
        for instance in self._server.servers:
            # A mode that takes QUIC as well listens on the same address twice.
            for host, port in dict.fromkeys(address[:2] for address in instance.listen_addrs):
                address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                logging.getLogger("urlward").info("listening on %s (%s)", address, instance.mode.full_spec)
        # What has been made up to here stays: looking through it for garbage would stop the event loop
        # for tens of milliseconds, again and again.
        gc.collect()
        gc.freeze()
        tell_ready()
        notify.ready()


class Drain:
    """Ends the filter when what is under way has ended, or after `DRAIN_WITHIN` seconds."""

    def __init__(self, proxy: master.Master) -> None:
        self._proxy = proxy
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take no more connections, and end with the last; at once when asked a second time."""
        if self._task is not None:
            self._proxy.shutdown()
            return
        notify.stopping()
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        try:
            live = self._proxy.addons.get("urlward").live
            for instance in self._proxy.addons.get("proxyserver").servers:
                if instance.is_running:
                    await instance.stop()
            start = time.monotonic()
            live.tick(start)
            # Where the end of something cannot be known, silence tells.
            await asyncio.sleep(DRAIN_LOOK)
            busy = live.close_idle()
            if busy:
                logging.getLogger("urlward").info(
                    "ending with the %d connections that are in use, in %d s at most", busy, DRAIN_WITHIN
                )
            while busy and time.monotonic() < start + DRAIN_WITHIN:
                live.tick(time.monotonic())
                await asyncio.sleep(DRAIN_LOOK)
                busy = live.close_idle()
        finally:
            self._proxy.shutdown()


def addresses(settings: Settings) -> list[tuple[str, int]]:
    """Where the modes will listen for TCP; one that cannot be read is left for the start to refuse."""
    host, port = settings.listen
    found: dict[tuple[str, int], None] = {}
    for spec in settings.modes:
        try:
            mode = mode_specs.ProxyMode.parse(spec)
        except ValueError:
            continue
        if mode.transport_protocol != "udp":
            found[mode.listen_host(host), mode.listen_port(port) or 0] = None
    return list(found)


def run(settings: Settings, addons: Sequence[object] = ()) -> None:
    """Filter until SIGINT or SIGTERM.

    Args:
        settings: see there.
        addons: further ones; they come behind urlward's.

    Raises:
        RunError: a list, an option or an address is not usable.
    """
    asyncio.run(_run(settings, addons))


async def _run(settings: Settings, addons: Sequence[object]) -> None:
    if is_worker():
        share_addresses()
    messages = Messages()
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(messages)
    try:
        proxy = _master(settings, messages, addons)
        _forget_log_events(root)
        loop = asyncio.get_running_loop()
        drain = Drain(proxy)
        loop.add_signal_handler(signal.SIGINT, proxy.shutdown)
        loop.add_signal_handler(signal.SIGTERM, drain.begin)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        # Each connection takes two file descriptors; the usual soft limit is for programs that use select().
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        life = loop.create_task(notify.stay_alive())
        try:
            await proxy.run()
        finally:
            await proxy.addons.get("urlward").close()
            life.cancel()
    finally:
        root.removeHandler(messages)


def _forget_log_events(root: logging.Logger) -> None:
    """mitmproxy makes an event of each line, on a later round of the loop; no addon here listens to it."""
    for handler in list(root.handlers):
        if isinstance(handler, log.LegacyLogEvents):
            root.removeHandler(handler)


def _make_folder(path: Path) -> None:
    """mitmproxy makes this folder too, but says nothing that helps where it cannot."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise RunError(f"confdir: {path}: {e.strerror or e}") from e


def _authentication(extra: Sequence[str]) -> list[object]:
    """mitmproxy's addon for the option ``proxyauth``, where that is set: it brings an LDAP client with it."""
    if not any(option.startswith("proxyauth=") for option in extra):
        return []
    from mitmproxy.addons.proxyauth import ProxyAuth

    return [ProxyAuth()]


def _master(settings: Settings, messages: Messages, addons: Sequence[object] = ()) -> master.Master:
    opts = options.Options()
    proxy = master.Master(opts)
    server = proxyserver.Proxyserver()
    urlward = Urlward()
    listen_in_front(urlward, reuse_port=is_worker())
    proxy.addons.add(
        core.Core(),
        block.Block(),
        strip_dns_https_records.StripDnsHttpsRecords(),
        disable_h2c.DisableH2C(),
        *_authentication(settings.extra),
        server,
        dns_resolver.DnsResolver(),
        urlward,
        *addons,
        next_layer.NextLayer(),
        tlsconfig.TlsConfig(),
        upstream_auth.UpstreamAuth(),
        ForgetMessages(),
        Startup(messages),
        Ready(server),
    )
    host, port = settings.listen
    if settings.confdir:
        _make_folder(Path(settings.confdir).expanduser())
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
            http2=settings.http2,
            # No other addon looks at flows here, so what HTTP/1 relays needs none.
            urlward_flows=False,
            **({"confdir": settings.confdir} if settings.confdir else {}),
        )
        opts.set(*settings.extra)
        opts.update(urlward_list=[str(path) for path in settings.lists], **settings.options)
    except exceptions.OptionsError as e:
        raise RunError(str(e).removeprefix("urlward: ")) from e
    except KeyError as e:
        raise RunError(f"no such option: {e.args[0]}") from e
    return proxy
