"""From a number of subscribers to nodes, cores, memory, and the load of what all nodes share.

A day is walked in steps of five minutes; what a step needs comes from rates of traffic (`Traffic`, assumed)
and from what each thing costs (`Figures`, measured). No queues: a resource is enough up to the share of it
that may be busy, and a thing that needs more than there can be of it breaks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from benchmarks.scale.figures import Figures

from urlward.assignments.schema import SPANS

STEP = 300
"""Seconds."""

DAY = 86_400
_BINS = 400
"""Steps of popularity that names are counted in."""

RECEIVER, REPORT = 40, 440
"""Bytes by which a worker sees that a node is to be waited for, and in which that says how it is, with six
lists."""

READ_IN_A_SECOND = 100
"""Of the latter, a node reads so many in a second (`urlward.fleet.nodes`, whose extra need not be here)."""

CONNTRACK, STEERED = 320, 160
"""Bytes of a tracked connection and of a steered address in the kernel (docs, Performance)."""


@dataclass(frozen=True)
class Traffic:
    """What is assumed of a network; an operator has figures of his own, each an option of the command.

    Attributes:
        mbit: routed for a subscriber in the busiest hour, both ways, in Mbit/s.
        packet: bytes of a mean packet.
        connections: that a subscriber opens in a second of it.
        open_for: seconds for which a connection is tracked.
        queries: of DNS, likewise.
        night: traffic of the quietest hour, of the busiest one's.
        steered: share of connections whose address has a listed name.
        tls: share of these that are TLS; `listed`: share of these whose host has an entry, and is decrypted.
        requests: of a connection.
        blocks: blocked requests of a subscriber in a day.
        assignments: intervals that a subscriber has in a day, and `days` for which they are kept.
        names: listed names that anybody visits, with `addresses` each, asked for by Zipf's law.
        element: seconds for which an address is steered before another answer has to renew it.
    """

    mbit: float = 3.0
    packet: float = 900.0
    connections: float = 1.0
    open_for: float = 60.0
    queries: float = 0.5
    night: float = 0.25
    steered: float = 0.002
    tls: float = 0.9
    listed: float = 0.2
    requests: float = 6.0
    blocks: float = 0.01
    assignments: float = 2.0
    days: float = 180.0
    names: float = 50_000.0
    addresses: float = 2.0
    element: float = 600.0


@dataclass(frozen=True)
class Limits:
    """Of what there is only so much.

    Attributes:
        busy: share of a core that may be in use in the busiest step, with `spare` nodes out of service.
        cores: of a node, and `gbit` that it forwards.
        clients: connections that one Valkey takes (its `maxclients`), and `sockets` of a node to it.
        steer_set: addresses that a node's sets hold.
        messages: that one Valkey delivers in a second, each to one node.
        gbit_valkey: that it sends.
        writers: processes that write to one PostgreSQL without getting in each other's way.
        terabytes: that one PostgreSQL has for assignments.
        gbit_lists: that the server of lists sends, and `seconds` until all nodes are to have a change.
    """

    busy: float = 0.5
    cores: int = 32
    gbit: float = 100.0
    spare: int = 2
    clients: int = 10_000
    sockets: int = 4
    steer_set: int = 500_000
    messages: float = 1_000_000.0
    gbit_valkey: float = 10.0
    writers: int = 8
    terabytes: float = 20.0
    gbit_lists: float = 10.0
    seconds: float = 5.0


class Moment(NamedTuple):
    """What a step of the day needs, of all nodes together.

    Attributes:
        hour: of the day, in hours.
        gbit: routed.
        kernel, filter, dns: cores that are busy.
        renewals: addresses steered anew in a second. What one node steers all do, and none says it again
            before it is needed.
        events: a second.
        assignments: likewise.
    """

    hour: float
    gbit: float
    kernel: float
    filter: float
    dns: float
    renewals: float
    events: float
    assignments: float


class Need(NamedTuple):
    """How much of a thing is needed, and how much there can be of it.

    Attributes:
        what: the thing.
        need: what the busiest step needs of it; `limit`: how much there is.
        unit: of both.
        grows: how it grows with subscribers, in words.
    """

    what: str
    need: float
    limit: float
    unit: str
    grows: str

    @property
    def share(self) -> float:
        """Of the limit."""
        return self.need / self.limit


class Plan(NamedTuple):
    """What a number of subscribers needs.

    Attributes:
        nodes: with the spare ones.
        by_line: whether it is the line that there have to be so many for, and not the cores.
        memory: bytes of a node, for urlward and what it has the kernel keep.
        steered: addresses in each node's sets.
        day: all steps.
        needs: of what there is only so much.
        rows: assignments that are kept, and `partitions` with a day each of one class of length, at most.
    """

    subscribers: float
    nodes: int
    by_line: bool
    memory: float
    steered: float
    day: list[Moment]
    needs: list[Need]
    rows: float
    partitions: int

    @property
    def first(self) -> Need:
        """What breaks first."""
        return max(self.needs, key=lambda need: need.share)

    def peak(self, name: str) -> float:
        """The most of one of the attributes of `Moment` that a step needs."""
        return max(float(getattr(moment, name)) for moment in self.day)


def curve(hour: float, night: float) -> float:
    """Traffic of an hour, as a share of the busiest one's: least at five in the morning, most at nine."""
    turn = (hour - 5) % 24
    part = turn / 16 if turn < 16 else (24 - turn) / 8
    return night + (1 - night) * (1 - math.cos(math.pi * part)) / 2


