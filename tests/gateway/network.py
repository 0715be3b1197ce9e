"""A client, a neighbour, a gateway and the world behind it, in network namespaces; IPv4 and IPv6 alike.

Sockets are made by threads that are inside, and used from wherever a test runs.
"""

import os
import selectors
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from urlward.config import GatewayTable
from urlward.gateway.nft import Nft
from urlward.gateway.routing import Routing
from urlward.gateway.rules import RulesPlan, rules

PATIENCE = 60.0
FILTER, INTERCEPT, DNS = 8080, 8090, 5353

_ORIGINAL_DST = 80
"""SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST."""

_FREEBIND, _TRANSPARENT = 78, 75
"""IPV6_FREEBIND, IPV6_TRANSPARENT."""


@dataclass(frozen=True)
class Family:
    """Addresses of one family."""

    version: int
    client: str
    exempt: str
    lan: str
    neighbour: str
    world: str
    wan: str
    origin: str
    other: str
    resolver: str
    private: str

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET if self.version == 4 else socket.AF_INET6

    def of(self, kind: str) -> str:
        return f"{kind}{self.version}"


IPV4 = Family(
    4,
    client="192.0.2.1",
    exempt="192.0.2.9",
    lan="192.0.2.62",
    neighbour="192.0.2.65",
    world="198.51.100.2",
    wan="198.51.100.1",
    origin="203.0.113.10",
    other="203.0.113.20",
    resolver="203.0.113.53",
    private="10.9.9.9",
)
IPV6 = Family(
    6,
    client="2001:db8:1::1",
    exempt="2001:db8:1::9",
    lan="2001:db8:1::fe",
    neighbour="2001:db8:2::1",
    world="2001:db8:3::2",
    wan="2001:db8:3::1",
    origin="2001:db8:f::10",
    other="2001:db8:f::20",
    resolver="2001:db8:f::53",
    private="fd09::9",
)
_NEIGHBOURS_GATEWAY = ("192.0.2.126", "2001:db8:2::fe")
RESOLVERS = ((ip_address(IPV4.resolver), 53), (ip_address(IPV6.resolver), 53))


