"""Planning: from a configuration and a machine to a `Plan` for the rules."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from mitmproxy.proxy import mode_specs

from urlward.config import Config, GatewayTable, Problem
from urlward.config.problem import SettingError
from urlward.config.tables import split_address
from urlward.dns.resolver_addresses import SYSTEM, ResolverError, resolvers
from urlward.gateway.errors import GatewayError
from urlward.gateway.rules import Plan, interface_problems
from urlward.gateway.system import (
    FORWARDING,
    enslaved_interfaces,
    has_ipv6,
    interfaces_to_the_world,
    missing_interfaces,
    own_addresses,
    sysctl,
    unnamed_vlans,
    unnumbered_interfaces,
    vrf_interfaces,
)

_STUB_OF = Path("/run/systemd/resolve/resolv.conf")
"""The resolvers behind systemd-resolved, which itself answers this machine alone."""

_DEFAULT_LISTEN = ":8080"

type Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Planned:
    """Plan, with notes for the operator.

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
    # Where nothing passes while no worker lives, names are not answered then either.
    resolves = gateway.steer and gateway.fail == "open"
    found = _resolvers(gateway, families, system, notes) if resolves else ()
    notes += [
        f"gateway.interfaces: there is no {name} on this machine, or not yet"
        for name in missing_interfaces(gateway.interfaces)
    ]
    notes += [
        f"gateway.interfaces: {name} is a port of {master}, as which packets come in: name {master}"
        for name, master in enslaved_interfaces(gateway.interfaces).items()
    ]
    notes += [
        f"gateway.interfaces: {name} is in the VRF {vrf}, which is not supported"
        if name != vrf
        else f"gateway.interfaces: {name} is a VRF, which is not supported"
        for name, vrf in vrf_interfaces(gateway.interfaces).items()
    ]
    notes += [
        f"gateway.interfaces: what comes in by {name}, a VLAN of {lower}, is not filtered: name {name} too "
        "where clients are in it"
        for name, lower in unnamed_vlans(gateway.interfaces).items()
    ]
    if not gateway.clients:
        notes += [
            f"gateway.interfaces: a default route leads to {name}, and gateway.clients is empty: all that "
            "come in there are clients"
            + (", and are answered DNS" if gateway.steer else "")
            + ": say who is one"
            for name in interfaces_to_the_world(gateway.interfaces)
        ]
    if gateway.steer or not gateway.keep_source:
        notes += [
            f"gateway.interfaces: {name} has no IPv4 address, without which the kernel drops what is to be "
            f"redirected there: give it one, such as another's of this machine (ip addr add …/32 dev {name})"
            for name in unnumbered_interfaces(gateway.interfaces)
        ]
    if 6 in families and _clients_of_ipv4_alone(gateway):
        notes.append(
            "gateway.clients: no IPv6 network, but IPv6 is routed: what comes over it is not filtered"
        )
    return Planned(Plan(gateway, port, found, families), tuple(notes))


def gateway_problems(
    gateway: GatewayTable, modes: Sequence[str], listen: tuple[str, int], *, steer: bool
) -> Iterator[Problem]:
    """Problems that keep rules from leading to a filter, whatever the kernel has; conflicts of ports are not
    checked.

    Args:
        gateway: as configured.
        modes: mitmproxy mode specifications.
        listen: host and port where those listen that say nothing else.
        steer: whether it steers.
    """
    host, port = listen

    def resolve() -> None:
        if steer:
            resolvers(gateway.dns.resolvers, own_addresses(), gateway.dns.port)

    for check in (
        lambda: check_modes(gateway, modes, port, steer=steer),
        lambda: _check_host(_transparent_at(gateway, modes, host, port)[0]),
        resolve,
    ):
        try:
            check()
        except SettingError as e:
            yield e.problem
    yield from interface_problems(gateway)


def steering_modes(gateway: GatewayTable) -> tuple[str, ...]:
    """mitmproxy modes for a filter that steers."""
    intercept = (f"transparent@{gateway.intercept_port}",) if gateway.steered == "intercept" else ()
    return ("transparent", *intercept, f"dns@{gateway.dns.port}")