def plan(subscribers: float, traffic: Traffic, limits: Limits, figures: Figures) -> Plan:
    """What so many subscribers need."""
    day = list(_day(subscribers, traffic, figures))
    by_cores = max(m.kernel + m.filter + m.dns for m in day) / limits.busy / limits.cores
    by_line = max(m.gbit for m in day) / limits.busy / limits.gbit
    working = math.ceil(max(by_cores, by_line))
    nodes = working + limits.spare
    steered = _steered(subscribers, traffic)
    tracked = subscribers * traffic.connections * traffic.open_for / working
    workers = max(1, math.ceil(max(m.filter + m.dns for m in day) / limits.busy / working))
    memory = figures.first_worker + (workers - 1) * figures.worker + tracked * CONNTRACK + steered * STEERED
    rows = subscribers * traffic.assignments * traffic.days
    written, kept, writers = max(m.assignments for m in day), rows * figures.interval / 1e12, limits.writers
    acknowledged = 2 * max(m.renewals for m in day) * nodes
    # Each worker looks each second who is to be waited for, and one of each node how the others are.
    seen = nodes * (workers * nodes * RECEIVER + min(nodes, READ_IN_A_SECOND) * REPORT) * 8 / 1e9
    lists = nodes * figures.delta * 8 / 1e9 / limits.seconds
    needs = [
        Need("connections to Valkey", nodes * limits.sockets, limits.clients, "connections", "as nodes"),
        Need("addresses in a steer set", steered, limits.steer_set, "addresses", "as names asked for"),
        Need("messages of Valkey", acknowledged, limits.messages, "messages/s", "as nodes times these names"),
        Need("what nodes see of each other", seen, limits.gbit_valkey, "Gbit/s", "as nodes times nodes"),
        Need("blocks", max(m.events for m in day), figures.events * writers, "rows/s", "as subscribers"),
        Need("assignments", written, figures.intervals * writers, "rows/s", "as subscribers"),
        Need("assignments kept", kept, limits.terabytes, "TB", "as subscribers times days"),
        Need("a change of a list", lists, limits.gbit_lists, "Gbit/s", "as nodes"),
    ]  # fmt: skip
    partitions = sum(math.ceil(traffic.days * DAY / max(DAY, span / 1000)) + 1 for span in SPANS)
    return Plan(subscribers, nodes, by_line > by_cores, memory, steered, day, needs, rows, partitions)


def _day(subscribers: float, traffic: Traffic, figures: Figures) -> Iterator[Moment]:
    total = sum(curve(second / 3600, traffic.night) for second in range(0, DAY, STEP)) * STEP
    for second in range(0, DAY, STEP):
        part = curve(second / 3600, traffic.night)
        mbit = subscribers * traffic.mbit * part
        opened = subscribers * traffic.connections * part * traffic.steered
        tls = opened * traffic.tls
        decrypted, plain = tls * traffic.listed, opened - tls
        events = subscribers * traffic.blocks * part / total
        queries = subscribers * traffic.queries * part
        yield Moment(
            hour=second / 3600,
            gbit=mbit / 1000,
            kernel=mbit * 1e6 / 8 / traffic.packet * figures.packet_s,
            filter=plain / figures.new_plain
            + plain * (traffic.requests - 1) / figures.keep_alive
            + (tls - decrypted) / figures.relayed
            + decrypted / figures.intercepted
            + decrypted * (traffic.requests - 1) / figures.http2
            + events / figures.blocked,
            dns=queries / figures.answers,
            renewals=sum(
                many * traffic.addresses * often / (1 + often * traffic.element)
                for many, often in _asked(queries * traffic.steered, traffic.names)
            ),
            events=events,
            assignments=subscribers * traffic.assignments * part / total,
        )


def _asked(queries: float, names: float) -> Iterator[tuple[float, float]]:
    """Names by popularity, in bins: how many, and how often each of them is asked for in a second (Zipf)."""
    whole = math.log(names) + 0.5772
    edges = [names ** (i / _BINS) for i in range(_BINS + 1)]
    for low, high in pairwise(edges):
        yield high - low, queries * math.log(high / low) / whole / (high - low)


def _steered(subscribers: float, traffic: Traffic) -> float:
    """Addresses that any node steers at a time: all nodes have them."""
    queries = subscribers * traffic.queries * traffic.steered
    return traffic.addresses * sum(
        many * often * traffic.element / (1 + often * traffic.element)
        for many, often in _asked(queries, traffic.names)
    )