class Namespace:
    """A network namespace, by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pool = ThreadPoolExecutor(1, initializer=self._enter)

    def _enter(self) -> None:
        with open(f"/run/netns/{self.name}") as file:  # noqa: PTH123 - for its descriptor alone
            os.setns(file.fileno(), os.CLONE_NEWNET)

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns inside."""
        return self._pool.submit(function, *arguments).result()

    def sysctl(self, name: str, value: str) -> None:
        self.do(Path("/proc/sys", *name.split(".")).write_text, value)

    def make(self, family: int, kind: int) -> socket.socket:
        s: socket.socket = self.do(socket.socket, family, kind)
        s.settimeout(PATIENCE)
        return s

    def connect(self, address: str, port: int, source: str = "", patience: float = PATIENCE) -> socket.socket:
        """An open TCP connection."""
        s = self.make(_family(address), socket.SOCK_STREAM)
        try:
            s.settimeout(patience)
            if source:
                s.bind((source, 0))
            s.connect((address, port))
        except OSError:
            s.close()
            raise
        return s

    def udp(self, address: str, port: int, source: str = "") -> socket.socket:
        """A socket for datagrams to and from there."""
        s = self.make(_family(address), socket.SOCK_DGRAM)
        if source:
            s.bind((source, 0))
        s.connect((address, port))
        return s

    def close(self) -> None:
        self._pool.shutdown()


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Speaker:
    """A server that says who it is, on all addresses of a namespace.

    A connection gets one line: its name, the client's address and where the client wanted to go. Then
    what is received comes back, or after ``flood`` as much as the client takes.
    """

    def __init__(self, namespace: Namespace, name: str, tcp: tuple[int, ...], udp: tuple[int, ...]) -> None:
        self.name = name
        self.connections: list[socket.socket] = []
        self._listeners = [self._socket(namespace, socket.SOCK_STREAM, port) for port in tcp]
        self._datagrams = [self._socket(namespace, socket.SOCK_DGRAM, port) for port in udp]
        for listener in self._listeners:
            listener.listen()
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def take(self, *, untranslated: bool) -> None:
        """Take connections as the filter does: to any address, or of what is redirected alone."""
        for one in self._listeners:
            if one.getsockname()[1] != DNS:
                one.setsockopt(socket.IPPROTO_IPV6, _TRANSPARENT, untranslated)

    @staticmethod
    def _socket(namespace: Namespace, kind: int, port: int) -> socket.socket:
        s = namespace.make(socket.AF_INET6, kind)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == socket.SOCK_DGRAM:
            # Answers go out from the address that was asked.
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            # Origins' addresses are not on an interface.
            s.setsockopt(socket.IPPROTO_IPV6, _FREEBIND, 1)
        s.bind(("::", port))
        s.setblocking(False)
        return s

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for s in (*self._listeners, *self._datagrams, self._stopped):
                selector.register(s, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    s = key.fileobj
                    assert isinstance(s, socket.socket)
                    if s is self._stopped:
                        return
                    with suppress(OSError):
                        if s in self._listeners:
                            self._accept(selector, s)
                        elif s in self._datagrams:
                            self._answer(s)
                        else:
                            self._receive(selector, s)

    def _accept(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        s, peer = listener.accept()
        s.setblocking(False)
        self.connections.append(s)
        s.send(f"{self.name} {_plain(peer[0])} {_original(s)}\n".encode())
        selector.register(s, selectors.EVENT_READ)

    def _answer(self, s: socket.socket) -> None:
        data, ancillary, _, peer = s.recvmsg(2048, 512)
        back = [(level, kind, value) for level, kind, value in ancillary if level == socket.IPPROTO_IPV6]
        s.sendmsg([f"{self.name} {_plain(peer[0])} ".encode() + data], back, 0, peer)

    def _receive(self, selector: selectors.BaseSelector, s: socket.socket) -> None:
        try:
            data = s.recv(65536)
        except ConnectionError:
            data = b""
        if data == b"flood":
            selector.unregister(s)
            s.setblocking(True)
            threading.Thread(target=self._flood, args=(s,), daemon=True).start()
        elif data:
            s.send(data)
        else:
            selector.unregister(s)
            s.close()

    @staticmethod
    def _flood(s: socket.socket) -> None:
        with suppress(OSError):
            while True:
                s.sendall(bytes(65536))
        s.close()

    def close(self) -> None:
        if self._stop.fileno() < 0:
            return  # closed before
        self._stop.send(b"x")
        self._thread.join(PATIENCE)
        for s in (*self._listeners, *self._datagrams, *self.connections, self._stop, self._stopped):
            s.close()


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")


def _original(s: socket.socket) -> str:
    """Where a redirected connection was to go."""
    local = _plain(s.getsockname()[0])
    try:
        if ":" in local:
            raw = s.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DST, 28)
            return f"{socket.inet_ntop(socket.AF_INET6, raw[8:24])} {struct.unpack_from('!H', raw, 2)[0]}"
        raw = s.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DST, 16)
        return f"{socket.inet_ntoa(raw[4:8])} {struct.unpack_from('!H', raw, 2)[0]}"
    except OSError:
        return f"{local} {s.getsockname()[1]}"


@dataclass
class Network:
    """Everything, running.

    Attributes:
        speakers: by name.
        keeps: whether rules are with `keep_source` where nothing else is said.
    """

    client: Namespace
    neighbour: Namespace
    gateway: Namespace
    world: Namespace
    nft: Nft
    speakers: dict[str, Speaker] = field(default_factory=dict)
    keeps: bool = False

    def up(self, alive: bool = True, shared: bool = False, **values: Any) -> RulesPlan:
        """Rules in place of whatever is there, and a worker that lives or not."""
        self.down()
        plan = replace(self.plan(**values), shared=shared)
        if plan.gateway.keep_source:
            self.gateway.do(deliver_here)
        for name in ("filter", "intercept"):
            if name in self.speakers:
                self.speakers[name].take(untranslated=plan.gateway.keep_source)
        self.nft.run(rules(plan))
        if alive:
            self.live()
        return plan

    def plan(self, **values: Any) -> RulesPlan:
        table = GatewayTable.model_validate(
            {"interfaces": ("lan0",), "steer": True, "keep_source": self.keeps, **values}
        )
        return RulesPlan(table, FILTER, RESOLVERS)

    def down(self) -> None:
        self.nft.run("add table inet urlward; delete table inet urlward")

    def add(self, name: str, *keys: str, seconds: int = 600) -> None:
        elements = ", ".join(f"{key} timeout {seconds}s" for key in keys)
        self.nft.run(f"add element inet urlward {name} {{ {elements} }}")

    def cut(self, name: str, *keys: str) -> None:
        self.add("cutting", "6", "17")
        self.add(name, *keys)

    def live(self) -> None:
        self.add("alive", "6", "17")

    def die(self) -> None:
        self.nft.run("flush set inet urlward alive")

    def says(self, address: str, port: int = 443, source: str = "", who: Namespace | None = None) -> str:
        """What answers a connection there."""
        with (who or self.client).connect(address, port, source) as s:
            return first_line(s)

    def forget(self) -> None:
        """Empty the gateway's conntrack (IPCTNL_MSG_CT_DELETE without a tuple)."""

        def flush() -> None:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
                s.send(struct.pack("=IHHIIBBH", 20, 0x102, 5, 1, 0, 0, 0, 0))
                kind, error = struct.unpack_from("=HHIIi", s.recv(4096), 4)[::4]
                assert (kind, error) == (2, 0)

        self.gateway.do(flush)


