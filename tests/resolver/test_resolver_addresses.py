import socket
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from resolver.test_forward import Query
from rows import each_row
from urlward.config.problem import SettingError
from urlward.dns.resolver_addresses import parse_resolver, resolvers
from urlward.dns.upstream import Forwarder, OutageLog, UdpWay

OWN = frozenset(map(ip_address, ("192.0.2.254", "2001:db8::254")))


@each_row(
    ("text", "host", "port"),
    [
        ("192.0.2.53", "192.0.2.53", 53),
        ("192.0.2.53:5300", "192.0.2.53", 5300),
        ("2001:db8::53", "2001:db8::53", 53),
        ("[2001:db8::53]", "2001:db8::53", 53),
        ("[2001:db8::53]:5300", "2001:db8::53", 5300),
        ("fe80::1%lo", "fe80::1%lo", 53),
    ],
)
def test_how_they_are_written(text: str, host: str, port: int) -> None:
    resolver = parse_resolver(text)
    assert (resolver.host, resolver.port) == (host, port)
    assert resolver.family == (socket.AF_INET6 if ":" in host else socket.AF_INET)
    assert resolver.address[:2] == (host.partition("%")[0], port)


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
async def test_an_interface_that_has_come_back_has_another_number() -> None:
    """As that of a modem: the resolver that its network told of is behind it as before."""

    def wire() -> None:
        for line in (
            "link add wan0 type veth peer name isp0",
            "link set isp0 up",
            "addr add fe80::2/64 dev wan0 nodad",
            "link set wan0 up",
        ):
            subprocess.run(["ip", *line.split()], check=True)

    with own_network():
        wire()
        resolver, loopback = parse_resolver("fe80::1%wan0"), parse_resolver("192.0.2.53")
        subprocess.run(["ip", "link", "del", "wan0"], check=True)
        with pytest.raises(OSError, match=r"known|address|found"):
            resolver.reached()
        subprocess.run(["ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1"], check=True)
        wire()
        assert resolver.reached() == ("fe80::1", 53, 0, socket.if_nametoindex("wan0"))
        assert resolver.reached() != resolver.address
        assert loopback.reached() == ("192.0.2.53", 53)
        way = UdpWay(resolver)
        forwarder = Forwarder([way], 60.0, OutageLog([way.text]))
        query = Query()
        assert forwarder.ask(query)
        source = next(source for source in way._sources if source is not None)
        assert source._socket.getpeername()[3] == socket.if_nametoindex("wan0")
        forwarder.close()


def test_an_interface_may_come_later(tmp_path: Path) -> None:
    """What the system names before its interface is there would else be left out until the file changes."""
    system = tmp_path / "resolv.conf"
    system.write_text("nameserver fe80::1%later0\nnameserver 192.0.2.53\n")
    first, second = resolvers((), OWN, 53, system)
    assert [first.host, second.host] == ["fe80::1%later0", "192.0.2.53"]
    with pytest.raises(OSError, match=r"known|address|found"):
        first.reached()


def test_how_they_are_shown() -> None:
    assert [str(parse_resolver(t)) for t in ("192.0.2.53", "[2001:db8::53]:53", "[2001:db8::53]:54")] == [
        "192.0.2.53",
        "2001:db8::53",
        "[2001:db8::53]:54",
    ]


@each_row(
    "text",
    [
        "",
        "resolver.example",
        "192.0.2.53:0",
        "192.0.2.53:65536",
        "192.0.2",
        "[2001:db8::53]:",
        "::1:x",
        "a:1",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(SettingError, match=r"gateway\.dns\.resolvers: .* is not an address"):
        parse_resolver(text)


def test_those_of_the_configuration() -> None:
    found = resolvers(("192.0.2.53", "[2001:db8::53]:5300", "192.0.2.53:53"), OWN, 5353)
    assert [str(r) for r in found] == ["192.0.2.53", "[2001:db8::53]:5300"]
    assert resolvers(("192.0.2.254", "127.0.0.53"), OWN, 5353), "another server on this machine"


@each_row(
    "text",
    [
        "192.0.2.254:5353",
        "127.0.0.1:5353",
        "[::1]:5353",
        "[::ffff:192.0.2.254]:5353",
        "0.0.0.0:5353",
        "[::]:5353",
        "[::ffff:0.0.0.0]:5353",
    ],
)
def test_never_itself(text: str) -> None:
    with pytest.raises(SettingError, match="is this filter itself"):
        resolvers((text,), OWN, 5353)


def test_those_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# a comment\nsearch example\nnameserver 192.0.2.1\nnameserver\nnameserver junk\n"
        "nameserver 2001:db8::1\nnameserver 192.0.2.254\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"
    )
    found = resolvers((), OWN, 53, path)
    assert [str(r) for r in found] == ["192.0.2.1", "2001:db8::1"], "the first three of it, but not itself"
    for text in ("", "nameserver 127.0.0.1\n"):
        path.write_text(text)
        with pytest.raises(
            SettingError, match=r"^gateway\.dns\.resolvers: needed, since .* names no DNS resolver but"
        ):
            resolvers((), OWN, 53, path)
    path.unlink()
    with pytest.raises(SettingError, match="names no DNS resolver"):
        resolvers((), OWN, 53, path)
