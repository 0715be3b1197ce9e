"""Scenario: the lists, hosts and requests of a lab run, and the expected outcomes.

TOML, read as strictly as the configuration: a key that is not known, or a value that does not fit, is one
line that names its place. The reference of all keys is the docstrings here.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from urlward.config import GatewayTable, Intercept, OnError, describe
from urlward.engine.errors import UrlwardError

SHIPPED = Path(__file__).parent / "scenarios"

CURLS = ("curl-1-4", "curl-1-6", "curl-2-4", "curl-2-6", "curl-3-4", "curl-3-6")
PYTHONS = ("python-4", "python-6")
CHROMIUM = "chromium"
CLIENTS = (*CURLS, *PYTHONS, CHROMIUM)
"""``curl-HTTP-IP``, the lab's own client in Python, and a browser."""

_VIA = "via"
Source = Literal["client", "client6", "exempt", "neighbour", "via1", "via2", "via3", "via4"]
Stage = Literal["dns", 1, 2, 3]
Expect = Literal["block", "refuse", "pass", "cut", "open"]
Answer = Literal["answer", "empty", "nxdomain", "failure", "timeout"]
Action = Literal[
    "reload", "kill-worker", "kill-all-workers", "kill-filter", "stop-filter", "start-filter",
    "second-filter", "fresh-rules", "canary", "stop-resolver", "hang-resolver", "slow-resolver", "fill-disk",
    "damage-list", "rules-gone", "rules-there", "reload-firewall", "hang-worker",
    "routing-rule", "bridge-port", "nothing-piles-up", "no-forwarding", "no-ipv6",
    "no-nftables", "restore",
]  # fmt: skip
FleetAction = Literal[
    "kill-node", "start-node", "every-node", "address-moves", "kill-valkey", "hang-valkey", "flush-valkey",
    "nodes-together", "roll-back", "allow",
]  # fmt: skip
"""Actions of scenarios with ``[fleet]``."""
MOST_NODES = 4


