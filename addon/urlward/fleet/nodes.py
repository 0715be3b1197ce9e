"""Nodes of a fleet: what each says of itself once a second, and how it is by that.

It is sealed as all else is: names of lists are nobody's business. A node that says nothing is shown as away,
for `FORGET` seconds.

Two nodes of one name write over each other. Each process says a random number of its own, and finds another's
in its place again and again.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from urlward.engine.errors import ArtifactError
from urlward.fleet.connection import AwayError, FleetConnection
from urlward.policy.own import NAME as OWN_ENTRIES

BEAT = 1.0
"""Seconds between two times that a node says how it is."""

READ_IN_A_SECOND = 100
"""Reports of nodes that one reads in a second: where there are more, it looks at all of them more seldom,
since what Valkey would send grows with the square of their number."""

AWAY_AFTER = 4.0
"""Seconds without a word after which a node is away."""

TWIN_AFTER = 2
"""Words of another process in this one's place after which another node has its name: one alone is of the
process before."""

TWIN_GONE_AFTER = 4
"""Looks in a row without one after which none has it any more."""

FORGET = 7 * 86_400.0
"""Seconds after which it is no more one of them."""

STATES = ("up", "failing", "away")
"""States of a node: it filters as it should; it says that something is wrong; it says nothing."""

_LISTS, _ALARMS = 128, 50


class FleetNode(NamedTuple):
    """Node as it has said itself to be.

    Attributes:
        name: of it.
        state: one of `STATES`.
        silent: seconds since it has said something.
        version: of urlward.
        lists: serials in force, by name.
        behind: feeds of artifacts of which another node that is not away has a later serial; of what a node
            compiles itself the serials are its own.
        connections: of clients, now.
        judged, blocked: in the last hour.
        load: of the machine, in the last minute.
        alarms: kinds of those that last.
        twin: whether another node says that it is this one.
    """

    name: str
    state: str
    silent: float
    version: str
    lists: Mapping[str, int]
    behind: tuple[str, ...]
    connections: int
    judged: int
    blocked: int
    load: float
    alarms: tuple[str, ...]
    twin: bool = False


class NodeReport(msgspec.Struct, frozen=True):
    """Report of a node on itself; attributes as of `FleetNode`.

    Attributes:
        at: when it has said so, by Valkey's clock.
        ok: whether all is as it should be.
        process: random number of the process that says so.
        issued: those of `lists` that somebody else has issued, so that serials mean the same on all nodes,
            and that are not held at an earlier one; None where it does not say so, as one of a version
            before.
    """

    at: float
    ok: bool
    version: str
    lists: dict[str, int]
    connections: int
    judged: int
    blocked: int
    load: float
    alarms: list[str]
    process: str = ""
    twin: bool = False
    issued: list[str] | None = None

    def serials(self) -> dict[str, int]:
        """Serials that can be compared with those of other nodes."""
        names = {*self.lists} - {OWN_ENTRIES} if self.issued is None else {*self.issued}
        return {name: serial for name, serial in self.lists.items() if name in names}


def said_of(status: Mapping[str, Any], version: str, load: float, at: float) -> NodeReport:
    """What a node says of itself.

    Args:
        status: as `urlward.records.status.status_of` has it.
        version: of urlward.
        load: of the machine.
        at: the time by Valkey's clock.
    """
    return NodeReport(
        at=at,
        ok=status["ok"],
        version=version,
        lists={one["name"]: one["serial"] for one in status["lists"][:_LISTS]},
        issued=[
            one["name"] for one in status["feeds"] if one["kind"] == "artifact" and one["state"] != "held"
        ][:_LISTS],
        connections=status["connections"],
        judged=status["hour"]["judged"],
        blocked=status["hour"]["blocked"],
        load=load,
        alarms=sorted(status["alarms"])[:_ALARMS],
    )


async def read_nodes(connection: FleetConnection) -> list[FleetNode] | None:
    """All nodes, by name; None where Valkey is away."""
    found = await connection.ask(("HGETALL", connection.name("nodes")))
    if found is None:
        return None
    rows: dict[str, NodeReport] = {}
    for name, sealed in zip(found[0][::2], found[0][1::2], strict=True):
        if (said := _report(connection, name, sealed)) is not None:
            rows[name.decode()] = said
    return nodes_of(rows, connection.now())


def _report(connection: FleetConnection, name: bytes, sealed: bytes | None) -> NodeReport | None:
    """What a node has said; None for nothing, and for what makes no sense: a later version's, or nobody's."""
    with suppress(ArtifactError, ValueError):
        # With its name, so that nobody without the key has it stand for another node.
        node, said = msgspec.json.decode(connection.seal.unseal(sealed or b""), type=tuple[str, NodeReport])
        if node.encode() == name:
            return said
    return None


def nodes_of(rows: Mapping[str, NodeReport], now: float) -> list[FleetNode]:
    """Nodes by what they have said, as of a time by Valkey's clock."""
    newest: dict[str, int] = {}
    # Valkey's clock may have been set back since: what a node says lies never far ahead.
    silent = {name: abs(now - said.at) for name, said in rows.items()}
    for name, said in rows.items():
        for one, serial in said.serials().items() if silent[name] < AWAY_AFTER else ():
            newest[one] = max(serial, newest.get(one, 0))
    return [
        FleetNode(
            name,
            "away" if silent[name] >= AWAY_AFTER else "up" if said.ok and not said.twin else "failing",
            silent[name],
            said.version,
            said.lists,
            tuple(one for one, serial in said.serials().items() if serial < newest.get(one, 0)),
            said.connections,
            said.judged,
            said.blocked,
            said.load,
            tuple(said.alarms),
            said.twin,
        )
        for name, said in sorted(rows.items())
    ]


