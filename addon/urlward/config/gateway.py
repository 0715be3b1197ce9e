"""``[gateway]``: interception of a network's traffic."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from urlward.config.tables import Addresses, FileName, Nat64Prefixes, Networks, Port, Table, spelt
from urlward.engine.nat64 import WELL_KNOWN


class DnsTable(Table):
    """``[gateway.dns]``: DNS service for the network where names are steered.

    Attributes:
        port: where it is answered; rules redirect port 53 to it.
        resolvers: addresses, with a port or without; the system's where empty.
        listed_hosts: what a host listed whole gets: its addresses, ``nxdomain``, or `page_addresses`.
        page_addresses: addresses of this gateway that answer with the block page.
        canary: whether browsers are told to leave DNS over HTTPS off, and Apple's relay and Chrome's tunnel.
        timeout: seconds that resolvers have to answer; the next is asked after one.
        max_ttl: seconds that a client may keep the addresses of a steered name.
        remember: names resolved lately that are kept, for a list that comes to name one.
    """

    port: Port = 5353
    resolvers: tuple[str, ...] = Field(default=(), strict=False)
    listed_hosts: Literal["steer", "nxdomain", "page"] = "steer"
    page_addresses: Addresses = ()
    canary: bool = True
    timeout: Annotated[float, Field(gt=0, le=30)] = 5.0
    max_ttl: Annotated[int, Field(ge=0, le=86_400)] = 300
    remember: Annotated[int, Field(ge=0, le=10_000_000)] = 100_000


_MOST_FOLDER = 90
"""Bytes of a hook's folder; the socket in it has a path of 107 at most (unix(7))."""


class HookTable(Table):
    """``[gateway.hook]``: steering from a resolver that is there, by a hook in it or by dnstap.

    Attributes:
        folder: where the hook finds the socket and the filter that urlward puts there; no hook where absent.
        dnstap: whether resolvers tell of answers when they have sent them, and no hook waits: then the socket
            ``dnstap`` is there instead.
        settle: milliseconds that the hook waits for urlward before an answer goes on, or fails.
    """

    folder: FileName | None = None
    dnstap: bool = False
    settle: Annotated[int, Field(ge=1, le=1_000)] = 5

    @property
    def socket(self) -> Path | None:
        """Where the hook, or dnstap, connects; None for neither."""
        return None if self.folder is None else Path(self.folder) / ("dnstap" if self.dnstap else "socket")

    @property
    def seconds(self) -> float:
        """`settle` in seconds."""
        return self.settle / 1_000

    @field_validator("folder")
    @classmethod
    def _short(cls, value: str | None) -> str | None:
        if value is not None and len(value.encode()) > _MOST_FOLDER:
            raise ValueError(f"a path of {_MOST_FOLDER} bytes at most, for a socket is in it")
        return value


class CanaryTable(Table):
    """``[gateway.canary]``: requests that go the way of clients' traffic, from inside, every few seconds.

    Attributes:
        name: of a host that nobody has.
        addresses: of it, one of each family at most, that nobody has; no canary where empty.
    """

    name: Annotated[
        str,
        Field(max_length=200),
        spelt(r"[a-z0-9-]+(\.[a-z0-9-]+)+", "a name with a dot, of small letters, digits and -"),
    ] = "canary.urlward.invalid"
    addresses: Addresses = ("192.0.2.252", "2001:db8:ffff:ffff::252")

    @field_validator("addresses")
    @classmethod
    def _one_of_each_family(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        families = [ip_address(value).version for value in values]
        if len(families) > len(set(families)):
            raise ValueError("one address of each family at most")
        return values


class GatewayTable(Table):
    """``[gateway]``: the clients whose traffic is intercepted, and the way it gets here.

    Attributes:
        interfaces: where clients come in.
        clients: their networks; all that comes in there where empty.
        exempt: clients that are not filtered.
        never: destinations that are never filtered.
        ports: TCP ports that are filtered.
        steer: whether only what may be listed is filtered, found out by answering DNS; all of `ports`
            otherwise.
        steered: what a TLS connection to a steered address gets whose host has no entry: ``relay``, or
            ``intercept`` for networks that must not let a listed host hide behind another's name.
        fail: whether all passes (``open``) while no worker lives, or nothing on `ports` (``closed``), nor DNS
            where names are steered.
        on_stop: whether the rules stay (``keep``) when the service is stopped, and do what `fail` says, or go
            (``down``) with the addresses that are steered.
        keep_source: whether origins see the client's address, not the gateway's: nothing is translated on the
            way to the filter, and its own connections to origins have the client's address.
        intercept_port: where such connections arrive; `steered` ``intercept`` alone needs it.
        max_addresses: that are steered at a time, of each family; the kernel has 160 bytes for each.
        mss: bytes of a TCP segment that the filter's own connections send and ask for at most, where a rule
            of the operator's in ``forward`` says the same for others; as the route has it where absent.
        max_change: addresses of names resolved before that one reload may steer.
        nat64: prefixes under which clients reach IPv4 (RFC 6052).
        dns: see `DnsTable`.
        hook: see `HookTable`.
        canary: see `CanaryTable`.
    """

    interfaces: tuple[str, ...] = Field(default=(), strict=False)
    clients: Networks = ()
    exempt: Networks = ()
    never: Networks = ()
    ports: tuple[Port, ...] = Field(default=(80, 443), strict=False, min_length=1)
    steer: bool = False
    steered: Literal["relay", "intercept"] = "relay"
    fail: Literal["open", "closed"] = "open"
    on_stop: Literal["down", "keep"] = "keep"
    keep_source: bool = False
    intercept_port: Port = 8090
    max_addresses: Annotated[int, Field(ge=1, le=10_000_000)] = 65_536
    max_change: Annotated[int, Field(ge=0)] = 1_000
    nat64: Nat64Prefixes = (WELL_KNOWN,)
    mss: Annotated[int, Field(ge=500, le=65_000)] | None = None
    dns: DnsTable = DnsTable()
    # No rule is another for it: those of before it was there are still the plan's.
    hook: Annotated[HookTable, Field(repr=False)] = HookTable()
    canary: CanaryTable = CanaryTable()
