"""System facts of this machine: addresses, interfaces, kernel settings; and locks of its network namespace:
one filter steers in it, since two would silently undo each other's work, and one process at a time reads the
kernel's state and changes it.
"""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from urlward.engine.errors import UrlwardError
from urlward.gateway.netlink import Link, addresses, links, routed_by, routed_to

_PROC = Path("/proc")
_THREAD = _PROC / "thread-self"
"""Its network namespace is the one of the thread that looks."""

_WITH_MARKS = {
    "net.ipv4.conf.all.src_valid_mark": "origins' packets for the filter count as martians",
    "net.ipv4.tcp_fwmark_accept": "the filter's answers to clients do not leave this machine",
}
"""Settings with which marked packets are not to be delivered, and why."""

_LEGACY = {"iptables": "ip_tables_names", "ip6tables": "ip6_tables_names"}
"""Files that name tables, which root alone may read."""

FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}

NAME = "\0urlward-steer"
"""A Unix socket outside the file system, whose names a network namespace has for itself (`unix(7)`)."""


def own_addresses() -> frozenset[IPv4Address | IPv6Address]:
    """All unicast addresses of this machine, in this thread's network namespace; none where the kernel does
    not say, since each has one to itself (``lo``)."""
    try:
        return frozenset(address for _, address in addresses())
    except OSError:
        return frozenset()


def has_ipv6(process: Path = _THREAD) -> bool:
    """Whether the kernel supports IPv6 at all."""
    return (process / "net/if_inet6").exists()


def sysctl(name: str, proc: Path = _PROC) -> str | None:
    """A kernel setting, such as ``net.ipv4.ip_forward``; None where there is none of that name."""
    lines = _lines(proc.joinpath("sys", *name.split(".")))
    return lines[0].strip() if lines else None


LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal"
"""Setting by which the kernel looks at no windows: a segment beyond one is still its connection's."""


def unmet(
    families: Iterable[int], proc: Path = _PROC, *, marks: bool = False, shared: bool = False
) -> Iterator[str]:
    """Kernel settings that keep traffic from being routed and filtered, a line each.

    Args:
        families: 4, 6 or both.
        proc: where the kernel's files are.
        marks: whether marked packets are to be delivered here.
        shared: whether answers may come back by another gateway, so that what is of no connection is reset.
    """
    for family in families:
        name = FORWARDING[family]
        if sysctl(name, proc) == "0":
            yield f"{name} is 0, so no IPv{family} traffic is routed: sysctl -w {name}=1"
    if 6 in families and sysctl("net.ipv6.conf.all.disable_ipv6", proc) == "1":
        yield "IPv6 is off in this kernel (net.ipv6.conf.all.disable_ipv6 is 1): IPv4 alone is filtered"
    if sysctl("net.netfilter.nf_conntrack_max", proc) is None:
        yield "this kernel does not track connections: modprobe nf_conntrack"
    for name, why in _WITH_MARKS.items() if marks else ():
        if sysctl(name, proc) == "1":
            yield f"{name} is 1, so {why} (keep_source): sysctl -w {name}=0"
    if shared and sysctl(LIBERAL, proc) == "0":
        yield f"{LIBERAL} is 0, so a packet beyond its window ends its connection: sysctl -w {LIBERAL}=1"


def unseen_rules(proc: Path = _PROC) -> list[str]:
    """Rules of others that nftables does not show, a line for each family; none where this is not root."""
    found = ((program, _lines(proc / "thread-self/net" / name)) for program, name in _LEGACY.items())
    return [
        f"{program}-legacy has rules ({', '.join(sorted(tables))}): whether they let clients in, and on, is "
        "not looked at"
        for program, tables in found
        if tables
    ]


def missing_interfaces(names: Iterable[str], *, whatever: bool = False) -> list[str]:
    """Interfaces that this machine does not have, or not yet.

    Args:
        names: wanted; of those that come and go (``ppp*``) there may be none.
        whatever: whether these count all the same.
    """
    present = [name for _, name in socket.if_nameindex()]
    missing = (name for name in names if not any(_fits(one, name) for one in present))
    return [name for name in missing if whatever or not name.endswith("*")]


type Links = Mapping[int, Link]
"""Interfaces by index; where a function is given none, it looks."""


def enslaved_interfaces(names: Iterable[str], present: Links | None = None) -> dict[str, str]:
    """Ports of a bridge, a bond or the like, with its name, by which their packets come in.

    One whose master is among the names is left out: there its packets are met.
    """
    wanted = tuple(names)
    return {
        link.name: top.name
        for link, top in _tops(wanted, present)
        if top != link and top.kind != _VRF and not _is_wanted(top, wanted)
    }