def deliver_here() -> None:
    """Have what is marked delivered in this network namespace."""
    with closing(Routing()) as routing:
        routing.up()


def first_line(s: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n"):
        data += s.recv(1) or b"\n"
    return data.decode().strip()


@contextmanager
def network(prefix: str) -> Iterator[Network]:
    """Make it all, and leave nothing.

    Args:
        prefix: of namespaces' names, one for each module that uses this.
    """
    with ExitStack() as stack:
        names = {kind: f"uw-{prefix}-{kind}-{os.getpid()}" for kind in "cngw"}
        spaces = {}
        for kind, name in names.items():
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            spaces[kind] = Namespace(name)
            stack.callback(spaces[kind].close)
        made = Network(spaces["c"], spaces["n"], spaces["g"], spaces["w"], spaces["g"].do(Nft))
        stack.callback(made.nft.close)
        _wire(names)
        for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            made.gateway.sysctl(setting, "1")
        for name, where, tcp, udp in (
            ("origin", made.world, (53, 80, 443, 8443), (53, 443, 8443)),
            ("filter", made.gateway, (FILTER, DNS), (DNS,)),
            ("intercept", made.gateway, (INTERCEPT,), ()),
            ("own", made.gateway, (80, 443), ()),
        ):
            made.speakers[name] = Speaker(where, name, tcp, udp)
            stack.callback(made.speakers[name].close)
        yield made


def _wire(names: dict[str, str]) -> None:
    c, n, g, w = (names[kind] for kind in "cngw")
    for name in names.values():
        _ip("-n", name, "link", "set", "lo", "up")
    for name, own, other in ((c, "eth0", "lan0"), (n, "eth0", "nbr0"), (w, "eth0", "wan0")):
        _ip("-n", name, "link", "add", own, "type", "veth", "peer", "name", other, "netns", g)
    for name, link, v4, v6 in (
        (c, "eth0", [IPV4.client, IPV4.exempt], [IPV6.client, IPV6.exempt]),
        (n, "eth0", [IPV4.neighbour], [IPV6.neighbour]),
        (w, "eth0", [IPV4.world], [IPV6.world]),
        (g, "lan0", [IPV4.lan], [IPV6.lan]),
        (g, "nbr0", [_NEIGHBOURS_GATEWAY[0]], [_NEIGHBOURS_GATEWAY[1]]),
        (g, "wan0", [IPV4.wan], [IPV6.wan]),
    ):
        for address in v4:
            _ip("-n", name, "addr", "add", f"{address}/26", "dev", link)
        for address in v6:
            more = ["preferred_lft", "0"] if address == IPV6.exempt else []
            _ip("-n", name, "addr", "add", f"{address}/64", "dev", link, "nodad", *more)
        _ip("-n", name, "link", "set", link, "up")
    for name, v4, v6 in (
        (c, IPV4.lan, IPV6.lan),
        (n, *_NEIGHBOURS_GATEWAY),
        (g, IPV4.world, IPV6.world),
        (w, IPV4.wan, IPV6.wan),
    ):
        _ip("-n", name, "route", "add", "default", "via", v4)
        _ip("-n", name, "-6", "route", "add", "default", "via", v6)
    for network in ("203.0.113.0/24", f"{IPV4.private}/32"):
        _ip("-n", w, "route", "add", "local", network, "dev", "lo")
    for network in ("2001:db8:f::/64", f"{IPV6.private}/128"):
        _ip("-n", w, "-6", "route", "add", "local", network, "dev", "lo")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def canaries(net: Network) -> set[str]:
    """What the workers' canaries have come to."""
    listed = net.nft.json("list set inet urlward canary")[0]["set"].get("elem", [])
    return {one["elem"]["comment"] for one in listed}
