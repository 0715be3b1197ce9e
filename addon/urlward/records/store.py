"""Event stores: the interface that all kinds have, queries, and nodes; `urlward.records.stores` opens them.

A node is a machine of a shared database, with a name that may change and an identity that does not: random
and made once, in ``node.json`` in the state folder. In a database that several nodes share it tells two of
the same name apart, and one that was given another name is still the one it was.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from urlward.engine.errors import UrlwardError
from urlward.records.event import Event
from urlward.state.folder import StateError, locked, made_folder, read_kept, write_kept

NODE_FILE = "node.json"

_SIZE = 16
_DAMAGED = "this node gets a new identity, with which `urlward records adopt` takes its name"

By = Literal[
    "kind", "list", "category", "entry", "group", "client", "node", "stage", "verdict",
    "minute", "hour", "day",
]  # fmt: skip
"""What events are counted by; of times the beginning, such as ``2026-11-24T12:00:00Z``."""


@dataclass(frozen=True, slots=True)
class Node:
    """Node: name and identity of a machine.

    Attributes:
        name: as the configuration has it now.
        identity: of its state folder, in hexadecimal digits.
    """

    name: str
    identity: str


def node_of(name: str, state: Path) -> Node:
    """Identify this node; its identity is made where it has none.

    Args:
        name: as the configuration has it.
        state: the state folder.

    Raises:
        StateError: the folder cannot be used.
    """
    if found := _read(state):
        return Node(name, found)
    with locked(made_folder(state)):
        if not (identity := _read(state)):
            identity = secrets.token_hex(_SIZE)
            write_kept(state / NODE_FILE, 1, "node", [{"identity": identity}])
    return Node(name, identity)


def _read(state: Path) -> str:
    found = read_kept(state / NODE_FILE, 1, "node", _identity, StateError, _DAMAGED)
    return found[0] if found else ""


def _identity(stored: dict[str, Any]) -> str:
    if len(bytes.fromhex(stored["identity"])) != _SIZE:
        raise ValueError("not an identity")
    return str(stored["identity"])


class StoreError(UrlwardError):
    """A store, or the outbox, that cannot be used now; the message names it, and no secret."""


class AbsentError(StoreError):
    """A store that does not exist yet, since nothing has been recorded."""


class ReplacedError(StoreError):
    """A store's files were deleted, moved or replaced while it was open: it has to be opened anew, and what
    was written to them is gone with them."""


type Inode = tuple[int, int] | None
"""Device and inode of a file; None for one that is not there."""


def identity(*paths: Path) -> tuple[Inode, ...]:
    """Identity of the files at some paths now: a file that was deleted, moved or replaced has another.

    Raises:
        OSError: it cannot be told.
    """
    found: list[Inode] = []
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Query for events; a field that is None is ignored.

    Attributes:
        kinds: any of these; all where empty.
        since: milliseconds since 1970-01-01 UTC, from this time on.
        until: likewise, before this time.
        reference: equal to this, as are the following.
        list: name of the list.
        category: of the entry.
        client: its address as it is kept.
        digests: that an event may have in its place.
        entry: id of the entry.
        group: of the client.
        node: the machine.
        before: id of an event: only those that come after it where the newest is first.
        limit: how many at most.
    """

    kinds: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    reference: str | None = None
    list: str | None = None
    category: str | None = None
    client: str | None = None
    digests: tuple[str, ...] = ()
    entry: str | None = None
    group: str | None = None
    node: str | None = None
    before: str | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Age:
    """Count and age of a store's events of one kind.

    Attributes:
        count: of events.
        oldest: time of the oldest, milliseconds since 1970-01-01 UTC.
    """

    count: int
    oldest: int


class Store(Protocol):
    """Store of events.

    Attributes:
        name: for messages.
    """

    name: str

    def write(self, events: Sequence[Event]) -> None:
        """Write events, atomically where the medium can; one that is there by its id is not written twice.

        Raises:
            ReplacedError: its files are not those that it has opened.
            StoreError: they are not kept.
        """

    def check(self) -> None:
        """Check that the opened files are still there, and a server; costs some system calls, or a question.

        Raises:
            ReplacedError: it has not.
            StoreError: that cannot be told.
        """

    def close(self) -> None:
        """Close the store; no error is raised."""


@runtime_checkable
class KeepingStore(Store, Protocol):
    """Store that can also delete."""

    def ages(self, holds: Collection[str] = ()) -> dict[str, Age]:
        """Count and age of the events of each kind, without the evidence of these references.

        Raises:
            StoreError: it cannot be read.
        """

    def evidence(self, references: Collection[str]) -> list[Event]:
        """Find the evidence of references: the events that have one, and those that describe the version of a
        list (`VERSIONS`) that one of them was listed by.

        Raises:
            StoreError: it cannot be read.
        """

    def purge(
        self,
        kind_days: Mapping[str, int],
        now_ms: int,
        holds: Collection[str] = (),
        node: Node | None = None,
    ) -> int:
        """Delete events older than their kind's days, so that the files no longer contain them.

        Args:
            kind_days: days by kind; kinds that are not in it stay.
            now_ms: milliseconds since 1970-01-01 UTC.
            holds: references whose evidence stays.
            node: that has these days. In a database that several nodes share, events of others are deleted by
                the days that those have said, and events of nodes that have said none by the longest of all.

        Returns:
            How many events it has deleted.

        Raises:
            StoreError: not all is deleted; or the node's name is another's there.
        """
