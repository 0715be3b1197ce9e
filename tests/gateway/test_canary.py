"""The canary: what it makes of the rules, of failures, and of a worker that nothing reaches."""

import errno
import os
import socket
import subprocess
from copy import deepcopy
from ipaddress import ip_address
from typing import Any

import dns.message
import dns.rcode
import pytest

from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from urlward.config import CanaryTable, GatewayTable
from urlward.gateway import canary as canary_
from urlward.gateway import control
from urlward.gateway.canary import (
    ASTRAY,
    FAILURES,
    NAMES_APART,
    SHORT_FOR,
    UNREACHED,
    WAY,
    BrokenError,
    Canary,
    NoRouteError,
    _socket,
    _way,
)
from urlward.gateway.nft import Nft
from urlward.gateway.rules import RulesPlan
from urlward.gateway.table import NoTableError
from urlward.proxy import notify
from urlward.proxy.guard import CanaryMark

CONNTRACK = "net.netfilter.nf_conntrack_"
TABLE = GatewayTable(interfaces=("lan0", "wg*"), steer=True)


def listed(gateway: GatewayTable, *chains: str) -> list[dict[str, Any]]:
    """Chains as the kernel has them."""
    if not may_make_namespaces():
        pytest.skip("needs root, ip and nft")
    with own_network():
        nft = Nft()
        control.up(nft, RulesPlan(gateway, 8080))
        found = [one for name in chains for one in nft.json(f"list chain inet urlward {name}")]
        nft.close()
    return found


@pytest.fixture(scope="module")
def listing() -> list[dict[str, Any]]:
    return listed(TABLE, *WAY)


@pytest.mark.parametrize("keeps", [False, True])
def test_the_way_of_clients_is_looked_at(keeps: bool) -> None:
    table = TABLE.model_copy(update={"keep_source": keeps})
    listing = listed(table, *WAY, *(NAMES_APART if keeps else ()))
    assert list(map(str, _way(listing, table, steers=True))) == list(TABLE.canary.addresses)
    apart = "rules: clients' connections do not come to the filter"
    for chain, said in (
        ("prerouting", "rules: nothing leads here from lan0"),
        ("from_clients", "rules: clients' connections do not come to the filter"),
        ("output", "rules: they do not know the canary"),
        *((chain, apart) for chain in NAMES_APART if keeps),
    ):
        flushed = [one for one in listing if one.get("rule", {}).get("chain") != chain]
        with pytest.raises(BrokenError, match=said):
            _way(flushed, table, steers=True)
    for chain in ("prerouting", *NAMES_APART[: int(keeps)]):
        unhooked = deepcopy(listing)
        for one in unhooked:
            if one.get("chain", {}).get("name") == chain:
                one["chain"].pop("hook", None)
        with pytest.raises(BrokenError, match="do not come to the filter"):
            _way(unhooked, table, steers=True)


class Kernel:
    """In place of `SteerSet`."""

    def __init__(self, listing: list[dict[str, Any]]) -> None:
        self.listing = listing
        self.fault: Exception | None = None
        self.told: list[str] = []
        self.full = False

    async def is_full(self) -> bool:
        return self.full

    async def chains(self, *names: str) -> list[dict[str, Any]]:
        assert names == WAY
        if self.fault is not None:
            raise self.fault
        return self.listing

    async def tell_canary(self, worker: int, why: str, seconds: int) -> None:
        self.told.append(why)


