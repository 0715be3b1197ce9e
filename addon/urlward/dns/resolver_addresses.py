"""Resolvers to use: those of the configuration, or the system's (`resolv.conf(5)`)."""

import re
import socket
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple

from urlward.config.problem import SettingError

SYSTEM = Path("/etc/resolv.conf")

_PORT = 53
_MOST = 3
_WITH_PORT = re.compile(r"\[(?P<six>[^\]]+)\](?::(?P<port6>\d+))?|(?P<four>[^:\]]+):(?P<port4>\d+)")


class ResolverAddress(NamedTuple):
    """Address of a resolver.

    Attributes:
        host: address, with a zone where that is needed.
        port: its port.
        family: of the address.
        address: for sockets; of a link-local one without its interface, see `reached`.
    """

    host: str
    port: int
    family: socket.AddressFamily
    address: Any

    def reached(self) -> Any:
        """The address for sockets, as it is now: an interface that has come back has another number.

        Raises:
            OSError: there is no such interface now.
        """
        return _numeric(self.host, self.port)[0][4] if "%" in self.host else self.address

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port != _PORT else self.host


def parse_resolver(text: str) -> ResolverAddress:
    """Read ``192.0.2.53``, ``192.0.2.53:5300``, ``2001:db8::53`` or ``[2001:db8::53]:5300``.

    Raises:
        SettingError: something else.
    """
    match = _WITH_PORT.fullmatch(text)
    host, port = text, _PORT
    if match is not None:
        host = match["six"] or match["four"]
        port = int(match["port6"] or match["port4"] or _PORT)
    try:
        ip_address(host)
        if not 0 < port < 65536:
            raise ValueError(port)
        # Of an interface that is not there yet, or not now, the number is looked up when it is asked.
        found = _numeric(host.partition("%")[0], port)
    except (OSError, ValueError) as e:
        raise SettingError(
            "gateway.dns.resolvers", f"{text!r} is not an address, or [address]:port with an IPv6 address"
        ) from e
    return ResolverAddress(host, port, found[0][0], found[0][4])


def _numeric(host: str, port: int) -> Sequence[tuple[socket.AddressFamily, Any, int, str, Any]]:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)


def resolvers(
    configured: Sequence[str],
    own: Collection[IPv4Address | IPv6Address],
    port: int,
    system: Path = SYSTEM,
) -> tuple[ResolverAddress, ...]:
    """The resolvers to ask, in order.

    Args:
        configured: as in the configuration; those of the system where empty.
        own: addresses of this machine.
        port: where this filter answers, so that it does not ask itself.
        system: file that names the system's.

    Raises:
        SettingError: one cannot be read, is this filter, or there is none.
    """
    if configured:
        found = [parse_resolver(text) for text in configured]
        for resolver in found:
            if _is_self(resolver, own, port):
                raise SettingError("gateway.dns.resolvers", f"{resolver} is this filter itself")
    else:
        found = [r for r in _of_system(system) if not _is_self(r, own, port)]
        if not found:
            raise SettingError(
                "gateway.dns.resolvers", f"needed, since {system} names no DNS resolver but this filter"
            )
    return tuple(dict.fromkeys(found))


def _of_system(path: Path) -> list[ResolverAddress]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(parse_resolver(words[1]))
            except SettingError:
                continue
    return found[:_MOST]


def _is_self(resolver: ResolverAddress, own: Collection[IPv4Address | IPv6Address], port: int) -> bool:
    address = ip_address(resolver.host)
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address))
    return resolver.port == port and (address in own or address.is_loopback or address.is_unspecified)