def vrf_interfaces(names: Iterable[str], present: Links | None = None) -> dict[str, str]:
    """Interfaces in a VRF, with its name, and VRFs: the filter listens, and connects, outside of them."""
    return {link.name: top.name for link, top in _tops(tuple(names), present) if top.kind == _VRF}


def unnumbered_interfaces(names: Iterable[str], present: Links | None = None) -> list[str]:
    """Interfaces that IPv4 is routed to, and that have no such address: the kernel has none to redirect to,
    and drops what is to be redirected."""
    wanted, addressed = tuple(names), {index for index, one in addresses() if one.version == 4}
    present = links() if present is None else present
    return sorted(
        link.name
        for index, link in present.items()
        if index not in addressed and _is_wanted(link, wanted) and routed_to(index)
    )


def unrouted_interfaces(names: Iterable[str], present: Links | None = None, proc: Path = _PROC) -> list[str]:
    """Interfaces with an IPv4 address by which the kernel takes no such packets that are for others: what is
    not filtered goes nowhere. Of a bridge that passes them on without routing them that is said of none."""
    wanted = tuple(names)
    addressed = {index for index, one in addresses() if one.version == 4 and not one.is_loopback}
    present = links() if present is None else present
    passed_on = overheard_bridges(wanted, proc, present)
    return sorted(
        link.name
        for index, link in present.items()
        if index in addressed
        and _is_wanted(link, wanted)
        and link.name not in passed_on
        and _lines(proc / "sys/net/ipv4/conf" / link.name / "forwarding") == ["0"]
    )


def unnamed_uppers(names: Iterable[str]) -> dict[str, str]:
    """Interfaces made of others, with the name of those, which are not among the names themselves: packets
    with their VLAN's number, their own hardware address, or in their tunnel come in by their name, or by
    their master's."""
    wanted, present = tuple(names), links()
    found = {}
    for link, top in _tops(("*",), present):
        lower = present.get(link.lower)
        if link.kind in _PAIRS or lower is None or not _is_wanted(lower, wanted):
            continue
        if not _is_wanted(link, wanted) and not _is_wanted(top, wanted):
            found[top.name] = lower.name
    return found


def overheard_bridges(
    names: Iterable[str], proc: Path = _PROC, present: Links | None = None
) -> dict[str, str]:
    """Bridges, and what is made of them, whose rules see what they pass from one port to another, too, with
    the setting by which they do, such as Docker's start turns on.

    The rules meet a packet while it is the bridge's, and not again when it comes in. That it is led to a
    socket (`keep_source`) is forgotten in between.
    """
    wanted = tuple(names)
    on = next((name for name in _BRIDGED if sysctl(name, proc) == "1"), None)
    if on is None:
        return {}
    present = links() if present is None else present
    found = {}
    for link in present.values():
        under: Link | None = link
        while under is not None and under.kind in _UPPERS:
            under = present.get(under.lower)
        if under is not None and under.kind == "bridge" and _is_wanted(link, wanted):
            found[link.name] = on
    return found


_FAR_AWAY = (IPv4Address("1.1.1.1"), IPv6Address("2606:4700:4700::1111"))
"""Addresses that are nobody's neighbour; nothing is sent there."""


def ways_out() -> dict[int, str]:
    """Interface by which this machine routes to the rest of the world, by family, where it does.

    Raises:
        OSError: the kernel does not say.
    """
    present = links()
    found = {one.version: present.get(routed_by(one)) for one in _FAR_AWAY}
    return {version: link.name for version, link in found.items() if link is not None}


def interfaces_to_the_world(names: Iterable[str]) -> list[str]:
    """Those of these interfaces that a default route leads to."""
    four, six = "\t" + "0" * 8 + "\t", "0" * 32 + " 00 "
    found: set[str] = set()
    with suppress(OSError), (_THREAD / "net/route").open() as routes:
        # There may be a million.
        for one in (line.split() for line in routes if four in line):
            found |= {one[0]} if {one[1], one[7]} == {"0" * 8} else set()
    with suppress(OSError), (_THREAD / "net/ipv6_route").open() as routes:
        found |= {line.split()[-1] for line in routes if line.startswith(six)} - {"lo"}
    wanted = tuple(names)
    return sorted(one for one in found if any(_fits(one, name) for name in wanted))


