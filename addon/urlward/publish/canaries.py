"""Canaries: how nodes fare that have a new list first, and whether that keeps it from all others.

Publishers ask the nodes, by the metrics that each has for Prometheus: those are there already, on a port that
is open to whoever monitors, and a node needs to know nothing of its being a canary but the URL that its feed
is fetched from. A node is judged against itself: its rates from the moment when it has the list, against all
that it has counted before.
"""

import math
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from urlward.config import Config, PublishCanaryTable
from urlward.engine.digest import Key
from urlward.engine.entry import Kind
from urlward.engine.errors import UrlwardError
from urlward.engine.grammar import parse_line
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.feeds.fetch import fetch
from urlward.feeds.source import FeedOrigin, FetchError
from urlward.feeds.status import STATES
from urlward.regular import open_given, without_bom
from urlward.samples import PROTECTED

TIMEOUT = 10.0
"""Seconds that a canary may take to answer."""

_MOST = 1 << 24
_BLOCKS, _FAULTS = 0.005, 0.001
"""Share of the requests by which blocks and faults may rise, whatever they were."""

_FEW = 10
"""Blocks, faults or objections that say nothing yet."""

_COUNTABLE = 1 << 53
"""Counts from here on are none; their sum could have no place in a record."""

_JUDGED = ("peek", "match")


class Sample(msgspec.Struct):
    """Counters of a canary.

    Attributes:
        serial: of the list that is in force there; 0 for none.
        state: of its feed.
        requests: judged.
        blocks: by the list.
        faults: of the filter.
        objections: that clients have made.
    """

    serial: int = 0
    state: str = ""
    requests: float = 0.0
    blocks: float = 0.0
    faults: float = 0.0
    objections: float = 0.0

    def on_top_of(self, other: "Sample") -> "Sample":
        """These counters, with others added."""
        added = {name: getattr(self, name) + getattr(other, name) for name in _COUNTED}
        return structs.replace(self, **added)


_COUNTED = ("requests", "blocks", "faults", "objections")


def ask(node: PublishCanaryTable, name: str) -> Sample:
    """Ask a canary how it fares.

    Args:
        node: which.
        name: of the list, which is that of its feed there too.

    Raises:
        UrlwardError: it does not say.
    """
    try:
        with open_given(Path(node.token_file)) as file:
            token = without_bom(file.read(1 << 16)).decode().strip()
    except (OSError, ValueError) as e:
        raise UrlwardError(f"{node.token_file}: {getattr(e, 'strerror', None) or 'not text'}") from e
    origin = FeedOrigin(f"{node.url}/metrics", token=token, ca=node.ca, timeout=TIMEOUT, max_bytes=_MOST)
    answer = fetch(origin)
    if answer.fd is None:
        raise FetchError(f"{node.url}: no metrics there", "status")
    try:
        text = os.pread(answer.fd, answer.size, 0).decode()
        return parse_sample(text, name)
    except ValueError as e:
        raise FetchError(f"{node.url}: no metrics of urlward", "protocol") from e
    finally:
        os.close(answer.fd)


def parse_sample(text: str, name: str) -> Sample:
    """Read an exposition (Prometheus text format).

    Raises:
        ValueError: it is none.
    """
    found = Sample()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels, value = sample.labels, sample.value
            if not math.isfinite(value):
                continue  # such as the serial of no list that there is
            of_list = name in (labels.get("list"), labels.get("feed"))
            match sample.name:
                case "urlward_requests_total" if labels.get("stage") in _JUDGED:
                    found.requests += value
                case "urlward_blocks_total" | "urlward_would_blocks_total" if of_list:
                    found.blocks += value
                case "urlward_errors_total":
                    found.faults += value
                case "urlward_events_total" if labels.get("kind") == "objection":
                    found.objections += value
                case "urlward_list_serial" if of_list:
                    found.serial = int(value)
                case "urlward_feed_state" if of_list and value:
                    found.state = next((state for state in STATES if state == labels.get("state")), "")
    for total in (found.requests, found.blocks, found.faults, found.objections):
        if not 0 <= total < _COUNTABLE:
            raise ValueError("not what is counted")
    return found


def has_begun_anew(before: Sample, now: Sample) -> bool:
    """Whether a canary's counters have begun at zero since."""
    return now.requests < before.requests or now.faults < before.faults


def judge(before: Sample, now: Sample, rise: float) -> str:
    """Why a canary's rates since a moment are none to put up with; empty where they are.

    Args:
        before: as the list came into force there.
        now: of the same node, later.
        rise: times its own rate before that is put up with.
    """
    requests = now.requests - before.requests
    for what, then, count, slack in (
        ("blocks", before.blocks, now.blocks - before.blocks, _BLOCKS),
        ("faults", before.faults, now.faults - before.faults, _FAULTS),
        ("objections", before.objections, now.objections - before.objections, 0.0),
    ):
        rate = then / before.requests if before.requests else 0.0
        expected = max(rate * rise, rate + slack) * requests
        if count > expected + 4 * math.sqrt(expected) + _FEW:  # chance has its part in small numbers
            return f"{count:.0f} {what} of {requests:.0f} requests, where {rate:.2%} was usual"
    return ""


def protected_hosts(config: Config) -> list[str]:
    """Hosts that the configuration protects.

    Raises:
        UrlwardError: a list of them cannot be read.
    """
    paths = [PROTECTED] * config.protect + [Path(path) for path in config.protected]
    found: dict[str, None] = {}
    for path in paths:
        try:
            lines = path.read_bytes().splitlines()
        except OSError as e:
            raise UrlwardError(f"{path}: {e.strerror or e}") from e
        found |= dict.fromkeys(_hosts(lines))
    return list(found)


def _hosts(lines: Iterable[bytes]) -> Iterable[str]:
    for line in lines:
        try:
            entries = parse_line(line.decode())
        except (UrlwardError, ValueError):
            continue  # who compiles it says so
        yield from (entry.host for entry in entries if entry.kind in (Kind.HOST, Kind.DOMAIN))


def protected_listed(data: bytes, key: Key, hosts: Iterable[str]) -> int:
    """Number of protected hosts that an artifact would block whole.

    Raises:
        ArtifactError: it is no good, or of another key.
    """
    matcher = Matcher([load(data, key)])
    return sum(matcher.level(host) == "whole" for host in hosts)
