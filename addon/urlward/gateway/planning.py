"""From a configuration and a machine to a `Plan`: what rules need that the file does not say."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from mitmproxy.proxy import mode_specs

from urlward.config import Config, GatewayTable
from urlward.gateway.errors import GatewayError
from urlward.gateway.resolvers import SYSTEM, ResolverError, resolvers
from urlward.gateway.rules import Plan
from urlward.gateway.system import FORWARDING, has_ipv6, missing_interfaces, own_addresses, sysctl

_STUB_OF = Path("/run/systemd/resolve/resolv.conf")
"""The resolvers behind systemd-resolved, which itself answers this machine alone."""

_DEFAULT_LISTEN = ":8080"

type Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what its author should know.

    Attributes:
        plan: see there.
        notes: a line each.
    """

    plan: Plan
    notes: tuple[str, ...]


def planned(config: Config, listen: str | None = None, system: Path = SYSTEM) -> Planned:
    """Make a plan for this machine.

    Args:
        config: the whole configuration.
        listen: where the filter listens, before what `config` says.
        system: file that names the system's resolvers.

    Raises:
        GatewayError: the filter cannot listen so; there is no resolver; see also `rules`.
    """
    gateway = config.gateway
    host, port = _listens(config, listen)
    notes: list[str] = []
    families = _families(host, notes)
    found = _resolvers(gateway, families, system, notes) if gateway.steer else ()
    notes += [
        f"gateway.interfaces: there is no {name} on this machine, or not yet"
        for name in missing_interfaces(gateway.interfaces)
    ]
    if 6 in families and _clients_of_ipv4_alone(gateway):
        notes.append(
            "gateway.clients: no IPv6 network, but IPv6 is routed: what comes over it is not filtered"
        )
    return Planned(Plan(gateway, port, found, families), tuple(notes))


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; the host may be empty.

    Raises:
        GatewayError: something else.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or not 0 < int(port[:6]) < 65536:
        raise GatewayError(f"listen: {text!r} is not HOST:PORT, such as :8080 or 0.0.0.0:8080")
    return host.strip("[]"), int(port)


def _listens(config: Config, listen: str | None) -> tuple[str, int]:
    """Where redirected connections arrive."""
    host, port = parse_listen(listen or config.listen or _DEFAULT_LISTEN)
    for spec in config.mode:
        try:
            mode = mode_specs.ProxyMode.parse(spec)
        except ValueError as e:
            raise GatewayError(f"mode: {spec!r}: {e}") from e
        own = mode.custom_listen_port
        if isinstance(mode, mode_specs.TransparentMode) and own != config.gateway.intercept_port:
            return mode.listen_host(host), own or port
    return host, port


def _families(host: str, notes: list[str]) -> tuple[int, ...]:
    if host not in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound to
        raise GatewayError(
            f"listen: redirected connections do not arrive at {host}; listen on all addresses, as in :8080"
        )
    if not has_ipv6():
        notes.append("this kernel has no IPv6: IPv4 alone is filtered")
        return (4,)
    if host == "0.0.0.0":  # noqa: S104
        notes.append("listen: 0.0.0.0 is IPv4 alone, so IPv6 is not filtered; :8080 is both")
        return (4,)
    return (4, 6)


def _clients_of_ipv4_alone(gateway: GatewayTable) -> bool:
    versions = {ip_network(network).version for network in gateway.clients}
    return versions == {4} and sysctl(FORWARDING[6]) not in (None, "0")


def _resolvers(
    gateway: GatewayTable, families: Sequence[int], system: Path, notes: list[str]
) -> tuple[tuple[Address, int], ...]:
    """Those that clients' questions can be sent on to while no worker lives, one of each family."""
    own, port = own_addresses(), gateway.dns.port
    usable = _reachable(resolvers(gateway.dns.resolvers, own, port, system))
    if not usable and not gateway.dns.resolvers:
        try:
            usable = _reachable(resolvers((), own, port, _STUB_OF))
        except ResolverError:
            usable = []
    chosen = []
    for family in families:
        one = next((pair for pair in usable if pair[0].version == family), None)
        if one is not None:
            chosen.append(one)
        elif family == 4 or not chosen:
            notes.append(
                f"gateway.dns.resolvers: none that clients can be sent to over IPv{family}, "
                "so that such queries fail while no worker lives"
            )
    return tuple(chosen)


def _reachable(found: Sequence[tuple[str, int, int, object]]) -> list[tuple[Address, int]]:
    """Without those that answer this machine, or one of its links, alone."""
    pairs = [(ip_address(host), port) for host, port, *_ in found]
    return [(a, port) for a, port in pairs if not (a.is_loopback or a.is_unspecified or a.is_link_local)]