class FleetNodes:
    """Nodes of a fleet, as the recording process of one sees them.

    Args:
        connection: of this process.
        describe: what this node says of itself at a time.
        twin: is told once that another node has this one's name, and once that none has it any more.

    Attributes:
        connection: as given.
    """

    def __init__(
        self,
        connection: FleetConnection,
        describe: Callable[[float], NodeReport],
        twin: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.connection = connection
        self._latest: list[FleetNode] | None = None
        self._describe = describe
        self._tell_of_twin = twin
        self._process = os.urandom(8).hex()
        self._twin = False
        self._looks = 0
        """Looks in a row that found one, while there is no twin, and that found none, while there is."""
        connection.on_begin(self._say_always)

    @property
    def latest(self) -> list[FleetNode] | None:
        """All nodes as they were last seen; None while nobody can be asked."""
        return self._latest if self.connection.up else None

    def counts(self) -> dict[str, int]:
        """How many nodes are in each state; empty while that is not known."""
        if (nodes := self.latest) is None:
            return {}
        return {state: sum(node.state == state for node in nodes) for state in STATES}

    async def _say_always(self) -> None:
        connection = self.connection
        key, due = connection.name("nodes"), 0.0
        while True:
            described = self._describe(connection.now())
            report = msgspec.structs.replace(described, process=self._process, twin=self._twin)
            said = msgspec.json.encode((connection.node, report))
            before = await connection.ask(
                ("HGET", key, connection.node), ("HSET", key, connection.node, connection.seal.seal(said))
            )
            if before is not None:
                self._look_for_twin(_report(connection, connection.node.encode(), before[0]))
            found = await read_nodes(connection) if time.monotonic() >= due else None
            if found is not None:
                due = time.monotonic() + len(found) / READ_IN_A_SECOND - BEAT / 2
                gone = [node.name for node in found if node.silent > FORGET]
                if gone:
                    await connection.ask(("HDEL", key, *gone))
                self._latest = [node for node in found if node.name not in gone]
            await asyncio.sleep(BEAT)

    def _look_for_twin(self, said: NodeReport | None) -> None:
        """Look at what was in this node's place before it has said something."""
        other = said is not None and said.process != self._process
        self._looks = self._looks + 1 if other is not self._twin else 0
        if self._looks >= (TWIN_GONE_AFTER if self._twin else TWIN_AFTER):
            self._looks, self._twin = 0, not self._twin
            self._tell_of_twin(self._twin)


async def look_at_nodes(connection: FleetConnection, within: float) -> list[FleetNode]:
    """Ask for all nodes once.

    Args:
        connection: that nobody runs.
        within: seconds.

    Raises:
        AwayError: Valkey is away.
    """
    try:
        async with asyncio.timeout(within), connection.connected():
            found = await read_nodes(connection)
    except TimeoutError as e:
        raise AwayError("Valkey does not answer in time") from e
    if found is None:
        raise AwayError("Valkey does not answer")
    return found


def row_of(node: FleetNode) -> dict[str, Any]:
    """A node as JSON has it."""
    return {**node._asdict(), "silent": round(node.silent), "load": round(node.load, 2)}
