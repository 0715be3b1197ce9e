"""Hosts of a scenario, and their addresses."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from urlward.lab.addresses import Place, place
from urlward.lab.errors import LabError
from urlward.lab.made import DOMAIN
from urlward.lab.scenario import Host, Scenario

_MOST = 200


@dataclass(frozen=True, slots=True)
class Site:
    """Host of the lab, as its DNS and its certificate know it.

    Attributes:
        name: of the host.
        place: its addresses; None for an alias.
        host: what the scenario says of it.
    """

    name: str
    place: Place | None
    host: Host


def sites(scenario: Scenario) -> dict[str, Site]:
    """All hosts, by name: those in ``[hosts]``, and those that URLs name.

    Raises:
        LabError: there are more places than addresses.
    """
    hosts = dict(scenario.hosts)
    for name in _named(scenario):
        covered = any(name.endswith(f".{parent}") and host.subdomains for parent, host in hosts.items())
        if name not in hosts and not covered:
            hosts[name] = Host()
    if scenario.list.make:
        hosts[DOMAIN] = Host(subdomains=True)
    places: dict[str, Place] = {}
    found = {}
    for name, host in hosts.items():
        at = None
        if not host.alias:
            at = places.setdefault(host.at or f"{name}.", place(len(places) + 1))
        found[name] = Site(name, at, host)
    if len(places) > _MOST:
        raise LabError(f"hosts: {len(places)} places are more than the lab has addresses for ({_MOST})")
    return found


def _named(scenario: Scenario) -> Iterable[str]:
    urls = [request.url for step in scenario.steps for request in step.requests if request.url]
    urls += [measured.url for step in scenario.steps if step.measure for measured in step.measure.urls]
    for url in urls:
        name = (urlsplit(url).hostname or "").rstrip(".").lower()
        if not is_address(name):
            yield name


def is_address(name: str) -> bool:
    """Whether a host is written as an address."""
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
