"""A matcher that is slow and obviously right: rules in plaintext, each tried on each request.

Rules are written out as list lines for the engine to parse, and matched here from their fields, so
that the grammar is on trial too. Only canonicalising is shared, which has vectors of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from ipaddress import ip_address, ip_network

from urlward.engine.url import canonical_host, canonical_query, path_asked_for, query_parameters

SUFFIXES = ("co.test", "test", "example")
DAY = 86_400

ORDER = ["network", "address", "name", "path", "domain", "host", "prefix", "page", "params"]


@dataclass(frozen=True)
class Rule:
    kind: str
    id: str
    host: str = ""
    path: str = ""
    params: frozenset[str] = field(default_factory=frozenset)
    allow: bool = False
    category: str = ""
    expires: int = 0
    port: int = 0
    port_in_url: bool = False
    www: bool = False
    nocase: bool = False
    subdomains: bool = False

    def line(self) -> str:
        authority = ("www." if self.www else "") + self.host
        if self.port and self.port_in_url:
            authority += f":{self.port}"
        subject = {
            "domain": self.host,
            "host": f"0.0.0.0 {self.host}",
            "page": f"http://{authority}{self.path}",
            "prefix": f"http://{authority}{self.path}*",
            "params": f"http://{authority}{self.path}?{'&'.join(sorted(self.params))}",
            "name": f"{self.host}.*",
            "path": f"*{self.path}*",
            "address": self.host.removesuffix("/32").removesuffix("/128"),
            "network": self.host,
        }[self.kind]
        words = [f"@@{subject}" if self.allow else subject, f"id={self.id}"]
        if self.category:
            words.append(f"category={self.category}")
        if self.expires:
            words.append(f"expires={date(1970, 1, 1) + timedelta(days=self.expires)}")
        if self.port and not self.port_in_url:
            words.append(f"port={self.port}")
        words += ["nocase"] * self.nocase + ["subdomains"] * self.subdomains
        return " ".join(words)

    @property
    def of_host(self) -> bool:
        return self.kind in ("domain", "host", "name", "address", "network")

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Allow before block, then the more specific kind, then the longer of a kind."""
        length = {
            "domain": self.host.count("."),
            "name": self.host.count("."),
            "prefix": self.path.count("/"),
            "path": self.path.count("/"),
            "network": int(self.host.rpartition("/")[2] or 0) if self.kind == "network" else 0,
        }.get(self.kind, 0)
        return self.allow, ORDER.index(self.kind), length

    def in_force(self, ports: tuple[int, ...], now: float) -> bool:
        among = {self.port} == set(ports) if self.allow else self.port in ports
        return (not self.port or not ports or among) and (not self.expires or now < (self.expires + 1) * DAY)

    def matches(self, host: str, path: str, params: frozenset[str]) -> bool:
        if self.of_host:
            return self.matches_host(host)
        own = self.path
        if self.nocase:
            own, path = own.lower(), path.lower()
        if self.kind == "path":
            return own in path
        if not self.is_on(host):
            return False
        if self.kind == "prefix":
            return path.startswith(own)
        wanted = self.params
        if self.nocase:
            wanted, params = ({one.lower() for one in some} for some in (wanted, params))
        names = {param.partition("=")[0].lower() for param in wanted}
        others = {param for param in params - wanted if param.partition("=")[0].lower() in names}
        return path == own and (self.kind == "page" or (wanted <= params and not (self.allow and others)))

    def matches_host(self, host: str) -> bool:
        match self.kind:
            case "host":
                return host == self.host
            case "domain":
                return f".{host}".endswith(f".{self.host}")
            case "name":
                suffix = next((s for s in SUFFIXES if f".{host}".endswith(f".{s}")), None)
                return suffix is not None and f".{host}".endswith(f".{self.host}.{suffix}")
            case _:
                return self.matches_address(host.strip("[]"))

    def matches_address(self, text: str) -> bool:
        if self.kind not in ("address", "network"):
            return False
        try:
            return ip_address(text) in ip_network(self.host)
        except ValueError:
            return False

    def is_on(self, host: str) -> bool:
        """Whether this is a page, prefix or parameter entry of that host."""
        without = host.removeprefix("www.") if "." in host.removeprefix("www.") else host
        return (
            not self.of_host
            and self.kind != "path"
            and (without == self.host or (self.subdomains and host.endswith(f".{self.host}")))
        )


def deciding(rules: list[Rule]) -> set[Rule]:
    """The rules that may be named: of those that match, the ones nothing outranks."""
    top = max((rule.rank for rule in rules), default=None)
    return {rule for rule in rules if rule.rank == top}


def cuts(target: str) -> Iterator[tuple[str, str]]:
    """Paths and queries that origins cut a target into.

    A fragment is nothing that is asked for; an origin that is sent one may take it for more of the target, or
    for where the query begins.
    """
    path, _, query = target.partition("#")[0].partition("?")
    yield path, query
    if "#" in target:
        whole, _, query = target.partition("?")
        path = whole.partition("#")[0]
        rest = target[len(path) + 1 :]
        for pair in ((whole, query), (path, query), (path, rest), (whole, query.partition("#")[0])):
            yield pair[0].replace("#", "%23"), pair[1].replace("#", "%23")


def check(rules: list[Rule], host: str, target: str, ports: tuple[int, ...], now: float) -> set[Rule]:
    host, verdicts = canonical_host(host), list[set[Rule]]()
    for raw_path, query in dict.fromkeys(cuts(target)):
        path, params = path_asked_for(raw_path), query_parameters(canonical_query(query))
        found = deciding([r for r in rules if r.in_force(ports, now) and r.matches(host, path, params)])
        if any(not rule.allow for rule in found):
            return found
        verdicts.append(found)
        if path != "/" and path.endswith("/") and not verdicts[0]:
            # A page is also itself with a slash behind it, unless that is excused.
            pages = [r for r in rules if r.in_force(ports, now) and r.matches(host, path[:-1], params)]
            found = deciding(pages)
            if any(not rule.allow for rule in found):
                return found
    return verdicts[0]


def check_host(rules: list[Rule], host: str, ports: tuple[int, ...], now: float) -> set[Rule]:
    host = canonical_host(host)
    return deciding([r for r in rules if r.in_force(ports, now) and r.matches_host(host)])


def check_address(rules: list[Rule], address: str, ports: tuple[int, ...], now: float) -> set[Rule]:
    return deciding([r for r in rules if r.in_force(ports, now) and r.matches_address(address)])


def lists_below(
    everything: list[Rule], rules: list[Rule], host: str, ports: tuple[int, ...], now: float
) -> bool:
    host = canonical_host(host)
    of_host = [r for r in everything if r.of_host and r.matches_host(host) and r.in_force((), now)]
    if any(r.allow and not r.port for r in of_host):
        return False
    excuses = any(r.of_host and r.matches_host(host) for r in everything)
    for rule in (rule for rule in rules if rule.is_on(host) and (excuses or not rule.allow)):
        if rule.in_force((), now) and (not rule.port or not ports or rule.port in ports):
            return True
    return False


def level(rules: list[Rule], host: str, now: float) -> str:
    host = canonical_host(host)
    rules = [r for r in rules if r.in_force((), now)]
    of_host = [r for r in rules if r.of_host and r.matches_host(host)]
    below = [r for r in rules if r.is_on(host)]
    if any(r.allow and not r.port for r in of_host) or all(r.allow for r in of_host + below):
        return ""
    excused = any(r.allow for r in [*of_host, *below, *(r for r in rules if r.kind == "path")])
    whole = any(not r.allow and not r.port for r in of_host)
    return "whole" if whole and not excused else "below"
