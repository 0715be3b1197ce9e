"""Rules against real traffic, in namespaces."""

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from conftest import wait_for
from e2e.test_modes import may_make_namespaces
from gateway.network import (
    DNS,
    FILTER,
    IPV4,
    IPV6,
    PATIENCE,
    Family,
    Namespace,
    Network,
    first_line,
    network,
)
from urlward.gateway import control
from urlward.gateway import rules as rules_of_gateway
from urlward.gateway.conntrack import Conntrack
from urlward.gateway.firewalls import closed
from urlward.gateway.rules import rules, setup_of
from urlward.gateway.rules_watch import RulesWatch
from urlward.gateway.system import LIBERAL
from urlward.gateway.table import NftError

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")

families = pytest.mark.parametrize("f", [IPV4, IPV6], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module", params=["own", "kept"])
def running(request: pytest.FixtureRequest) -> Iterator[Network]:
    """With `keep_source` and without, which is to differ in nothing but what origins see."""
    with network("rules") as made:
        made.keeps = request.param == "kept"
        yield made


@pytest.fixture
def net(running: Network) -> Iterator[Network]:
    yield running
    running.down()


@families
def test_steered_addresses_are_redirected_and_nothing_else(net: Network, f: Family) -> None:
    net.up(exempt=(f.exempt,))
    net.add(f.of("steer"), f.origin)
    for port in (80, 443):
        assert net.says(f.origin, port) == f"filter {f.client} {f.origin} {port}"
    assert net.says(f.origin, 8443) == f"origin {f.client} {f.origin} 8443"
    assert net.says(f.other) == f"origin {f.client} {f.other} 443"
    assert net.says(f.origin, source=f.exempt) == f"origin {f.exempt} {f.origin} 443"
    assert net.says(f.origin, who=net.neighbour) == f"origin {f.neighbour} {f.origin} 443"
    assert net.says(f.origin, who=net.gateway).startswith("origin "), "the filter's own connections"


@families
def test_clients_and_never(net: Network, f: Family) -> None:
    net.up(clients=(f.exempt,), never=(f.other,))
    net.add(f.of("steer"), f.origin, f.other)
    assert net.says(f.origin).startswith("origin ")
    assert net.says(f.origin, source=f.exempt) == f"filter {f.exempt} {f.origin} 443"
    assert net.says(f.other, source=f.exempt).startswith("origin ")


@families
def test_what_must_never_be_steered_is_not(net: Network, f: Family) -> None:
    net.up()
    net.add(f.of("steer"), f.private)
    net.nft.run(f"add element inet urlward {f.of('listed')} {{ {f.private} }}")
    assert net.says(f.private) == f"origin {f.client} {f.private} 443"
    assert ask(net, f.private, 443) == "origin"
    net.up(steer=False)
    assert net.says(f.private).startswith("filter "), "where everything is filtered, it is too"


@families
def test_networks_that_are_listed_themselves(net: Network, f: Family) -> None:
    net.up()
    network = "203.0.113.0/28" if f.version == 4 else "2001:db8:f::/123"
    net.nft.run(f"add element inet urlward {f.of('listed')} {{ {network} }}")
    assert net.says(f.origin).startswith("filter ")
    assert net.says(f.other).startswith("origin ")


@families
def test_connections_to_intercept_have_a_port_of_their_own(net: Network, f: Family) -> None:
    for steered, port in (("intercept", "intercept"), ("relay", "filter")):
        net.up(steered=steered)
        net.add(f.of("steer"), f.origin)
        net.nft.run(f"add element inet urlward {f.of('listed')} {{ {f.other} }}")
        assert net.says(f.origin) == f"{port} {f.client} {f.origin} 443"
        assert net.says(f.other).startswith("filter ")


@families
def test_without_steering_everything_on_the_ports_is_redirected(net: Network, f: Family) -> None:
    net.up(steer=False, never=(f.other,), ports=(443,))
    assert net.says(f.origin).startswith("filter ")
    assert net.says(f.origin, 80).startswith("origin ")
    assert net.says(f.other).startswith("origin ")
    assert net.says(f.lan).startswith("own "), "the gateway's own servers"
    assert ask(net, f.resolver, 53) == "origin"
    with pytest.raises(ConnectionRefusedError):
        ask(net, f.origin, 443)


@families
def test_the_gateways_own_addresses(net: Network, f: Family) -> None:
    net.up(dns={"page_addresses": (f.wan,)})
    net.add(f.of("steer"), f.lan, f.wan)
    assert net.says(f.lan).startswith("own "), "even where a name has led there"
    assert net.says(f.wan) == f"filter {f.client} {f.wan} 443"


@families
def test_ports_that_others_forward(net: Network, f: Family) -> None:
    """Clients reach what the machine's own addresses lead to: a server of theirs, a container."""
    ip = "ip" if f.version == 4 else "ip6"
    led = f"{ip} daddr {f.wan} meta l4proto {{ tcp, udp }} th dport 443 dnat {ip} to {f.origin};"
    net.nft.run(ELSEWHERE.replace("tcp dport 9999 redirect to :8080;", led))
    try:
        for steer in (False, True):
            net.up(steer=steer, fail="closed")
            if steer:
                net.add(f.of("steer"), f.origin)
            assert net.says(f.wan) == f"origin {f.client} {f.origin} 443"
            assert ask(net, f.wan, 443) == "origin"
            assert net.says(f.origin).startswith("filter "), "not so what is for another"
            net.die()
            with pytest.raises(ConnectionRefusedError):
                net.says(f.wan)
    finally:
        net.nft.run("delete table inet other")


@families
def test_what_others_lead_to_a_proxy_of_theirs(net: Network, f: Family) -> None:
    """Squid on this machine, a captive portal: they get what is not filtered."""
    led = f"meta nfproto {f.of('ipv')} tcp dport 80 redirect to :443;"
    theirs = ELSEWHERE.replace("tcp dport 9999 redirect to :8080;", led)
    # Where connections are redirected to the filter, a chain before that decides what they are filtered by.
    net.nft.run(theirs.replace("priority dstnat", "priority -140") if net.keeps else theirs)
    try:
        net.up()
        net.add(f.of("steer"), f.origin)
        with net.client.connect(f.origin, 80) as s:
            assert first_line(s) == f"filter {f.client} {f.origin} 80"
            assert echo(s)
        assert net.says(f.other, 80).startswith("own ")
    finally:
        net.nft.run("delete table inet other")


def ask(net: Network, address: str, port: int, who: Namespace | None = None) -> str:
    """Who answers a datagram."""
    with (who or net.client).udp(address, port) as s:
        return exchange(s)[0]


def exchange(s: socket.socket, question: bytes = b"question") -> list[str]:
    """Who answers, from where it was asked, and with what."""
    s.send(question)
    return s.recv(2048).decode().split()


@families
def test_quic_to_steered_addresses_is_rejected(net: Network, f: Family) -> None:
    net.up()
    net.add(f.of("steer"), f.origin)
    with pytest.raises(ConnectionRefusedError):
        ask(net, f.origin, 443)
    assert ask(net, f.origin, 8443) == "origin"
    assert ask(net, f.other, 443) == "origin"
    assert ask(net, f.origin, 443, net.neighbour) == "origin"
    net.die()
    assert ask(net, f.origin, 443) == "origin"


@families
def test_open_while_no_worker_lives(net: Network, f: Family) -> None:
    net.up(alive=False, fail="open")
    net.add(f.of("steer"), f.origin)
    assert net.says(f.other).startswith("origin ")
    assert net.says(f.origin, 8443).startswith("origin ")
    assert net.says(f.origin).startswith("origin ")


@families
def test_closed_while_no_worker_lives(net: Network, f: Family) -> None:
    """From a fresh start on, and when elements have expired: the sets are empty here."""
    net.up(alive=False, fail="closed", exempt=(f.exempt,))
    for port in (80, 443):
        with pytest.raises(ConnectionRefusedError):
            net.says(f.origin, port)
    with pytest.raises(ConnectionRefusedError):
        ask(net, f.origin, 443)
    assert net.says(f.origin, 8443).startswith("origin "), "not a filtered port"
    assert net.says(f.origin, source=f.exempt).startswith("origin ")
    assert net.says(f.origin, who=net.neighbour).startswith("origin ")
    assert net.says(f.private).startswith("origin "), "what is never steered"
    net.live()
    with net.client.connect(f.other, 443) as s:
        assert first_line(s).startswith("origin ")
        net.die()
        s.send(b"more")
        assert s.recv(9) == b"more", "what a worker has let pass goes on"
        net.forget()
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - a late acknowledgement may have drawn it
            s.send(b"more")
            s.recv(9)
    net.live()
    net.add(f.of("steer"), f.origin)
    assert net.says(f.origin).startswith("filter ")


@families
def test_closed_and_names_first_asked_while_no_worker_lives(net: Network, f: Family) -> None:
    net.up(alive=False, fail="closed", exempt=(f.exempt,), never=(f.other,))
    for address in (f.lan, f.resolver):
        with net.client.udp(address, 53) as s:
            s.settimeout(0.3)
            s.send(b"question")
            with pytest.raises(TimeoutError):
                s.recv(2048)
            net.live()
            s.settimeout(PATIENCE)
            assert exchange(s) == ["filter", f.client, "question"], "from the same port"
            net.die()
        with pytest.raises(TimeoutError):
            net.client.connect(address, 53, patience=0.3)
    assert ask(net, f.other, 53) == "origin"
    with net.client.udp(f.resolver, 53, f.exempt) as s:
        assert exchange(s)[0] == "origin"


def test_closed_and_an_origin_that_goes_on_by_itself(net: Network) -> None:
    """A router that has begun anew knows no connection: an origin's packet must not make it one."""
    net.up()
    s, far = connected(net, IPV4.origin)
    with s:
        net.up(alive=False, fail="closed")
        net.forget()
        far.send(b"unasked")
        s.settimeout(0.5)
        with pytest.raises(TimeoutError):
            s.recv(9)


def test_closed_ends_what_is_cut_while_no_worker_lives(net: Network) -> None:
    for fail, ends in (("open", False), ("closed", True)):
        net.up(fail=fail)
        with net.client.connect(IPV4.origin, 443) as s:
            assert first_line(s).startswith("origin ")
            net.add("steer4", IPV4.origin)
            net.cut("cut4", IPV4.origin)
            net.die()
            s.send(b"more")
            if ends:
                with pytest.raises(ConnectionResetError):
                    s.recv(9)
            else:
                assert s.recv(9) == b"more"


@families
def test_without_steering_while_no_worker_lives(net: Network, f: Family) -> None:
    net.up(alive=False, steer=False)
    assert net.says(f.origin).startswith("origin ")
    net.up(alive=False, steer=False, fail="closed")
    with pytest.raises(ConnectionRefusedError):
        net.says(f.origin)
    assert net.says(f.origin, 8443).startswith("origin ")


@families
def test_a_flood_of_questions_does_not_come_to_the_filter(
    net: Network, f: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fill the sockets' buffers, where others' questions would find no place."""
    monkeypatch.setattr(rules_of_gateway, "ASKED_AT_MOST", 2)
    net.up()
    net.nft.run(
        "add table inet other; add counter inet other asked;"
        "add chain inet other every { type filter hook input priority -20; };"
        f"add rule inet other every udp dport {DNS} counter name asked"
    )
    try:
        with net.client.udp(f.lan, 53) as s:
            assert exchange(s) == ["filter", f.client, "question"]
            for _ in range(200):
                s.send(b"question")
        (asked,) = [
            one["counter"] for one in net.nft.json("list counter inet other asked") if "counter" in one
        ]
        assert 1 <= asked["packets"] < 100
    finally:
        net.nft.run("delete table inet other")


@families
def test_names_are_asked_of_the_filter_or_else_of_a_resolver(net: Network, f: Family) -> None:
    net.up(exempt=(f.exempt,), never=(f.other,))
    for address in (f.lan, f.origin):
        # From one port all the time, as some forwarders ask.
        with net.client.udp(address, 53) as s:
            for _ in range(2):
                net.live()
                assert exchange(s) == ["filter", f.client, "question"]
                net.die()
                assert exchange(s) == ["origin", f.wan, "question"], "and back the same way"
        net.live()
        assert net.says(address, 53).startswith(f"filter {f.client}")
        net.die()
        assert net.says(address, 53) == f"origin {f.wan} {f.resolver} 53"
    # As without rules, where a resolver at the client asks an authoritative server: RD is not set.
    with net.client.udp(f.origin, 53) as s:
        assert exchange(s, b"quBstion") == ["origin", f.client, "quBstion"]
    with net.client.udp(f.origin, 53) as s:
        net.live()
        assert exchange(s, b"quBstion") == ["filter", f.client, "quBstion"]
    for alive in (net.die, net.live):
        alive()
        assert net.says(f.origin, 53, f.exempt) == f"origin {f.exempt} {f.origin} 53"
        assert net.says(f.other, 53) == f"origin {f.client} {f.other} 53"


@families
def test_who_asks_from_one_port_follows_the_rules(net: Network, f: Family) -> None:
    """A router with a firewall knows such a client's connection before there are rules, and after them."""
    net.nft.run(
        "add table inet other; add chain inet other every { type filter hook forward priority 0; };"
        "add rule inet other every ct state established accept"
    )
    try:
        with net.client.udp(f.resolver, 53) as s:
            for _ in range(2):
                net.down()
                assert exchange(s)[0] == "origin"
                net.up()
                assert exchange(s)[0] == "filter"
    finally:
        net.nft.run("delete table inet other")


@families
def test_a_name_server_among_clients_answers_who_asks_from_port_53(net: Network, f: Family) -> None:
    net.up(fail="closed")
    with (
        net.client.make(f.family, socket.SOCK_DGRAM) as server,
        net.world.make(f.family, socket.SOCK_DGRAM) as s,
    ):
        server.bind((f.client, 53))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((f.world, 53))
        for alive in (True, False):
            s.sendto(QUESTION, (f.client, 53))
            _, peer = server.recvfrom(100)
            server.sendto(ANSWER, peer)
            assert s.recv(100) == ANSWER
            if alive:
                net.die()


QUESTION, ANSWER = struct.pack("!HH8x", 1, 0x0100), struct.pack("!HH8x", 1, 0x8400)


@families
def test_a_zone_of_others_for_both_directions(net: Network, f: Family) -> None:
    net.up()
    net.nft.run(
        "add table inet other; add chain inet other in { type filter hook prerouting priority raw; };"
        "add rule inet other in ct zone set 7;"
        "add chain inet other out { type filter hook output priority raw; };"
        "add rule inet other out ct zone set 7"
    )
    try:
        assert ask(net, f.resolver, 53) == "filter"
    finally:
        net.nft.run("delete table inet other")


@families
def test_no_client_is_told_a_way_past_the_filter(net: Network, f: Family) -> None:
    """Where the next router is on the clients' own link, the kernel would tell them of it."""
    ip = ("ip", "-n", net.gateway.name)
    route = (f.origin, "via", "192.0.2.50" if f is IPV4 else "fe80::50", "dev", "lan0")
    subprocess.run([*ip, "route", "add", *route], check=True)
    looked = [*ip, "-6", "address", "show", "dev", "lan0", "tentative"]
    wait_for(
        lambda: not subprocess.run(looked, check=True, capture_output=True).stdout,
        "an address to tell it from",
    )
    net.up()
    net.nft.run(
        "add table inet other; add counter inet other routed; add counter inet other told;"
        "add chain inet other forward { type filter hook forward priority 0; };"
        "add rule inet other forward udp dport 9 counter name routed;"
        "add chain inet other output { type filter hook output priority 0; };"
        "add rule inet other output icmp type redirect counter name told;"
        "add rule inet other output icmpv6 type nd-redirect counter name told"
    )

    def counted(name: str) -> int:
        listing = net.nft.json(f"list counter inet other {name}")
        return int(next(one["counter"]["packets"] for one in listing if "counter" in one))

    try:
        with net.client.udp(f.origin, 9) as s:
            for n in range(1, 3):
                s.send(b"anything")
                wait_for(lambda n=n: counted("routed") == n, "the packet")
                # IPv4 tells by the second packet, and 40 ms after it would have by the first.
                time.sleep(0.1 if f is IPV4 else 0)
        assert counted("told") == 0
    finally:
        net.nft.run("delete table inet other")
        subprocess.run([*ip, "route", "del", *route], check=True)


@families
def test_who_may_come_to_the_filters_ports(net: Network, f: Family) -> None:
    net.up()
    for port in (FILTER, DNS):
        assert net.says(f.lan, port).startswith("filter ")
        with pytest.raises(TimeoutError):
            net.world.connect(f.wan, port, patience=0.3)
    with net.world.udp(f.wan, DNS) as s:
        s.settimeout(0.3)
        with pytest.raises(TimeoutError):
            exchange(s)
    assert net.says(f.wan, 443, who=net.world).startswith("own ")
    net.nft.run(ELSEWHERE)
    try:
        assert net.says(f.wan, 9999, who=net.world).startswith("filter "), "whom others redirect"
    finally:
        net.nft.run("delete table inet other")
    net.die()
    assert net.says(f.wan, FILTER, who=net.world).startswith("filter "), "not ours while nobody lives"


ELSEWHERE = """\
table inet other {
    chain prerouting { type nat hook prerouting priority dstnat; tcp dport 9999 redirect to :8080; }
}
"""


def echo(s: socket.socket) -> bool:
    """Whether what is sent comes back."""
    s.sendall(b"still here")
    return s.recv(100) == b"still here"


def read_to_end(s: socket.socket) -> bool:
    """Read all that comes; whether the end is a reset."""
    try:
        while s.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False


def connected(net: Network, address: str, port: int = 443) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection that goes past the filter."""
    ours = net.client.connect(address, port)
    assert first_line(ours).startswith("origin ")
    own = ours.getsockname()[1]
    theirs = (s for s in reversed(net.speakers["origin"].connections) if s.fileno() >= 0)
    return ours, next(s for s in theirs if s.getpeername()[1] == own)


@families
@pytest.mark.parametrize("to", [443, 53])
def test_a_port_of_several_destinations_is_found(net: Network, f: Family, to: int) -> None:
    """Redirected to one port here, the second is to come from another port than the first."""
    net.up()
    net.add(f.of("steer"), f.origin, f.other)
    conntrack = net.gateway.do(Conntrack)
    before, port = len(net.speakers["filter"].connections), 0
    with ExitStack() as stack:
        stack.callback(conntrack.close)
        for address in (f.origin, f.other):
            s = stack.enter_context(net.client.make(f.family, socket.SOCK_STREAM))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((f.client, port))
            port = s.getsockname()[1]
            s.connect((address, to))
            assert first_line(s).startswith(f"filter {f.client} ")
        came = net.speakers["filter"].connections[before:]
        seen = [s.getpeername()[1] for s in came]
        assert seen[0] == port
        assert (seen[1] == port) == (net.keeps and to == 443), "not translated"
        for s in came:
            assert conntrack.port(socket.IPPROTO_TCP, s.getsockname(), s.getpeername()) == port
        assert conntrack.port(socket.IPPROTO_TCP, ("", 0), (f.client, 7)) == 7
        assert conntrack.port(socket.IPPROTO_TCP, (f.lan, 8080), (f.client, 7)) == 7, "nothing is known of it"


@families
def test_cut_ends_what_is_older(net: Network, f: Family) -> None:
    net.up(exempt=(f.exempt,))
    download, _ = connected(net, f.origin)
    download.sendall(b"flood")
    silent, at_origin = connected(net, f.origin)
    pushed, pusher = connected(net, f.origin)
    given_up, at_other_end = connected(net, f.origin)
    unfiltered, _ = connected(net, f.origin, 8443)
    other, _ = connected(net, f.other)
    quic = net.client.udp(f.origin, 443)
    assert exchange(quic)[0] == "origin"
    exempt = net.client.connect(f.origin, 443, f.exempt)
    try:
        first_line(exempt)
        download.recv(1000)
        net.add(f.of("steer"), f.origin)
        assert echo(silent), "steering alone ends nothing"
        net.cut(f.of("cut"), f.origin, f.other)

        assert read_to_end(download)
        # Each is told when it says something.
        with pytest.raises(ConnectionResetError):
            echo(silent)
        with suppress(OSError):  # it may have sent its last answer again, for want of an acknowledgement
            at_origin.send(b"late")
        wait_for(lambda: is_reset(at_origin), "the origin to know")
        # An origin that speaks first: nothing of it arrives, and both are told.
        pusher.send(b"secret")
        with pytest.raises(ConnectionResetError):
            pushed.recv(10)
        wait_for(lambda: is_reset(pusher), "the origin to know")
        with pytest.raises(ConnectionRefusedError):
            exchange(quic)
        # A client that ends by itself is heard.
        given_up.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        given_up.close()
        wait_for(lambda: is_reset(at_other_end), "the origin to know")
        for s in (unfiltered, other, exempt):
            assert echo(s)
        assert net.says(f.origin).startswith("filter ")
    finally:
        for s in (download, silent, pushed, given_up, unfiltered, other, quic, exempt):
            s.close()


def is_reset(s: socket.socket) -> bool:
    return s.fileno() < 0 or s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


@families
def test_cut_ends_nothing_while_no_worker_lives(net: Network, f: Family) -> None:
    net.up(alive=False)
    ours, _ = connected(net, f.origin)
    with ours:
        net.add(f.of("steer"), f.origin)
        net.cut(f.of("cut"), f.origin)
        assert echo(ours)
        net.live()
        with pytest.raises(ConnectionResetError):
            echo(ours)


@families
def test_connections_to_what_is_listed_itself_end(net: Network, f: Family) -> None:
    net.up()
    ours, _ = connected(net, f.origin)
    with ours:
        net.nft.run(f"add element inet urlward {f.of('listed')} {{ {f.origin} }}")
        assert echo(ours), "not where nothing is to be cut"
        net.cut("cut_listed", "6", "17")
        with pytest.raises(ConnectionResetError):
            echo(ours)


@families
def test_connections_that_the_kernel_has_forgotten(net: Network, f: Family) -> None:
    net.up()
    ours, theirs = connected(net, f.origin)
    other, _ = connected(net, f.other)
    with ours, other:
        net.add(f.of("steer"), f.origin)
        net.forget()
        theirs.send(b"secret")
        with pytest.raises(ConnectionResetError):
            echo(ours)
        assert echo(other)


def stray(s: socket.socket, f: Family) -> bytes:
    """A segment of a connection that no window has room for, and that acknowledges what has come."""
    tcp, repair, queue, sequence = socket.IPPROTO_TCP, 19, 20, 21  # tcp(7) has no names for these
    s.setsockopt(tcp, repair, 1)
    numbers = []
    for which in (2, 1):
        s.setsockopt(tcp, queue, which)
        numbers.append(s.getsockopt(tcp, sequence) & 0xFFFFFFFF)
    s.setsockopt(tcp, repair, -1)
    (own, port), (peer, to) = s.getsockname()[:2], s.getpeername()[:2]
    beyond = (numbers[0] + (1 << 30)) & 0xFFFFFFFF
    segment = struct.pack("!HHIIBBHHH4s", port, to, beyond, numbers[1], 5 << 4, 0x10, 502, 0, 0, b"late")
    family = socket.AF_INET6 if f.version == 6 else socket.AF_INET
    ends = b"".join(socket.inet_pton(family, end) for end in (own, peer))
    words = struct.iter_unpack("!H", ends + struct.pack("!HH", tcp, len(segment)) + segment)
    total = sum(word for (word,) in words)
    total = (total & 0xFFFF) + (total >> 16)
    return segment[:16] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + segment[18:]


@pytest.fixture
def liberal(net: Network) -> Iterator[None]:
    net.gateway.sysctl(LIBERAL, "1")
    try:
        yield
    finally:
        net.gateway.sysctl(LIBERAL, "0")


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with others"])
@families
def test_a_segment_that_the_kernel_takes_for_none_ends_no_filtered_connection(
    net: Network, f: Family, request: pytest.FixtureRequest, *, shared: bool
) -> None:
    """It is not translated, and looks like one of a connection that goes past the filter."""
    if shared:
        request.getfixturevalue("liberal")
    net.up(shared=shared)
    net.add(f.of("steer"), f.origin)
    family = socket.AF_INET6 if f.version == 6 else socket.AF_INET
    raw = net.client.do(socket.socket, family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with net.client.connect(f.origin, 443) as ours, raw:
        assert first_line(ours).startswith("filter ")
        raw.sendto(stray(ours, f), (f.origin, 0))
        assert echo(ours)
        assert echo(ours)


@contextmanager
def back_by_another_way(net: Network) -> Iterator[None]:
    """Have what origins answer come to the client past the gateway."""
    world, client = net.world.name, net.client.name
    mac = "02:00:00:00:00:01"
    for arguments in (
        f"-n {world} link add back0 type veth peer name back0 address {mac} netns {client}",
        f"-n {client} link set back0 up",
        f"-n {world} link set back0 up",
        *(f"-n {world} neigh add {f.client} lladdr {mac} dev back0 nud permanent" for f in (IPV4, IPV6)),
        *(f"-n {world} -{f.version} route add {f.client} dev back0" for f in (IPV4, IPV6)),
    ):
        subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)
    for name in ("all", "back0"):
        net.client.sysctl(f"net.ipv4.conf.{name}.rp_filter", "0")
    try:
        yield
    finally:
        subprocess.run(["ip", "-n", world, "link", "del", "back0"], check=True, capture_output=True)


@pytest.mark.parametrize("is_liberal", [False, True], ids=["strict", "liberal"])
@families
def test_a_connection_whose_answers_come_by_another_way_ends(
    net: Network, f: Family, request: pytest.FixtureRequest, *, is_liberal: bool
) -> None:
    """The kernel takes it for no connection, and it would hang: neither led to the filter nor let through."""
    if is_liberal:
        request.getfixturevalue("liberal")
    net.up(shared=True)
    with back_by_another_way(net):
        ours, _ = connected(net, f.origin)
        with ours:
            assert echo(ours)
            net.add(f.of("steer"), f.origin)
            with pytest.raises(ConnectionResetError):
                echo(ours)
        assert net.says(f.origin).startswith("filter ")


@families
def test_a_connection_that_has_missed_its_redirection_comes_again(net: Network, f: Family) -> None:
    net.up(alive=False)
    # Judged by the rules for new connections while nobody lives, and then by those for what passes.
    net.nft.run("insert rule inet urlward forward add @alive { meta l4proto timeout 60s }")
    net.nft.run(f"add element inet urlward {f.of('steer')} {{ {f.origin} timeout 60s }}")
    assert net.says(f.origin) == f"filter {f.client} {f.origin} 443", "with the second SYN"


# -- the rules as a whole


def ruleset(net: Network) -> str:
    return "\n".join(sorted(map(str, strip_handles(net.nft.json("list ruleset")))))


@pytest.mark.parametrize(
    ("prefix", "there"), [("64:ff9b::/96", "64:ff9b::cb00:710a"), ("fd64::/48", "fd64:0:0:cb00:71:a00::")]
)
def test_the_kernel_notes_who_uses_nat64(net: Network, prefix: str, there: str) -> None:
    """The first packet is lost, and comes again when workers know; none is lost while there are none."""
    subprocess.run(
        ["ip", "-n", net.world.name, "-6", "route", "replace", "local", prefix, "dev", "lo"], check=True
    )
    net.up(alive=False, nat64=[prefix, "2001:db8:64::/96"])
    assert net.says(there).startswith("origin ")
    assert elements(net, "nat64") == []
    net.live()
    with pytest.raises(TimeoutError):
        net.client.connect(there, 443, patience=0.3)
    assert elements(net, "nat64") == ["tcp"]
    assert net.says(there).startswith("origin ")
    net.add("steer6", there)
    assert net.says(there).startswith("filter ")


def strip_handles(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: strip_handles(v) for k, v in value.items() if k not in ("handle", "expires")}
    return [strip_handles(one) for one in value] if isinstance(value, list) else value


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "all": {"steer": False},
    "steer": {"clients": ("192.0.2.0/26",), "never": ("198.51.100.0/24", "198.51.100.7")},
    "strict": {
        "interfaces": ("lan0", "wg*"),
        "exempt": ("192.0.2.9", "2001:db8:1::9"),
        "steered": "intercept",
        "fail": "closed",
        "ports": (443, 80, 8443),
        "dns": {"page_addresses": ("192.0.2.62",)},
    },
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_twice_is_as_once(net: Network, name: str) -> None:
    plan = net.up(alive=False, **CONFIGURATIONS[name])
    once = ruleset(net)
    net.nft.run(rules(plan, net.nft.json("list table inet urlward")))
    assert ruleset(net) == once
    # Many save a firewall so, all of it; what nft cannot read would keep the whole from being loaded at boot.
    list_all = (*net.gateway.prefix, "nft", "list", "ruleset")
    saved = subprocess.run(list_all, check=True, capture_output=True, text=True).stdout
    net.down()
    net.nft.run(saved)
    assert ruleset(net) == once


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_from_any_other_configuration(net: Network, name: str) -> None:
    plan = net.up(alive=False, **CONFIGURATIONS[name])
    fresh = ruleset(net)
    for other in CONFIGURATIONS.values():
        net.up(alive=False, max_addresses=7, **other)
        net.nft.run(rules(plan, net.nft.json("list table inet urlward")))
        assert ruleset(net) == fresh


def elements(net: Network, name: str) -> list[str]:
    listed = net.nft.json(f"list set inet urlward {name}")[0]["set"].get("elem", [])
    return sorted(
        str(one["elem"]["val"] if isinstance(one, dict) and "elem" in one else one) for one in listed
    )


def test_a_changed_configuration_keeps_what_workers_have_put_in(net: Network) -> None:
    net.up()
    net.add("steer4", "203.0.113.1", "203.0.113.2")
    net.add("steer4", "203.0.113.3", seconds=60)
    net.add("cut6", IPV6.origin)
    net.nft.run("add element inet urlward listed4 { 198.51.100.0/25, 198.51.100.200-198.51.100.202 }")
    kept = {
        "steer4": ["203.0.113.1", "203.0.113.2", "203.0.113.3"],
        "cut6": [IPV6.origin],
        "alive": ["tcp", "udp"],
        "listed4": elements(net, "listed4"),
    }
    for values in ({"fail": "closed"}, {"max_addresses": 100}, {"ports": (443,), "exempt": (IPV4.exempt,)}):
        net.nft.run(rules(net.plan(**values), net.nft.json("list table inet urlward")))
        assert {name: elements(net, name) for name in kept} == kept
    left = net.nft.json("list set inet urlward steer4")[0]["set"]["elem"]
    assert all(one["elem"]["expires"] > 500 for one in left if one["elem"]["val"] != "203.0.113.3")
    net.nft.run(rules(net.plan(max_addresses=2), net.nft.json("list table inet urlward")))
    assert elements(net, "steer4") == kept["steer4"][:2], "those that would have stayed longest"


def test_nothing_else_is_touched(net: Network) -> None:
    net.nft.run(FOREIGN)
    try:
        before = ruleset(net)
        plan = net.up()
        assert "urlward" in ruleset(net)
        net.nft.run(rules(plan))
        net.down()
        assert ruleset(net) == before
    finally:
        net.nft.run("delete table inet other; delete table ip urlward")


FOREIGN = """\
table inet other {
    set steer4 { type ipv4_addr; elements = { 192.0.2.7 }; }
    chain prerouting { type nat hook prerouting priority dstnat; tcp dport 22 redirect to :2222; }
    chain forward { type filter hook forward priority filter; ip saddr @steer4 counter drop; }
}
table ip urlward {
    chain forward { type filter hook forward priority filter; }
}
"""


def test_a_script_that_fails_changes_nothing(net: Network) -> None:
    net.up()
    net.add("steer4", IPV4.origin)
    before = ruleset(net)
    with pytest.raises(NftError):
        net.nft.run(rules(net.plan(fail="closed")) + "\nadd rule inet urlward nowhere accept\n")
    net.nft.check(rules(net.plan(fail="closed")))
    assert ruleset(net) == before


@families
def test_connections_that_were_led_to_the_filter_end_with_the_rules(net: Network, f: Family) -> None:
    """A download would hang: nothing translates the addresses of what the filter sends any more."""
    net.up()
    net.add(f.of("steer"), f.origin)
    with (
        net.client.connect(f.origin, 443) as download,
        net.client.connect(f.origin, 443) as idle,
        net.client.connect(f.other, 443) as another,
        net.client.connect(f.lan, 443) as own,
    ):
        for s in (download, idle):
            assert first_line(s).startswith("filter ")
        assert first_line(another).startswith("origin ")
        assert first_line(own).startswith("own ")
        download.send(b"flood")
        assert download.recv(1000)
        net.gateway.do(control.down, net.nft)
        for s in (download, idle):
            with pytest.raises(ConnectionResetError):
                received(s, 1 << 40)
        for unconcerned in (another, own):
            unconcerned.send(b"x")
            assert unconcerned.recv(10) == b"x"


CLOSED = """\
table inet fw {
    chain in {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
        meta l4proto ipv6-icmp accept
    }
}
"""


@families
def test_a_firewall_that_closes_the_filter_s_ports_and_what_it_lacks(net: Network, f: Family) -> None:
    plan = net.up()
    net.add(f.of("steer"), f.origin)
    net.nft.run(CLOSED)

    def said() -> list[str]:
        return closed(control.all_rules(net.nft), setup_of(plan), ("lan0",), (80, 443), (4, 6), {})

    try:
        with pytest.raises(TimeoutError):
            net.client.connect(f.origin, 443, patience=1.0)
        (line,) = said()
        for command in line.partition("clients hang: ")[2].split("; "):
            net.nft.run(command.removeprefix("nft "))
        assert said() == []
        assert net.says(f.origin) == f"filter {f.client} {f.origin} 443"
        assert ask(net, f.resolver, 53) == "filter"
    finally:
        net.nft.run("delete table inet fw")


@families
def test_a_firewall_that_looks_for_the_way_back_by_the_mark(net: Network, f: Family) -> None:
    """As firewalld does for IPv6, before any chain at input."""
    plan = net.up(keep_source=True)
    net.add(f.of("steer"), f.origin)
    net.nft.run(
        "table inet fw { chain pre { type filter hook prerouting priority filter + 10; policy accept; "
        "fib saddr . mark . iif oif missing drop; }; }"
    )

    def said() -> list[str]:
        return closed(control.all_rules(net.nft), setup_of(plan), ("lan0",), (80, 443), (4, 6), {})

    try:
        with pytest.raises(TimeoutError):
            net.client.connect(f.origin, 443, patience=1.0)
        (line,) = said()
        net.nft.run(line.partition("clients hang: nft ")[2])
        assert said() == []
        assert net.says(f.origin) == f"filter {f.client} {f.origin} 443"
    finally:
        net.nft.run("delete table inet fw")


@families
@pytest.mark.parametrize(
    "others",
    [
        "chain pre { type filter hook prerouting priority mangle; meta mark set 0x1; };",
        "chain pre { type filter hook prerouting priority mangle; meta mark set ct mark; "
        "meta mark and 0xff == 0 meta mark set meta mark or 0x1; ct mark set meta mark; }; "
        "chain out { type route hook output priority mangle; meta mark set ct mark; };",
    ],
    ids=["set", "restored"],
)
def test_marks_of_others_lead_nothing_past_the_filter(net: Network, f: Family, others: str) -> None:
    """Such as those of several uplinks, which write all bits."""
    canary = "192.0.2.252" if f is IPV4 else "2001:db8:ca::1"
    net.up(keep_source=True, canary={"addresses": (canary,)})
    net.add(f.of("steer"), f.origin, canary)
    net.nft.run(f"table inet fw {{ {others} }}")
    try:
        for who, where in ((net.client, f.origin), (net.gateway, canary)):
            with who.connect(where, 443) as s:
                assert first_line(s).startswith("filter ")
                s.send(b"more")
                assert s.recv(9) == b"more"
    finally:
        net.nft.run("delete table inet fw")


@families
def test_what_ends_with_the_rules_is_what_came_by_them(net: Network, f: Family) -> None:
    """No more, where this machine serves a whole network (AnyIP); no less, where it is meant itself."""
    anycast, own = (
        ("203.0.113.128/25", "203.0.113.130") if f.version == 4 else ("2001:db8:f:1::/64", "2001:db8:f:1::1")
    )
    route = ["ip", "-n", net.gateway.name, f"-{f.version}", "route"]
    subprocess.run([*route, "add", "local", anycast, "dev", "lo"], check=True)
    net.up(dns={"page_addresses": (f.wan,)})
    net.add(f.of("steer"), f.wan)
    try:
        with net.client.connect(own, 443) as served, net.client.connect(f.wan, 443) as page:
            assert first_line(served) == f"own {f.client} {own} 443"
            assert first_line(page) == f"filter {f.client} {f.wan} 443"
            net.gateway.do(control.down, net.nft)
            with pytest.raises(ConnectionResetError):
                received(page, 1)
            served.send(b"x")
            assert served.recv(10) == b"x"
    finally:
        subprocess.run([*route, "del", "local", anycast, "dev", "lo"], check=True)


@pytest.mark.parametrize("running", ["kept"], indirect=True)  # otherwise nothing is routed by a mark
@families
@pytest.mark.parametrize(
    "others",
    [
        ("iif lan0 lookup 100",),
        ("not fwmark 0xca6c lookup 100", "table main suppress_prefixlength 0"),  # as wg-quick adds them
    ],
)
def test_a_rule_of_routing_that_comes_first_comes_behind(
    net: Network, f: Family, others: tuple[str, ...]
) -> None:
    """As a tunnel's that begins later, without a preference."""
    ip = ["ip", "-n", net.gateway.name, f"-{f.version}"]

    def change(how: str) -> None:
        for rule in others:
            subprocess.run([*ip, "rule", how, *rule.split()], check=True, capture_output=True)

    net.up()
    net.add(f.of("steer"), f.origin)
    subprocess.run([*ip, "route", "add", "default", "dev", "nbr0", "table", "100"], check=True)
    change("add")
    watch = net.gateway.do(RulesWatch, ("lan0",), print)
    try:
        with pytest.raises(OSError, match=r"timed out|unreachable|route"):
            net.client.connect(f.origin, 443, patience=1.0)
        net.gateway.do(watch.start)
        wait_for(lambda: watch.facts.restored, "the watch")
        assert net.says(f.origin) == f"filter {f.client} {f.origin} 443"
        before = watch.facts.restored
        change("del")
        change("add")
        wait_for(lambda: watch.facts.restored > before, "the watch")
        assert net.says(f.origin) == f"filter {f.client} {f.origin} 443"
    finally:
        watch.close()
        change("del")
        subprocess.run([*ip, "route", "flush", "table", "100"], check=True)


@families
@pytest.mark.parametrize("mss", [None, 1000])
def test_the_filters_own_connections_take_a_clamp(net: Network, f: Family, mss: int | None) -> None:
    """With clients and with origins, in both directions, over paths that drop long packets without a word."""
    net.up(mss=mss)
    net.add(f.of("steer"), f.origin)
    for space, link in (
        (net.client, "eth0"),
        (net.gateway, "lan0"),
        (net.gateway, "wan0"),
        (net.world, "eth0"),
    ):
        # What is not in segments yet would be dropped too.
        command = ["ip", "-n", space.name, "link", "set", link, "gso_max_segs", "1"]
        subprocess.run(command, check=True, capture_output=True)
    drop = "meta length > 1100 drop"
    net.nft.run(
        "table inet path {\n"
        f"chain in {{\n type filter hook prerouting priority -400;\n {drop}\n}}\n"
        f"chain out {{\n type filter hook postrouting priority 400;\n {drop}\n}}\n}}"
    )
    try:
        with net.client.connect(f.origin, 443) as client, net.gateway.connect(f.other, 443) as origin:
            assert first_line(client).startswith("filter ")
            assert first_line(origin).startswith("origin ")
            for s in (client, origin):
                s.settimeout(PATIENCE if mss else 1.0)
                s.sendall(bytes(5000))
                if mss:
                    assert received(s, 5000) == 5000
                else:
                    with pytest.raises(TimeoutError):
                        received(s, 5000)
    finally:
        net.nft.run("delete table inet path")


def received(s: socket.socket, size: int) -> int:
    """How many bytes come until there are so many."""
    found = 0
    while found < size:
        found += len(s.recv(min(size - found, 1 << 20))) or size
    return found
