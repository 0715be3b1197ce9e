"""What the recorder says of itself, for metrics, health and status."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from urlward.records.store_alarms import ENDS


@dataclass(frozen=True, slots=True)
class StoreState:
    """One store.

    Attributes:
        up: whether it takes what it is given.
        written: events, since the recorder's start.
        failures: attempts to write that were none.
    """

    up: bool = True
    written: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class RecorderState:
    """Now; counts are since the recorder's start. What is spooled or dropped counts once for each store.

    Attributes:
        events: taken, by kind.
        queue: events that wait in memory for the store that most wait for.
        spool_events, spool_bytes: on the disk while a store is down.
        spool_limit: bytes that the spool may have.
        dropped: events that found no place.
        stores: by name.
        alarms: what each one that lasts says, by kind.
        raised: how often each kind of alarm has begun.
    """

    events: Mapping[str, int] = field(default_factory=dict)
    queue: int = 0
    spool_events: int = 0
    spool_bytes: int = 0
    spool_limit: int = 0
    dropped: int = 0
    stores: Mapping[str, StoreState] = field(default_factory=dict)
    alarms: Mapping[str, str] = field(default_factory=dict)
    raised: Mapping[str, int] = field(default_factory=dict)


class SinkState(Protocol):
    """How one store does, as `urlward.records.sink` has it."""

    @property
    def up(self) -> bool:
        """Whether it takes events."""

    @property
    def written(self) -> int:
        """Events."""

    @property
    def failures(self) -> int:
        """Writes that were none."""

    @property
    def queued(self) -> int:
        """Events that wait in memory."""

    @property
    def spooled(self) -> int:
        """Events that wait on the disk."""

    @property
    def spool_bytes(self) -> int:
        """They take there."""

    @property
    def dropped(self) -> int:
        """Events that found no place."""


def recorder_state(
    sinks: Iterable[tuple[str, SinkState]],
    *,
    events: Mapping[str, int],
    raised: Mapping[str, int],
    alarms: Mapping[str, str],
    spool_limit: int,
) -> RecorderState:
    """Of all stores together.

    Args:
        sinks: how each store does, by its name.
        events: taken, by kind.
        raised: alarms that have begun, by kind.
        alarms: those that last.
        spool_limit: bytes that all spools may have.
    """
    states = dict(sinks)
    return RecorderState(
        events=dict(events),
        queue=max((state.queued for state in states.values()), default=0),
        spool_events=sum(state.spooled for state in states.values()),
        spool_bytes=sum(state.spool_bytes for state in states.values()),
        spool_limit=spool_limit,
        dropped=sum(state.dropped for state in states.values()),
        stores={name: StoreState(s.up, s.written, s.failures) for name, s in states.items()},
        alarms=dict(alarms),
        raised={kind: count for kind, count in raised.items() if kind not in ENDS},
    )