class Rig:
    """A canary whose way is played."""

    def __init__(self, listing: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel, self.mark, self.now, self.said = Kernel(listing), CanaryMark(), 0.0, list[str]()
        self.faults: dict[int, Exception] = {}
        self.down = False
        self.canary = Canary(
            TABLE, self.kernel, self.mark, 1, self.said.append,
            steers=True, down=lambda: self.down, clock=lambda: self.now,
        )  # fmt: skip

        async def send(address: Any) -> None:
            if address.version in self.faults:
                raise self.faults[address.version]

        monkeypatch.setattr(self.canary, "_send", send)
        monkeypatch.setattr(notify, "_withheld", {})


@pytest.fixture
def rig(listing: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(listing, monkeypatch)


async def test_clients_connections_that_go_astray_are_said_while_the_canary_itself_comes_through(
    rig: Rig,
) -> None:
    rig.mark.astray = ASTRAY - 1
    for _ in range(FAILURES):
        await rig.canary.send()
    assert rig.kernel.told[-1] == "ok"
    rig.mark.astray = ASTRAY
    for _ in range(FAILURES):
        await rig.canary.send()
    assert rig.kernel.told[-1].startswith("redirect: the kernel does not tell where clients'")
    assert notify.withheld() == "", "another start would not help"
    rig.mark.astray = 0
    await rig.canary.send()
    assert rig.kernel.told[-1] == "ok"


async def test_several_failures_in_a_row_are_said(rig: Rig) -> None:
    rig.faults[6] = NoRouteError()
    await rig.canary.send()
    assert (rig.said, rig.kernel.told) == ([""], ["ok"])
    for _ in range(3):
        rig.faults[4] = BrokenError("redirect", "no answer")
        for _ in range(FAILURES - 1):
            await rig.canary.send()
        del rig.faults[4]
        await rig.canary.send()
    assert set(rig.said) == {""}, "none of them in a row"
    rig.faults[6] = BrokenError("DNS", "no answer", late=True)
    for _ in range(FAILURES):
        await rig.canary.send()
    assert (rig.said[-1], notify.withheld()) == ("DNS: no answer", ""), "a busy filter is not ended"
    rig.faults[6] = BrokenError("DNS", "connection refused")
    for _ in range(FAILURES):
        await rig.canary.send()
    assert (rig.said[-1], rig.kernel.told[-1]) == ("DNS: connection refused",) * 2
    assert notify.withheld() == "canary: DNS: connection refused"
    del rig.faults[6]
    await rig.canary.send()
    assert (rig.said[-1], rig.kernel.told[-1], notify.withheld()) == ("", "ok", "")


async def test_a_process_whose_sockets_clients_have_is_not_ended(rig: Rig) -> None:
    await rig.canary.send()
    rig.faults[4] = BrokenError("socket", "too many open files", short=True)
    for _ in range(FAILURES):
        rig.now += UNREACHED
        await rig.canary.send()
    assert (rig.said[-1], rig.kernel.told[-1]) == ("socket: too many open files",) * 2
    assert notify.withheld() == ""
    fault = rig.faults.pop(4)
    await rig.canary.send()
    assert rig.said[-1] == "", "nor is it minded what has not come to it meanwhile"
    rig.faults[4] = fault
    for _ in range(FAILURES):
        await rig.canary.send()
    rig.now += SHORT_FOR
    await rig.canary.send()
    assert notify.withheld() == "canary: socket: too many open files", "perhaps it is not clients"


async def test_rules_that_are_down_on_purpose_are_no_failure(rig: Rig) -> None:
    await rig.canary.send()
    rig.kernel.fault = NoTableError("nftables: no such table")
    for _ in range(FAILURES):
        await rig.canary.send()
    assert notify.withheld()
    rig.down, rig.mark.astray = True, ASTRAY
    for _ in range(FAILURES):
        rig.now += UNREACHED
        await rig.canary.send()
    assert (rig.said[-1], rig.canary.why, notify.withheld()) == ("", "", "")
    rig.down, rig.kernel.fault = False, None
    await rig.canary.send()
    assert rig.said[-1] == "", "nothing has come to this worker while they were down"
    assert rig.mark.astray == 0, "the kernel may have tracked nothing meanwhile"


async def test_what_has_never_come_through_is_no_reason_to_start_anew(rig: Rig) -> None:
    rig.kernel.fault = NoTableError("nftables: no such table")
    for _ in range(FAILURES):
        await rig.canary.send()
    assert rig.said == ["rules: nftables: no such table"]
    assert rig.kernel.told == ["rules: nftables: no such table"], "and nothing before"
    assert notify.withheld() == ""


async def test_a_worker_that_nothing_reaches(rig: Rig) -> None:
    await rig.canary.send()
    for reaches, missed in (
        (rig.canary.answered, "listener"),
        (lambda: setattr(rig.mark, "came", rig.now), "DNS"),
    ):
        rig.now += UNREACHED / 2 + 1
        rig.canary.answered()
        rig.mark.came = rig.now
        rig.now += UNREACHED + 1
        reaches()
        for _ in range(FAILURES):
            await rig.canary.send()
        assert rig.said[-1] == f"{missed}: nothing has come to this worker for 61 s"


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
@pytest.mark.parametrize("count", ["262144", "3"])
async def test_a_kernel_that_sends_nothing(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the table of connections is full: a start anew would end those that there are."""
    monkeypatch.setattr(canary_, "sysctl", {f"{CONNTRACK}count": count, f"{CONNTRACK}max": "262144"}.get)
    mark = CanaryMark()
    canary = Canary(TABLE, Kernel([]), mark, 1, print, steers=True, clock=lambda: 7.0)
    canary.asked = mark.came = 0.0
    with own_network():
        rules = "table inet fw {\nchain out { type filter hook output priority 0; policy drop; }\n}\n"
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        with pytest.raises(BrokenError) as caught:
            await canary._send(ip_address("192.0.2.252"))
    assert caught.value.late
    full = "the kernel tracks 262144 connections and drops all new ones (nf_conntrack_max)"
    assert str(caught.value) == f"DNS: {full if count == '262144' else 'operation not permitted'}"
    assert canary.asked == mark.came == 7.0, "nor is it minded what has not come to it meanwhile"


@pytest.mark.parametrize("full", [False, True])
async def test_a_full_set_is_no_reason_to_start_anew(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays so, and what is open would end."""

    async def refused(s: socket.socket, to: object, data: bytes) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(data))
        response.set_rcode(dns.rcode.SERVFAIL)
        return response.to_wire()

    monkeypatch.setattr(canary_, "_exchange", refused)
    kernel = Kernel([])
    kernel.full = full
    clock = iter((1.0, 100.0))
    canary = Canary(TABLE, kernel, CanaryMark(), 1, print, steers=True, clock=lambda: next(clock))
    with pytest.raises(BrokenError, match="steered addresses: not taken") as caught:
        await canary._send(ip_address("192.0.2.252"))
    assert caught.value.late is full
    assert canary.asked == (100.0 if full else 1.0), "nobody's comes to this worker meanwhile"


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_no_lack_of_a_route_is_a_failure(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address = ip_address("192.0.2.252" if version == 4 else "2001:db8::252")

    def refuse(code: int) -> None:
        def refused(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(canary_.socket, "socket", refused)

    for code, short in (
        (errno.EMFILE, True),
        (errno.ENFILE, True),
        (errno.ENOBUFS, True),
        (errno.EPERM, False),
        (errno.EACCES, False),
    ):
        refuse(code)
        with pytest.raises(BrokenError, match="socket: ") as caught:
            _socket(address, socket.SOCK_DGRAM)
        assert caught.value.short is short
    refuse(errno.EAFNOSUPPORT)
    with pytest.raises(NoRouteError):
        _socket(address, socket.SOCK_DGRAM)


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_routes_that_lead_nowhere_are_none() -> None:
    """Providers close the documentation's networks to everybody; IPv4 needs no route at all."""
    with own_network():
        for line in (
            "link add lan0 type veth peer name lan9",
            "link set lan0 up",
            "link set lan9 up",
            "addr add 198.51.100.1/24 dev lan0",
            "addr add 2001:db8:9::1/64 dev lan0 nodad",
            "route add default via 198.51.100.2",
            "-6 route add default via 2001:db8:9::2",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        four, six = ip_address("192.0.2.252"), ip_address("2001:db8:ffff:ffff::252")
        _socket(six, socket.SOCK_STREAM).close()
        for kind in ("blackhole", "prohibit", "unreachable"):
            for network in ("192.0.2.0/24", "2001:db8:ffff::/48"):
                subprocess.run(["ip", "route", "replace", kind, network], check=True)
            with pytest.raises(NoRouteError):
                _socket(six, socket.SOCK_STREAM)
            with _socket(four, socket.SOCK_DGRAM) as s:
                s.connect((str(four), 53))


def test_none_is_sent_where_the_configuration_has_no_address() -> None:
    gateway = GatewayTable(canary=CanaryTable(addresses=()))
    assert canary_.canary_of(gateway, Kernel([]), print, steers=True) is None
    with pytest.raises(ValueError, match="one address of each family"):
        CanaryTable(addresses=("192.0.2.1", "192.0.2.2"))
