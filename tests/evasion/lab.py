"""Origins, filters and the ways between them: mode, wire, engine and origin are parameters.

As root everything stands in a network namespace of its own, with a client in another, so that
transparent mode is the real one. Otherwise it stands on loopback, without transparent mode and what is
asked in absolute form, which goes to the port of HTTP.
"""

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from conftest import free_port, wait_for
from e2e.support import Filter, make_authority, open_socks, open_tunnel, running, urlward
from e2e.test_modes import may_make_namespaces
from evasion.origins import LIST, SECRETS, Log, apache_config, nginx_config, started, write_pages
from evasion.rows import MODES

CONNECT_TIMEOUT = 30.0
EXPLICIT = {"connect": "regular", "socks5": "socks5"}
"""Modes in which clients name the origin, and what the filter calls them."""
BY_NAME = ("layer", "flows")
"""Engines that are asked in absolute form as well: what the others do otherwise is of tunnels."""
FLOWS = ("--set", "urlward_flows=true")
NAMES = ("*.example", "*.blocked.example", "hop.test", "default.example")


@dataclass(frozen=True)
class Engine:
    """A filter under test: what it is started with, and which flags it must know for that."""

    arguments: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


ENGINES = {
    "layer": Engine(),
    "flows": Engine(FLOWS),
    # Decrypts whatever the SNI says, and speaks HTTP/2.
    "all": Engine(("--intercept", "all"), ("--http2",)),
    "relay": Engine((), ("--other relay",)),
}


@dataclass(frozen=True, order=True)
class Way:
    """How requests get to an origin.

    Attributes:
        engine: a key of `ENGINES`, or ``bare``: no filter at all.
        mode: one of `MODES`, or ``bare``.
        wire: ``plain`` or ``tls``.
        origin: ``nginx`` or ``apache``.
    """

    engine: str
    mode: str
    wire: str
    origin: str

    def __str__(self) -> str:
        return f"{self.engine}-{self.mode}-{self.wire}-{self.origin}"


class Namespace:
    """A network namespace to connect from; without a name, the one that the tests run in."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._pool: ThreadPoolExecutor | None = None
        if name:
            self._pool = ThreadPoolExecutor(4, initializer=self._enter)

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name) if self.name else ()

    def connect(self, address: tuple[str, int]) -> socket.socket:
        if self._pool is None:
            return _connect(address)
        return self._pool.submit(_connect, address).result()

    def _enter(self) -> None:
        with open(f"/run/netns/{self.name}") as file:  # noqa: PTH123 - for its descriptor alone
            os.setns(file.fileno(), os.CLONE_NEWNET)


def _connect(address: tuple[str, int]) -> socket.socket:
    s = socket.create_connection(address, CONNECT_TIMEOUT)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


@dataclass
class Lab:
    """Everything running; ask it for connections by way.

    Attributes:
        ways: those that this machine and this urlward have, in order.
        filters: by engine, those in absolute form last; an engine that this urlward does not have is absent.
        listed: by engine, an address that is listed itself (transparent mode only).
    """

    folder: Path
    gateway: Namespace
    client: Namespace | None
    ports: tuple[int, int]
    addresses: dict[Way, str]
    listed: dict[str, str]
    logs: dict[str, Log] = field(default_factory=dict)
    filters: dict[str, list[Filter]] = field(default_factory=dict)
    entries: dict[Way, int] = field(default_factory=dict)

    @property
    def ways(self) -> list[Way]:
        return [w for w in self.addresses if w.engine == "bare" or w.engine in self.filters]

    def connect(self, way: Way, to_listed: bool = False) -> socket.socket:
        """A TCP connection that ends at the way's origin if nobody stands between."""
        port = self.ports[way.wire == "tls"]
        address = self.listed[way.engine] if to_listed else self.addresses[way]
        if way.mode in ("reverse", "absolute"):
            return self.gateway.connect(("127.0.0.1", self.entries[way]))
        if way.mode == "transparent":
            assert self.client is not None
            return self.client.connect((address, port))
        if way.mode in EXPLICIT:
            s = self.gateway.connect(("127.0.0.1", self.entries[way]))
            if way.mode == "connect":
                open_tunnel(s, f"{address}:{port}")
            else:
                open_socks(s, address, port)
            return s
        return self.gateway.connect((address, port))

    def log_of(self, way: Way) -> Log:
        return self.logs[way.origin]


