"""State of one list that is kept in force: the list as loaded, and its file."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import time

from urlward.engine.artifact import Header
from urlward.engine.digest import Key
from urlward.engine.errors import KeyFileError
from urlward.engine.loaded import LoadedList
from urlward.feeds.own import OwnList
from urlward.feeds.watch import PathWatch
from urlward.state.keys import read_key
from urlward.state.watch import Signature, Watch
from urlward.units import counted


@dataclass(frozen=True, slots=True)
class ListFile:
    """File of a list that is to be kept in force.

    Attributes:
        path: a source or an artifact that the operator names, or
        keys: that an artifact may be under, besides that of all lists.
        name: of the list, in place of the artifact's or the file's.
        stored: a configured feed's artifact in the store (`urlward.feeds.store`): it may not be there
            yet.
        guarded: whether it cannot block protected hosts at host level.
        trust: public keys and rotation statements of who may sign an artifact, and so which issue of it is
            taken; empty where all are.
        key_files: of `keys`, read again where an artifact is under a key that none of those is.
        state: the state folder in which a stored artifact that is no good is set aside, so that it is fetched
            anew; None where it stays, since who reads it is not the filter.
    """

    path: Path
    keys: tuple[Key, ...] = ()
    name: str = ""
    stored: bool = False
    guarded: bool = False
    trust: tuple[str, ...] = ()
    key_files: tuple[Path, ...] = ()
    state: Path | None = None

    def key(self, named: bytes) -> Key | None:
        """Find the key of an id; None where it is not there."""
        for key in self.keys:
            if key.id == named:
                return key
        for path in self.key_files:
            with suppress(KeyFileError):
                if (key := read_key(path)).id == named:
                    return key
        return None


@dataclass(slots=True)
class Kept:
    """State of a list and its artifact in the store.

    Attributes:
        spec: what it is.
        watch: of the artifact.
        own: where the operator names the list.
        source: of its path.
        facts_watch: of what is remembered of its refreshes.
        loaded: what the artifact holds; None where there is none yet.
        began: when a refresh began whose artifact is yet to come into force, monotonic.
        again: when what the file has is tried again, monotonic; None where that would be no use.
        refused: why what the file has now is not in force, as the log said; empty where it is.
        lags: how often in a row the file had changed again when it came into force, or could not be read.
        lag_said: when that was said last, monotonic.
    """

    spec: ListFile
    watch: Watch
    own: OwnList | None = None
    loaded: LoadedList | None = None
    began: float | None = None
    again: float | None = None
    refused: str = ""
    lags: int = 0
    lag_said: float = float("-inf")
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    refreshing: asyncio.Lock = field(default_factory=asyncio.Lock)
    reloads_wanted: int = 0
    reloads_begun: int = 0
    facts_watch: Watch = field(init=False)
    source: PathWatch = field(init=False)

    def __post_init__(self) -> None:
        self.facts_watch = Watch(self.watch.path.with_suffix(".json"))
        self.source = PathWatch(self.spec.path)

    @property
    def header(self) -> Header | None:
        """Header of the artifact in force."""
        return None if self.loaded is None else self.loaded.artifact.header

    @property
    def stays(self) -> str:
        """What is in force in place of what is refused, for the log."""
        return "nothing on it is blocked" if self.loaded is None else "the last good one stays in force"

    @property
    def name(self) -> str:
        """The list's name."""
        return self.spec.name or (self.loaded.name if self.loaded is not None else "")

    @property
    def entries(self) -> int:
        """Number of entries, with those that have expired."""
        return 0 if self.loaded is None else self.loaded.entries

    def take(self, loaded: LoadedList, signature: Signature | None) -> LoadedList | None:
        """Put an artifact in force; returns what has gone out of use."""
        old, self.loaded = self.loaded, loaded
        self.watch.seen, self.refused, self.again = signature, "", None
        return old


def entries_text(loaded: LoadedList | None) -> str:
    """Format the number of a list's entries in force now, for the log."""
    expired, entries = (0, 0) if loaded is None else (loaded.expired(time()), loaded.entries)
    told = f"{counted(entries - expired, 'entry')} in force"
    return told + (f" ({expired} more expired)" if expired else "")