def _clients(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in CLIENTS:
            raise ValueError(f"{name!r} is no client; there are {', '.join(CLIENTS)}")
    return names


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable():
        raise ValueError(f"{text!r} is not a URL with http or https and a host")
    return text


def _reserved(name: str) -> str:
    if name.rstrip(".").rpartition(".")[2].lower() not in ("test", "example", "invalid", "arpa", "net"):
        raise ValueError(f"{name!r} is not a reserved name, such as site.example (RFC 2606)")
    return name


Clients = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_clients)]
Url = Annotated[str, AfterValidator(_url)]
Seconds = Annotated[float, Field(gt=0, le=3600, strict=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Make(_Table):
    """``[list.make]``: invented entries, and URLs drawn from them; see `urlward.lab.topology`.

    Attributes:
        entries: how many.
        seed: of what is drawn.
    """

    entries: Annotated[int, Field(ge=1, le=5_000_000)]
    seed: int = 1


class ListTable(_Table):
    """``[list]``: one of its keys, or `entries` and `make` together.

    Attributes:
        entries: lines of a list, as text.
        file: of a source, from the scenario's folder.
        make: entries that are invented.
    """

    entries: str = ""
    file: Annotated[str, Field(min_length=1)] | None = None
    make: Make | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.entries.strip() or self.file or self.make):
            raise ValueError("one of entries, file and make is needed")
        return self


class Host(_Table):
    """``[hosts]``: where a host is. One that is not named here has addresses of its own.

    Attributes:
        at: a word; hosts with the same word share their addresses. Their own where empty.
        alias: the name that this one is an alias (CNAME) of, in place of `at`.
        families: the IP versions that it has addresses of.
        https: parameters of its HTTPS record (RFC 9460), such as ``alpn="h3,h2"``; none where empty.
        subdomains: whether all names below it are there as well.
    """

    at: str = ""
    alias: str = ""
    families: Annotated[tuple[Literal[4, 6], ...], Field(strict=False, min_length=1)] = (4, 6)
    https: str = ""
    subdomains: bool = False


class FilterTable(_Table):
    """``[filter]``: the configuration's keys of the same names, outside ``[gateway]``."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    intercept: Intercept = "listed"
    tls_block: Literal["page", "alert"] = "page"
    on_error: OnError = "block"
    status: Literal[451, 403] = 451
    http2: bool = False
    monitor: bool = False


class Nodes(_Table):
    """``[fleet]``: several filters behind a router, in place of one; see `urlward.lab.fleet`.

    Attributes:
        nodes: how many.
    """

    nodes: Annotated[int, Field(ge=2, le=MOST_NODES)] = MOST_NODES


class ScenarioRequest(_Table):
    """Request made by each client, and its expected outcome.

    Attributes:
        url: what is asked for; or else
        dns: a name that is asked for, see `type`, `server`, `tcp` and `answer`.
        expect: ``block``: the block page (or the TLS alert, where so set); ``refuse``: does not arrive, by
            whatever means; ``pass``: the origin serves it; ``cut``: the connection `keep` has been ended;
            ``open``: it has not.
        stage: the stage that should have decided; any where not given.
        entry: the entry that should have decided.
        asker: whose address the origin should have seen; any where not given.
        clients: those of the step where empty.
        source: the machine that it is sent from; the step's where not given. ``via2`` is an address of the
            client whose connections lead through the second node of a fleet.
        host: another Host field (or ``:authority``) than the URL's host.
        to: an address or name that is connected to in place of the URL's host.
        keep: a name for this connection, which stays open; used again by requests of the same name
            (Python clients).
        cached: whether the address is the one that this client has resolved before (Python clients).
        raw: what is sent in place of a request (Python clients); ``{tag}`` is the attempt's tag.
        method: of HTTP.
        type: of the DNS record.
        server: the resolver that is asked; the network's where empty.
        tcp: whether over TCP.
        answer: what should be answered.
        without: SVCB parameters that no record of the answer may have.
        why: a sentence for the report.
    """

    url: Url | None = None
    dns: Annotated[str, AfterValidator(_reserved)] | None = None
    expect: Expect | None = None
    stage: Stage | None = None
    entry: str | None = None
    asker: Literal["client", "gateway"] | None = None
    clients: Clients = ()
    source: Source | None = None
    host: str | None = None
    to: str | None = None
    keep: str | None = None
    cached: bool = False
    raw: str | None = None
    method: str = "GET"
    type: Literal["A", "AAAA", "HTTPS"] = "A"
    server: str = ""
    tcp: bool = False
    answer: Answer | None = None
    without: Annotated[tuple[str, ...], Field(strict=False)] = ()
    why: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.url is None) == (self.dns is None):
            raise ValueError("either url or dns is needed")
        if (self.expect is None) == (self.url is not None):
            raise ValueError("url needs expect" if self.url else "dns has answer in place of expect")
        if (self.answer is None) == (self.dns is not None):
            raise ValueError("dns needs answer" if self.dns else "url has expect in place of answer")
        return self

    def beyond_browsers(self, source: str) -> bool:
        """Whether a browser that is only given a URL cannot send it."""
        odd = self.host or self.to or self.method != "GET" or (self.source or source) == "exempt"
        return bool(odd) and not (self.dns or self.keep or self.raw or self.cached)


class Measured(_Table):
    """URL that is measured, from a filtered client and by plain routing from the neighbour."""

    url: Url
    stage: Stage


class Measure(_Table):
    """``measure``: measurements.

    Attributes:
        what: added latency, throughput in requests/s, transfer of large files, or what a reload does.
        urls: for each stage; of ``bulk``, the file's size in MB is its last path segment.
        seconds: for each figure.
        connections: at a time, for throughput.
        names: that a client resolves before each figure, so that their addresses are steered.
    """

    what: Literal["latency", "throughput", "bulk", "reload"]
    urls: Annotated[tuple[Measured, ...], Field(strict=False, min_length=1)]
    seconds: Seconds = 5.0
    connections: Annotated[int, Field(ge=1, le=1000)] = 16
    names: Annotated[tuple[Annotated[str, AfterValidator(_reserved)], ...], Field(strict=False)] = ()


class ScenarioStep(_Table):
    """``[[steps]]``: one step; steps are done in order.

    Attributes:
        name: a heading in the report.
        action: what is done first; see `urlward.lab.actions`.
        wait: seconds to wait for then.
        entries: for ``reload``: the list's lines from now on, besides those that it was begun with.
        value: of the action: seconds (slow-resolver).
        node: of the action: the number of the node that it is done to, or on.
        clients: that send the requests.
        source: the machine they run on.
        requests: all sent at once, four at a time; what has `keep` in order.
        draw: so many listed and as many unlisted URLs of ``[list.make]``.
        within: seconds in which the expectations must come true; asked again until then.
        seconds: the requests are repeated for so long.
        reload_every: seconds after which the list is replaced meanwhile.
        measure: figures.
    """

    name: str = ""
    action: Action | FleetAction | None = None
    wait: Seconds | None = None
    entries: str | None = None
    value: Seconds | None = None
    node: Annotated[int, Field(ge=1, le=MOST_NODES)] = 1
    clients: Clients = ("curl-1-4",)
    source: Source = "client"
    requests: Annotated[tuple[ScenarioRequest, ...], Field(strict=False)] = ()
    draw: Annotated[int, Field(ge=0, le=100_000)] = 0
    within: Seconds | None = None
    seconds: Seconds | None = None
    reload_every: Seconds | None = None
    measure: Measure | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.action or self.wait or self.requests or self.draw or self.measure):
            raise ValueError("a step needs one of action, wait, requests, draw and measure")
        if self.action == "allow" and not (self.requests and self.requests[0].url):
            raise ValueError("allow is for the URL of the step's first request: there is none")
        for number, request in enumerate(self.requests, 1):
            if CHROMIUM in (request.clients or self.clients) and request.beyond_browsers(self.source):
                raise ValueError(f"request {number} is not one that {CHROMIUM} can make")
        return self


class Scenario(_Table):
    """Whole scenario file.

    Attributes:
        description: what it shows, for the report.
        show_urls: whether URLs stand in the report; otherwise it has the lines they are on.
        list, hosts, filter, fleet, steps: see there.
        gateway: ``[gateway]`` of the configuration, as it is there; interfaces and clients are the lab's.
    """

    description: str
    show_urls: bool = False
    list: ListTable
    hosts: dict[Annotated[str, AfterValidator(_reserved)], Host] = {}
    filter: FilterTable = FilterTable()
    gateway: GatewayTable = GatewayTable()
    fleet: Nodes | None = None
    steps: Annotated[tuple[ScenarioStep, ...], Field(strict=False, min_length=1)]

    @field_validator("fleet")
    @classmethod
    def _ways_back(cls, fleet: Nodes | None, info: ValidationInfo) -> Nodes | None:
        gateway = info.data.get("gateway")
        if fleet and gateway and gateway.keep_source:
            raise ValueError("not with gateway.keep_source: origins' answers would come back by another node")
        return fleet

    @field_validator("steps")
    @classmethod
    def _nodes_are_there(
        cls, steps: tuple[ScenarioStep, ...], info: ValidationInfo
    ) -> tuple[ScenarioStep, ...]:
        fleet = info.data.get("fleet")
        nodes = fleet.nodes if fleet else 0
        for number, step in enumerate(steps, 1):
            sources = [step.source, *(request.source or "" for request in step.requests)]
            used = [int(source.removeprefix(_VIA)) for source in sources if source.startswith(_VIA)]
            used += [step.node] if step.action in get_args(FleetAction) else []
            if max(used, default=0) > nodes:
                raise ValueError(f"step {number} is for node {max(used)} of a fleet: [fleet] has {nodes}")
        return steps


@dataclass(frozen=True, slots=True)
class Loaded:
    """Scenario that has been read.

    Attributes:
        name: the file's, without its suffix.
        folder: the file's; other files are named from there.
        gateway: ``[gateway]`` as it was written, for the filter's own configuration.
        lines: of each step, the line of each request in the file; 0 where it cannot be told.
    """

    name: str
    folder: Path
    scenario: Scenario
    gateway: dict[str, Any]
    lines: tuple[tuple[int, ...], ...]


def shipped() -> dict[str, Path]:
    """The scenarios that come with urlward, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def load_scenario(name: str) -> Loaded:
    """Read a scenario: a file, or one that is shipped.

    Raises:
        UrlwardError: there is none, or something in it is wrong; with its place.
    """
    path = shipped().get(name) or Path(name)
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except FileNotFoundError as e:
        known = ", ".join(shipped())
        raise UrlwardError(f"{name}: no such file, and no shipped scenario (there are {known})") from e
    except OSError as e:
        raise UrlwardError(f"{path}: {e.strerror or e}") from e
    except (ValueError, RecursionError) as e:  # also of a number with too many digits
        raise UrlwardError(f"{path}: not TOML: {e}") from e
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as e:
        raise UrlwardError(f"{path}: {_place(e)}") from e
    return Loaded(path.stem, path.resolve().parent, scenario, data.get("gateway", {}), _lines(text, scenario))


def _place(error: ValidationError) -> str:
    """The first error in one line; items of arrays count from 1, as people do."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(f"{part + 1}" if isinstance(part, int) else str(part) for part in first["loc"])
    _, _, message = describe(error).partition(": ")
    return f"{where or 'the file'}: {message.removeprefix('value error, ')}"


def _lines(text: str, scenario: Scenario) -> tuple[tuple[int, ...], ...]:
    """Line numbers of the requests, which stand in the file in the order they are read in."""
    lines = text.splitlines()
    at = 0
    found = []
    for step in scenario.steps:
        numbers = []
        for request in step.requests:
            quoted = re.escape(json.dumps(request.url or request.dns, ensure_ascii=False))
            asks = re.compile(rf"^[^#]*\b(?:url|dns)\s*=\s*{quoted}")
            here = (n for n in range(at, len(lines)) if asks.search(lines[n]))
            number = next(here, None)
            numbers.append(0 if number is None else number + 1)
            at = at if number is None else number + 1
        found.append(tuple(numbers))
    return tuple(found)