def default_modes(gateway: GatewayTable, *, steer: bool) -> tuple[str, ...]:
    """mitmproxy modes for a filter of which none is said: those that take what the kernel's rules lead to it,
    where there are such rules."""
    if steer:
        return steering_modes(gateway)
    return ("transparent",) if gateway.interfaces else ("regular",)


def transparent_port(modes: Sequence[str], port: int) -> int | None:
    """Port where redirected connections arrive, or None where none are taken.

    Args:
        modes: mitmproxy mode specifications.
        port: where those listen that say nothing else.
    """
    for spec in modes:
        try:
            mode = mode_specs.ProxyMode.parse(spec)
        except ValueError:
            continue  # the start will refuse it
        if isinstance(mode, mode_specs.TransparentMode):
            return mode.custom_listen_port or port
    return None


def redirected_port(gateway: GatewayTable, modes: Sequence[str], port: int, *, steer: bool) -> int | None:
    """`transparent_port`, where the kernel's rules are to lead to this filter; None where they are not."""
    return transparent_port(modes, port) if steer or gateway.interfaces else None


def check_modes(gateway: GatewayTable, modes: Sequence[str], port: int, *, steer: bool) -> int:
    """Port where redirected connections arrive, at a filter that takes what its rules lead to it.

    Args:
        gateway: as configured.
        modes: mitmproxy mode specifications.
        port: where those listen that say nothing else.
        steer: whether it steers.

    Raises:
        SettingError: none of them takes connections, or where it steers answers DNS.
    """
    takes = transparent_port(modes, port)
    if takes is None and not steer:
        raise SettingError("mode", "the rules lead to a transparent proxy, and none is here: add transparent")
    if takes is None or (steer and not any(_answers(spec, gateway.dns.port) for spec in modes)):
        wanted = ", ".join(steering_modes(gateway))
        raise SettingError("mode", f"steering needs {wanted}; that is the default: leave mode out")
    return takes


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; the host may be empty.

    Raises:
        GatewayError: something else.
    """
    try:
        return split_address(text, any_host=True)
    except ValueError as e:
        raise GatewayError(f"listen: {e}") from e


def _answers(spec: str, port: int) -> bool:
    """Whether a mode answers DNS at a port."""
    try:
        mode = mode_specs.ProxyMode.parse(spec)
    except ValueError:
        return False
    return isinstance(mode, mode_specs.DnsMode) and mode.custom_listen_port == port


def _listens(config: Config, listen: str | None) -> tuple[str, int]:
    """Address where redirected connections arrive."""
    host, port = parse_listen(listen or config.listen or _DEFAULT_LISTEN)
    for n, spec in enumerate(config.mode):
        try:
            mode_specs.ProxyMode.parse(spec)
        except ValueError as e:
            raise SettingError(f"mode.{n}", f"{spec!r}: {e}") from e
    host, port = _transparent_at(config.gateway, config.mode, host, port)
    if config.mode:
        check_modes(config.gateway, config.mode, port, steer=config.gateway.steer)
    return host, port


def _transparent_at(gateway: GatewayTable, modes: Sequence[str], host: str, port: int) -> tuple[str, int]:
    """Address of the first transparent mode that is not at `GatewayTable.intercept_port`."""
    for spec in modes:
        try:
            mode = mode_specs.ProxyMode.parse(spec)
        except ValueError:
            continue
        own = mode.custom_listen_port
        if isinstance(mode, mode_specs.TransparentMode) and own != gateway.intercept_port:
            return mode.listen_host(host), own or port
    return host, port


def _check_host(host: str) -> None:
    if host == "::":
        raise SettingError(
            "listen", "[::] is IPv6 alone, and what comes over IPv4 would find nobody; :8080 is both families"
        )
    if host not in ("", "0.0.0.0"):  # noqa: S104 - compared, not bound to
        raise SettingError(
            "listen", f"redirected connections do not arrive at {host}; listen on all addresses, as in :8080"
        )


def _families(host: str, notes: list[str]) -> tuple[int, ...]:
    _check_host(host)
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
    """Resolvers for clients' queries while no worker lives, one of each family."""
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
    """Resolvers without those that only this machine, or one of its links, can reach."""
    pairs = [(ip_address(host), port) for host, port, *_ in found]
    return [(a, port) for a, port in pairs if not (a.is_loopback or a.is_unspecified or a.is_link_local)]
