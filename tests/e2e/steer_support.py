"""``urlward run --steer`` behind the kernel's rules, in namespaces."""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from conftest import wait_for
from e2e.support import Filter, read_response, running, urlward
from gateway.dns_support import dnsmasq
from gateway.network import IPV4, IPV6, Family, Network, network
from urlward.gateway.steer_set import ALIVE_FOR
from urlward.gateway.table import ALIVE, BOTH_PROTOCOLS

TEXT = """\
blocked.example id=S-1
http://paged.example/listed.html id=S-2
203.0.113.66 id=S-3
"""
RESOLVER_PORT = 5300
MANY = 200
ZONE = (
    f"host-record=plain.example,{IPV4.other},{IPV6.other}",
    f"host-record=blocked.example,{IPV4.origin},{IPV6.origin}",
    "host-record=paged.example,203.0.113.30,2001:db8:f::30",
    "host-record=shared.example,203.0.113.30,2001:db8:f::30",
    "host-record=later.example,203.0.113.40,2001:db8:f::40",
    "cname=alias.example,www.blocked.example",
    "host-record=www.blocked.example,203.0.113.50",
    *(f"host-record=n{i}.blocked.example,198.51.100.{i + 10}" for i in range(MANY)),
)
CONFIG = """\
{top}
[gateway]
interfaces = ["lan0"]
steer = true
{more}
[gateway.dns]
resolvers = ["{four}:{port}", "[{six}]:{port}"]
{dns}
"""


@contextmanager
def resolving(folder: Path, prefix: str) -> Iterator[Network]:
    """A network with a resolver, and no filter yet.

    Args:
        folder: for files.
        prefix: of namespaces' names, one for each module that uses this.
    """
    with network(prefix) as made:
        # The filter comes in their place.
        for name in ("filter", "intercept", "own"):
            made.speakers.pop(name).close()
        for address in (f"{IPV4.resolver}/32", f"{IPV6.resolver}/128"):
            more = ["nodad"] if ":" in address else []
            command = ["ip", "-n", made.world.name, "addr", "add", address, "dev", "lo", *more]
            subprocess.run(command, check=True, capture_output=True)
        more = [f"listen-address={IPV6.resolver}", *ZONE]
        inside = made.world.prefix
        with dnsmasq(folder, *more, port=RESOLVER_PORT, address=IPV4.resolver, prefix=inside):
            yield made


def configure(folder: Path, more: str = "", dns_more: str = "", top: str = "") -> Path:
    path = folder / "urlward.toml"
    path.write_text(
        CONFIG.format(
            top=top, more=more, dns=dns_more, four=IPV4.resolver, six=IPV6.resolver, port=RESOLVER_PORT
        )
    )
    return path


def command(net: Network, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return urlward(*arguments, namespace=net.gateway.name, within=180.0)


@contextmanager
def steering(
    net: Network,
    folder: Path,
    *arguments: str,
    text: str = TEXT,
    workers: int = 2,
    more: str = "",
    dns_more: str = "",
    top: str = "",
    before: str = "",
) -> Iterator[Filter]:
    """Rules up, and the filter behind them; `before` as of `running`."""
    config = str(configure(folder, more, dns_more, top))
    up = command(net, "gateway", "up", "--config", config, "--replace")
    assert up.returncode == 0, up.stderr
    try:
        with running(
            folder, "--config", config, "--workers", str(workers), *arguments,
            modes=(), text=text, before=before, namespace=net.gateway.name,
        ) as proxy:  # fmt: skip
            wait_for(
                lambda: len(set(re.findall(r"listening on .*\(dns", proxy.log()))) and alive(net),
                "the filter",
            )
            wait_for(lambda: proxy.log().count("(dns@5353)") >= 2 * workers, "all workers")
            yield proxy
    finally:
        command(net, "gateway", "down", "--config", config)


def alive(net: Network) -> bool:
    return bool(elements(net, "alive"))


def while_alive[T](net: Network, attempt: Callable[[], T], again: Callable[[], object] = lambda: None) -> T:
    """What comes of an attempt, made again where it fails at a time at which no worker counted as alive.

    The kernel takes the workers to live for two seconds after their last word, so where the machine stands
    still for as long, what is to be filtered passes. When they have said it last, the kernel tells.

    Args:
        net: with a filter.
        attempt: short, or it is too often not known when they have.
        again: done before another one.
    """
    for _ in range(3):
        begun = time.monotonic()
        try:
            return attempt()
        except (AssertionError, LookupError, OSError, HTTPException):
            left = net.nft.left(ALIVE, bytes(BOTH_PROTOCOLS[:1]))
            if left and time.monotonic() + left - ALIVE_FOR < begun:
                raise  # the last word before the attempt had not lost its force since
        wait_for(lambda: alive(net), "a sign of life")
        again()
    return attempt()


def elements(net: Network, name: str) -> dict[str, int]:
    """Keys in a set, with the seconds that each stays."""
    found: dict[str, int] = {}
    for one in net.nft.json(f"list set inet urlward {name}"):
        for element in one.get("set", {}).get("elem", ()):
            elem = element["elem"] if isinstance(element, dict) and "elem" in element else {"val": element}
            found[str(elem["val"])] = elem.get("expires", 0)
    return found


def ask(
    net: Network, name: str, kind: str = "A", f: Family = IPV4, *, tcp: bool = False, timeout: float = 5
) -> dns.message.Message:
    """From the client, to any address: the rules lead it here.

    Asked again, as resolvers do: where this machine stands still for two seconds, no worker counts as alive.
    """
    query = dns.message.make_query(name, kind)
    server = f.world  # an address at which nobody answers DNS
    for again in (True, False):
        with suppress(dns.exception.Timeout, OSError):
            if tcp:
                with net.client.connect(server, 53) as s:
                    s.setblocking(False)
                    return dns.query.tcp(query, server, timeout, sock=s)
            with net.client.make(f.family, socket.SOCK_DGRAM) as s:
                s.setblocking(False)
                return dns.query.udp(query, server, timeout, sock=s)
        if timeout < 5 or not again:
            break
    raise dns.exception.Timeout(timeout=timeout)


def address(message: dns.message.Message) -> str:
    return str(message.answer[-1][0].address)


def get(net: Network, where: str, host: str, path: str = "/") -> int:
    """The status that a browser would see."""
    with net.client.connect(where, 80) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return read_response(s).status
