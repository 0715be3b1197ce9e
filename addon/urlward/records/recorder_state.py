"""What the recorder says of itself, for metrics, health and status."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoreState:
    """One store.

    Attributes:
        up: whether what it was given last has been written.
        written: events, since the recorder's start.
        failures: attempts to write that were none.
    """

    up: bool = True
    written: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class RecorderState:
    """Now; counts are since the recorder's start.

    Attributes:
        events: taken, by kind.
        queue: events that are yet to be written.
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
