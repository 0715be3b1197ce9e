"""What is measured, and how long."""

from dataclasses import dataclass
from enum import StrEnum


class Case(StrEnum):
    """One kind of traffic."""

    KEEP = "plain keep-alive"
    CLOSE = "plain new connection each"
    EXPLICIT = "explicit keep-alive"
    INTERCEPTED = "TLS intercepted"
    RELAYED = "TLS relayed"
    NEW_INTERCEPTED = "new TLS intercepted"
    RESUMED_INTERCEPTED = "resumed TLS intercepted"
    NEW_RELAYED = "new TLS relayed"
    RESUMED_RELAYED = "resumed TLS relayed"
    CONNECT_INTERCEPTED = "CONNECT intercepted"
    CONNECT_RELAYED = "CONNECT relayed"
    HTTP2 = "HTTP/2"
    DOWNLOAD = "download plain"
    DOWNLOAD_INTERCEPTED = "download intercepted"
    BLOCK = "block page"
    RELOAD = "reload in the middle"


DOWNLOADS = frozenset({Case.DOWNLOAD, Case.DOWNLOAD_INTERCEPTED})
INTERCEPTING = frozenset(
    {Case.INTERCEPTED, Case.NEW_INTERCEPTED, Case.RESUMED_INTERCEPTED, Case.CONNECT_INTERCEPTED, Case.HTTP2,
     Case.DOWNLOAD_INTERCEPTED}
)  # fmt: skip
RELAYING = frozenset({Case.RELAYED, Case.NEW_RELAYED, Case.RESUMED_RELAYED, Case.CONNECT_RELAYED})
RESUMING = frozenset({Case.RESUMED_INTERCEPTED, Case.RESUMED_RELAYED})
TUNNELLED = frozenset({Case.CONNECT_INTERCEPTED, Case.CONNECT_RELAYED})
EACH_NEW = RESUMING | TUNNELLED | {Case.NEW_INTERCEPTED, Case.NEW_RELAYED}
"""TLS, with a new connection for each request."""

MODES = ("transparent", "regular", "CONNECT", "reverse", "socks5")
"""Of the soak: ways in which clients come to the filter."""

GOAL_ENTRIES = 1_000_000
"""The list that the limits are for."""

PROXY_CORE, LOAD_CORE = 0, 1
"""The load's core also has the origin; the row without a proxy says what it can do."""

PROCESSES = 8
"""Load generators at a time, each with requests of its own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything.

    Attributes:
        entries: in urlward's list.
        peer_entries: in everybody else's.
        rounds: turns that each proxy takes.
        warm_up: seconds of load before a cell.
        explicit_warm_up: those before the cell of the explicit proxy, which keeps connections.
        seconds: of load in a cell.
        reload_seconds: of load in the cell with a reload.
        downloads: in a cell, one after the other.
        download_bytes: of each.
        urls: different ones that are asked for.
        connections: of each load generator.
        soak_every: seconds between reloads.
        soak_segment: seconds that one set of load generators runs in the soak.
    """

    entries: int = GOAL_ENTRIES
    peer_entries: int = 20_000
    rounds: int = 3
    warm_up: int = 1
    explicit_warm_up: int = 3
    seconds: int = 2
    reload_seconds: int = 6
    downloads: int = 4
    download_bytes: int = 50_000_000
    urls: int = 100_000
    connections: int = 4
    soak_every: float = 5
    soak_segment: int = 30


FULL = Plan()
QUICK = Plan(
    entries=20_000, peer_entries=2_000, rounds=1, warm_up=0, explicit_warm_up=0, seconds=1, reload_seconds=3,
    downloads=1, soak_segment=10,
)  # fmt: skip