def all_ways(transparent: bool) -> list[Way]:
    """Every combination, the bare ones first."""
    ways = [Way("bare", "bare", wire, origin) for wire in ("plain", "tls") for origin in ("nginx", "apache")]
    for engine in ENGINES:
        for mode in MODES if transparent else ("reverse", *EXPLICIT):
            wires = ("plain", "tls") if mode != "absolute" else ("plain",) if engine in BY_NAME else ()
            ways += [Way(engine, mode, wire, origin) for wire in wires for origin in ("nginx", "apache")]
    return ways


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def _namespaces(addresses: Sequence[str], redirect: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """A client, and a gateway whose loopback has the addresses; some are redirected to a port each."""
    client, gateway = f"uw-ec-{os.getpid()}", f"uw-eg-{os.getpid()}"
    made: list[str] = []
    try:
        for name in (client, gateway):
            _ip("netns", "add", name)
            made.append(name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", client, "link", "add", "c0", "type", "veth", "peer", "name", "g0", "netns", gateway)
        for name, link, address in ((client, "c0", "192.0.2.1/24"), (gateway, "g0", "192.0.2.254/24")):
            _ip("-n", name, "addr", "add", address, "dev", link)
            _ip("-n", name, "link", "set", link, "up")
        _ip("-n", client, "route", "add", "default", "via", "192.0.2.254")
        for address in addresses:
            _ip("-n", gateway, "addr", "add", f"{address}/32", "dev", "lo")
        rules = "".join(
            f" iifname g0 ip daddr {{ {', '.join(to)} }} tcp dport {{ 80, 443 }} redirect to :{port};"
            for port, to in redirect.items()
        )
        table = f"table ip uw {{ chain pre {{ type nat hook prerouting priority dstnat;{rules} }}; }}"
        nft = ["ip", "netns", "exec", gateway, "nft", table]
        subprocess.run(nft, check=True, capture_output=True)
        yield client, gateway
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@cache
def _run_help() -> str:
    return " ".join(urlward("run", "--help").stdout.split())


@contextmanager
def lab(folder: Path, engines: Sequence[str] = tuple(ENGINES)) -> Iterator[Lab]:
    """Start everything; engines that this urlward does not know are left out.

    Args:
        folder: must be readable by an Apache that has given root away.
    """
    transparent = may_make_namespaces()
    ways = [w for w in all_ways(transparent) if w.engine in ("bare", *engines)]
    base = "203.0.113." if transparent else "127.0.0."
    addresses = {way: f"{base}{100 + number}" for number, way in enumerate(ways)}
    listed = {engine: f"{base}{64 + number}" for number, engine in enumerate([*engines, "bare"])}
    listen = {engine: str(8080 + number) for number, engine in enumerate(engines)}
    redirect = {
        listen[engine]: [a for w, a in addresses.items() if (w.engine, w.mode) == (engine, "transparent")]
        for engine in engines
    }
    for engine in engines:
        redirect[listen[engine]].append(listed[engine])
    with ExitStack() as stack:
        gateway, client = Namespace(), None
        if transparent:
            names = stack.enter_context(_namespaces([*addresses.values(), *listed.values()], redirect))
            client, gateway = Namespace(names[0]), Namespace(names[1])
        ports = (80, 443) if transparent else (free_port(), free_port())
        made = Lab(folder, gateway, client, ports, addresses, listed)
        _start_origins(stack, made)
        for engine in engines:
            _start_filter(stack, made, engine, listen[engine] if transparent else "")
        yield made


def _start_origins(stack: ExitStack, made: Lab) -> None:
    folder = made.folder
    make_authority(folder, NAMES)
    (folder / "www").mkdir()
    (folder / "locks").mkdir()
    (folder / "locks").chmod(0o777)
    write_pages(folder / "www")
    of = {o: [a for w, a in made.addresses.items() if w.origin == o] for o in ("nginx", "apache")}
    (folder / "nginx.conf").write_text(
        nginx_config(folder, of["nginx"], made.ports, list(made.listed.values()))
    )
    (folder / "apache.conf").write_text(apache_config(folder, of["apache"], made.ports))
    commands = {
        "nginx": ["nginx", "-p", str(folder), "-e", f"{folder}/start.log", "-c", f"{folder}/nginx.conf"],
        "apache": ["apache2", "-DFOREGROUND", "-f", f"{folder}/apache.conf"],
    }
    for origin, command in commands.items():
        (folder / f"{origin}.log").touch()
        made.logs[origin] = Log(folder / f"{origin}.log")
        process = stack.enter_context(started([*made.gateway.prefix, *command], folder))

        def answers(origin: str = origin, process: "subprocess.Popen[bytes]" = process) -> bool:
            assert process.poll() is None, (folder / "server.out").read_text()
            try:
                made.connect(Way("bare", "bare", "tls", origin)).close()
            except OSError:
                return False
            return True

        wait_for(answers, origin)


def _start_filter(stack: ExitStack, made: Lab, engine: str, transparent: str) -> None:
    help_text = _run_help()
    arguments = list(ENGINES[engine].arguments)
    for flag in ENGINES[engine].flags:
        if flag.split()[0] in help_text:
            arguments += flag.split()
        elif engine != "all":  # where HTTP/2 has no switch it is always on
            return
    ways = [w for w in made.addresses if w.engine == engine and w.mode in ("reverse", "absolute")]
    made.entries.update({way: free_port() for way in ways})
    modes = [
        f"reverse:{('http', 'https')[w.wire == 'tls']}://{made.addresses[w]}"
        f":{made.ports[w.wire == 'tls']}@127.0.0.1:{made.entries[w]}"
        for w in ways
        if w.mode == "reverse"
    ]
    if transparent:
        modes.append(f"transparent@0.0.0.0:{transparent}")
    for mode, name in EXPLICIT.items():
        port = free_port()
        made.entries.update({w: port for w in made.addresses if (w.engine, w.mode) == (engine, mode)})
        modes.append(f"{name}@127.0.0.1:{port}")
    started = [(modes, "")]
    # A name leads to one address alone in each.
    started += [
        (
            [f"regular@127.0.0.1:{made.entries[w]}"],
            f"import sitecustomize as s; s.LEADS_TO = {made.addresses[w]!r}",
        )
        for w in ways
        if w.mode == "absolute"
    ]
    filters = []
    for number, (modes, before) in enumerate(started):
        try:
            # The origins go by address here, and no certificate names that.
            proxy = stack.enter_context(
                running(
                    made.folder / f"{engine}{number}", *arguments, "--set", "ssl_insecure=true", text=LIST,
                    modes=modes, before=before, namespace=made.gateway.name, check=False,
                )
            )  # fmt: skip
        except AssertionError as e:
            if "nknown option" in str(e) or "no such option" in str(e):
                return
            raise
        proxy.secrets = SECRETS
        filters.append(proxy)
    made.filters[engine] = filters