def is_beyond(names: Iterable[str], address: IPv4Address | IPv6Address) -> bool:
    """Whether one of these interfaces leads to an address, and not to the rest of the world."""
    wanted = tuple(names)
    with suppress(OSError):
        link = links().get(routed_by(address))
        return (
            link is not None and _is_wanted(link, wanted) and link.name not in interfaces_to_the_world(wanted)
        )
    return False


def come_in_elsewhere(names: Iterable[str], networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether no part of these networks is routed to one of these interfaces, but all to others: what comes
    from there is not met. Of interfaces that come and go (``*``) that is not known."""
    wanted, clients = tuple(names), tuple(networks)
    if not clients or any(name.endswith("*") for name in wanted):
        return False
    with suppress(OSError):
        present = links()
        here = [index for index, link in present.items() if _is_wanted(link, wanted)]
        families = {socket.AF_INET if one.version == 4 else socket.AF_INET6 for one in clients}
        ways = [one for index in here for family in families for one in routed_to(index, family)]
        return (
            bool(ways)  # or the interfaces are not up yet
            and not any(way.overlaps(one) for way in ways for one in clients)
            and all(routed_by(one[min(2, one.num_addresses - 1)]) for one in clients)
        )
    return False


_VRF = "vrf"

_UPPERS = frozenset(("vlan", "macvlan", "ipvlan"))
"""Kinds of interfaces that take packets in by their own name; keepalived's `use_vmac` makes a macvlan."""

_PAIRS = frozenset(("veth", "netkit"))
"""Kinds of interfaces whose other end is named where others name what they are made of."""

_BRIDGED = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")


def _tops(wanted: Sequence[str], present: Links | None = None) -> Iterator[tuple[Link, Link]]:
    """Interfaces of these names, each with the last master that it is a port of, or itself."""
    present = links() if present is None else present
    for link in present.values():
        if _is_wanted(link, wanted):
            top = link
            while (master := present.get(top.master)) is not None:
                top = master
            yield link, top


def _is_wanted(link: Link, wanted: Sequence[str]) -> bool:
    return any(_fits(link.name, name) for name in wanted)


def interface_faults(
    names: Iterable[str], *, redirects: bool = True, marks: bool = False, routes: bool = True
) -> list[str]:
    """Reasons why clients' packets do not come to the filter by these names, or no further where they are not
    filtered, in a few words each.

    Args:
        names: where clients come in.
        redirects: whether some of what comes in is redirected.
        marks: whether some of it is marked, and led to a socket.
        routes: whether some of it is routed.
    """
    wanted, present = tuple(names), links()
    unnumbered = unnumbered_interfaces(wanted, present) if redirects else ()
    ports, vrfs = enslaved_interfaces(wanted, present), vrf_interfaces(wanted, present)
    losing = overheard_bridges(wanted if marks else ())
    return [
        *first_few(f"no interface {name}" for name in missing_interfaces(wanted)),
        *first_few(f"{name} is a port of {master}" for name, master in ports.items()),
        *first_few(f"{name} is in a VRF" for name in vrfs),
        *first_few(f"{name} has no IPv4 address" for name in unnumbered),
        *first_few(f"{name}: {setting} is 1" for name, setting in losing.items()),
        *first_few(
            f"{name}: forwarding is 0" for name in (unrouted_interfaces(wanted, present) if routes else ())
        ),
    ]


_FEW = 5


def first_few(said: Iterable[str]) -> list[str]:
    """What is said of interfaces: where it is the same of thousands, such as ``ppp*``, of the first ones."""
    lines = list(said)
    more = len(lines) - _FEW
    return [*lines[:_FEW], f"and so for {more} interfaces more"] if more > 0 else lines


def _fits(name: str, wanted: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        # A kernel without that protocol.
        return []


def alone() -> socket.socket:
    """Take the lock, which is held for as long as the socket is open.

    Raises:
        UrlwardError: another is.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(NAME)
    except OSError as e:
        claim.close()
        if e.errno == errno.EADDRINUSE:
            raise UrlwardError("another urlward steers in this network namespace") from e
        raise UrlwardError(f"cannot see whether another urlward steers: {e.strerror or e}") from e
    return claim


_PATIENCE = 0.5
"""Seconds after which another's turn is no longer waited for: it may have been stopped in the middle."""

_LOOK = 0.0005


class NamespaceLock:
    """Lock on the network namespace of the thread that makes it: the same file for all processes in it."""

    def __init__(self) -> None:
        self._file = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Context that holds the lock, or has waited long enough for it."""
        end = time.monotonic() + _PATIENCE
        while not self._try() and time.monotonic() < end:
            time.sleep(_LOOK)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock's file."""
        os.close(self._file)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
