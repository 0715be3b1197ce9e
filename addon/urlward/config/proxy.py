"""``[proxy]`` and ``[probing]``: limits for clients of an explicit proxy, in the modes ``regular`` and
``socks5``, and for clients that probe the block list.
"""

import re
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from urlward.config.tables import SHAREABLE, Address, FileName, Seconds, Table

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII).fullmatch
# What may stand in a proxy auto-configuration file's quotes.
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}", re.ASCII).fullmatch


def _range_of(value: int | str) -> range:
    match = _RANGE(str(value))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65_535:
        raise ValueError(f'{value!r} is neither a port nor a range of them, such as 443 or "1024-65535"')
    return range(first, last + 1)


def _ports(values: tuple[int | str, ...]) -> tuple[int | str, ...]:
    for value in values:
        _range_of(value)
    return values


def _direct(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ip_network(value)
        except ValueError as e:
            if not _NAME(value.lower()):
                raise ValueError(f"{value!r} is neither a host, in A-labels, nor a network") from e
    return values


Ports = Annotated[tuple[int | str, ...], SHAREABLE, Field(strict=False, min_length=1), AfterValidator(_ports)]


def port_table(ports: Ports) -> bytes:
    """A byte for each port that there may be: 1 where it is one of these."""
    table = bytearray(1 << 16)
    for each in map(_range_of, ports):
        table[each.start : each.stop] = b"\1" * len(each)
    return bytes(table)


class PacTable(Table):
    """``[proxy.pac]``; its presence has ``/proxy.pac`` and ``/wpad.dat`` served.

    Attributes:
        proxies: HOST:PORT of the proxy as clients reach it, and of others that stand in for it, in turn.
        direct: hosts, with all below them, and networks that clients reach without it.
    """

    proxies: Annotated[tuple[Address, ...], Field(strict=False, min_length=1)]
    direct: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_direct)] = ()


class ProxyTable(Table):
    """``[proxy]``: access to the explicit proxy.

    Attributes:
        users: file with those who may use it and hashes of their passwords; all may where absent.
        ports: of destinations. All but SMTP's, which no browser asks for either.
        connect_ports: of those of CONNECT and SOCKS; `ports` where absent.
        allow_local: whether clients on other machines reach loopback and link-local addresses through it.
        pac: proxy auto-configuration.
    """

    users: FileName | None = None
    ports: Ports = ("1-24", "26-65535")
    connect_ports: Ports | None = None
    allow_local: bool = False
    pac: PacTable | None = None


class ProbingTable(Table):
    """``[probing]``: limits by which probing is detected, and the action.

    Attributes:
        entries: different ones that a client may draw block pages for within `window`.
        window: seconds.
        slow: whether a client that draws more is slowed.
        rate: requests a second that one which is slowed may make.
    """

    entries: Annotated[int, Field(ge=2, le=10_000)] = 50
    window: Annotated[Seconds, Field(ge=1, le=24 * 3600)] = 600.0
    slow: bool = False
    rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False, strict=False)] = 1.0
