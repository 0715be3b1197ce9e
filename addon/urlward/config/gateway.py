"""``[gateway]``: the way into the path of a network."""

from typing import Annotated, Literal

from pydantic import Field

from urlward.config.tables import Addresses, Networks, Port, Table


class DnsTable(Table):
    """``[gateway.dns]``: how the network's DNS is answered where names are steered.

    Attributes:
        port: where it is answered; rules redirect port 53 to it.
        resolvers: addresses, with a port or without; the system's where empty.
        listed_hosts: what a host listed whole gets: its addresses, ``nxdomain``, or `page_addresses`.
        page_addresses: addresses of this gateway that answer with the block page.
        canary: whether browsers are told to leave DNS over HTTPS off.
        timeout: seconds that a resolver has to answer.
        max_ttl: seconds that a client may keep the addresses of a steered name.
        remember: names resolved lately that are kept, for a list that comes to name one.
    """

    port: Port = 5353
    resolvers: tuple[str, ...] = Field(default=(), strict=False)
    listed_hosts: Literal["steer", "nxdomain", "page"] = "steer"
    page_addresses: Addresses = ()
    canary: bool = True
    timeout: Annotated[float, Field(gt=0, le=30, strict=False)] = 2.0
    max_ttl: Annotated[int, Field(ge=0, le=86_400)] = 300
    remember: Annotated[int, Field(ge=0, le=10_000_000)] = 100_000


class GatewayTable(Table):
    """``[gateway]``: whose traffic is filtered where urlward stands in the path, and how it gets there.

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
        fail: whether what would be filtered passes (``open``) or not (``closed``) while no worker lives.
        on_stop: whether the rules go (``down``) or stay (``keep``) when the service is stopped.
        intercept_port: where such connections arrive; `steered` ``intercept`` alone needs it.
        max_addresses: of steered names, at a time, of each family.
        max_change: addresses of names resolved before that one reload may steer.
        dns: see `DnsTable`.
    """

    interfaces: tuple[str, ...] = Field(default=(), strict=False)
    clients: Networks = ()
    exempt: Networks = ()
    never: Networks = ()
    ports: tuple[Port, ...] = Field(default=(80, 443), strict=False, min_length=1)
    steer: bool = False
    steered: Literal["relay", "intercept"] = "relay"
    fail: Literal["open", "closed"] = "open"
    on_stop: Literal["down", "keep"] = "down"
    intercept_port: Port = 8090
    max_addresses: Annotated[int, Field(ge=1, le=10_000_000)] = 65_536
    max_change: Annotated[int, Field(ge=0)] = 1_000
    dns: DnsTable = DnsTable()
