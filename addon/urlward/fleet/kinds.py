"""Kinds of records that operators decide on one node and that are in force on all: how each is read and
taken.

A node keeps its records in its own files, as it does without a fleet, and these alone are what it goes by;
`urlward.fleet.decisions` carries them to the others. What is sealed is so under a node's local key, and
opened only to be sealed again under the fleet's.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, override

from urlward.config import Config, FeedTable, RecordsTable
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.feeds.refresh import ACCEPTED_FOR
from urlward.feeds.rollback import release, roll_back
from urlward.feeds.status import accept
from urlward.feeds.store import FEEDS, Accepted, FeedStore, Held
from urlward.objections import objections
from urlward.objections.objections import Objection
from urlward.policy import allows, own
from urlward.policy.allows import Allow
from urlward.policy.own import OwnEntry
from urlward.records import holds
from urlward.records.holds import Hold
from urlward.records.privacy import Level, Privacy
from urlward.state.audit_view import Change
from urlward.state.folder import KeptFile, locked, made_folder

logger = logging.getLogger("urlward.fleet")

LONG = 400 * 86_400.0
"""Seconds for which it is known that a record without an end of its own is gone: a node that was away for
less does not bring it back."""

_LEARNED_LONG = 30 * 86_400.0
"""The same of an own entry that the filter has learned, and removed when its last day was over: there may be
thousands a day, and a node that brings one back removes it itself, and blocks nothing by it."""

type Content = dict[str, Any]
"""What a record says, as JSON has it."""


class DecidedBy(NamedTuple):
    """Operator and node that have decided a change.

    Attributes:
        node: its name.
        who: decided it there.
        why: the operator's words, of a removal.
    """

    node: str
    who: str = ""
    why: str = ""


class Coming(NamedTuple):
    """Change that another node has decided.

    Attributes:
        id: of the record.
        content: what it is to say; None where it is to be removed.
        seen: `fingerprint` of the one here.
        origin: where the change comes from.
    """

    id: str
    content: Content | None
    seen: str
    origin: DecidedBy


class OtherHereError(UrlwardError):
    """Another record is here than the one that a change is of.

    Attributes:
        stays: whether it goes before the one that comes; else it is to be looked at first.
    """

    def __init__(self, text: str, *, stays: bool) -> None:
        super().__init__(text)
        self.stays = stays


def fingerprint(record: object) -> str:
    """Tells a record, as it is stored, from others; empty for none."""
    if record is None:
        return ""
    return blake2b(json.dumps(record, sort_keys=True, default=repr).encode(), digest_size=12).hexdigest()


class RecordKind(ABC):
    """Kind of records.

    Args:
        state: the state folder.
        key: its local key.

    Attributes:
        name: of the kind.
        once: whether an id is given once, so that one that was removed is never a new decision.
        lasts: whether a record that is missing without a word of why is lost, and put back; else it has done
            what it was for.
        counts_from: member of the content with when it was made, in seconds.
        topic: of the audit log's lines that say why one was removed; empty where none is.
    """

    name: ClassVar[str]
    topic: ClassVar[str] = ""
    once: ClassVar[bool] = False
    lasts: ClassVar[bool] = True
    counts_from: ClassVar[str] = "created"

    def __init__(self, state: Path, key: Key) -> None:
        self.state = state
        self.key = key

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """Files that change where a record does."""

    @abstractmethod
    def records(self) -> Mapping[str, Any]:
        """Records here, by id.

        Raises:
            UrlwardError: they cannot be read.
        """

    @abstractmethod
    def content(self, record: Any) -> Content:
        """What a record says.

        Raises:
            UrlwardError: it does not open under the local key.
        """

    def ends(self, content: Content) -> float:
        """When a record is over by itself, seconds since 1970-01-01 UTC."""
        return float(content["until"]) if "until" in content else float(content[self.counts_from]) + LONG

    def known_for(self, who: str) -> float:  # noqa: ARG002 - others look at it
        """Seconds for which it is known that a record is gone which somebody has removed."""
        return LONG

    def word(self, change: Change) -> tuple[str, bool]:  # noqa: ARG002 - others look at it
        """Id of the record that a line of the audit log is of, and whether it was removed; empty for none."""
        return "", False

    @abstractmethod
    def take(self, changes: Sequence[Coming], now: float) -> list[str | Exception]:
        """Make this node have what others have decided, each change as far as it can be had here.

        Args:
            changes: of one record each.
            now: seconds since 1970-01-01 UTC.

        Returns:
            For each, `fingerprint` of the record that is here then; or why it is not taken:
            `OtherHereError`, there is another here, or the one here goes before it; any other
            `UrlwardError`, it cannot be had here, or not now; any other error, it is none of this kind.

        Raises:
            UrlwardError: none can be taken now.
        """


class _Kept[T](RecordKind):
    """Records in a file of the state folder.

    Attributes:
        kept: that file.
        id_name: attribute of a record with its id.
        of: makes a record of this node's that says this, sealed under its key.
    """

    kept: ClassVar[KeptFile[Any]]
    id_name: ClassVar[str] = "id"
    of: ClassVar[Callable[[Content, Key], Any]]

    @override
    def files(self) -> Iterable[Path]:
        return (self.state / self.kept.file,)

    @override
    def records(self) -> Mapping[str, T]:
        return {self.id_of(one): one for one in self.kept.read(self.state)}

    @override
    def take(self, changes: Sequence[Coming], now: float) -> list[str | Exception]:
        with locked(made_folder(self.state)):
            kept: list[T | None] = [*self.kept.read(self.state)]
            places = {self.id_of(one): n for n, one in enumerate(kept) if one is not None}
            results: list[str | Exception] = []
            is_other = False
            for change in changes:
                try:
                    record, is_new = self._taken(change, kept, places, now)
                except Exception as e:  # noqa: BLE001 - whoever asks is told, and the others are taken
                    results.append(e)
                else:
                    results.append(fingerprint(record))
                    is_other |= is_new
            if is_other:
                self.kept.write(self.state, [one for one in kept if one is not None])
        return results

    def _taken(
        self, change: Coming, kept: list[T | None], places: dict[str, int], now: float
    ) -> tuple[T | None, bool]:
        """Take one change; returns the record that is here then, and whether it is another than before."""
        place = places.get(change.id)
        here = kept[place] if place is not None else None
        _check(here, change.seen)
        # Told first, each time, as where somebody does it here.
        if change.content is None:
            if place is not None and here is not None:
                self.tell_removed(here, change.origin, now)
                kept[place] = None
                del places[change.id]
            return None, here is not None
        made = self.made(change.content, here, now)
        if self.id_of(made) != change.id:
            raise ValueError("of another id")
        if here is not None and self._says(here, self.content(made)):
            return here, False
        if here is not None and self.goes_before(here, made):
            raise OtherHereError("the one here goes before it", stays=True)
        self.tell(made, here, change.origin, now)
        if place is None:
            places[change.id] = len(kept)
            kept.append(made)
        else:
            kept[place] = made
        return made, True

    def _says(self, here: T, content: Content) -> bool:
        """Whether a record here says this; not where it does not open any more."""
        try:
            return self.content(here) == content
        except UrlwardError:
            return False

    def goes_before(self, here: T, coming: T) -> bool:  # noqa: ARG002 - others look at them
        """Whether the record here is not to be replaced."""
        return False

    def id_of(self, record: T) -> str:
        """Id of a record."""
        return str(getattr(record, self.id_name))

    @override
    def content(self, record: T) -> Content:
        return self.kept.opened(record, self.key)

    def made(self, content: Content, here: T | None, now: float) -> T:  # noqa: ARG002 - others look at them
        """A record of this node's that says this, in place of the one here where there is one."""
        made: T = type(self).of(content, self.key)
        return made

    @abstractmethod
    def tell(self, made: T, before: T | None, origin: DecidedBy, now: float) -> None:
        """Add a line to the audit log; the folder is locked."""

    @abstractmethod
    def tell_removed(self, record: T, origin: DecidedBy, now: float) -> None:
        """Likewise, of a removal."""


class AllowKind(_Kept[Allow]):
    """Temporary allows."""

    name, topic, once, kept = "allow", "allows", True, allows.KEPT
    of = allows.allow_of

    @override
    def word(self, change: Change) -> tuple[str, bool]:
        return str(change.fields.get("id", "")), change.action == "ended"

    @override
    def tell(self, made: Allow, before: Allow | None, origin: DecidedBy, now: float) -> None:
        allows.tell_allow(self.state, now, origin.who, "allowed", made, node=origin.node)

    @override
    def tell_removed(self, record: Allow, origin: DecidedBy, now: float) -> None:
        allows.tell_allow(self.state, now, origin.who, "ended", record, origin.why, node=origin.node)


class OwnKind(_Kept[OwnEntry]):
    """Own entries.

    Args:
        state: the state folder.
        key: its local key.
        refresh: has the list of a name compiled at once.
    """

    name, topic, once, kept = "own", "own", True, own.KEPT
    of = own.own_of

    def __init__(self, state: Path, key: Key, refresh: Callable[[str], object]) -> None:
        super().__init__(state, key)
        self._refresh = refresh

    @override
    def take(self, changes: Sequence[Coming], now: float) -> list[str | Exception]:
        results = super().take(changes, now)
        self._refresh(own.NAME)  # who looks at the file alone does so each second, and twice
        return results

    @override
    def known_for(self, who: str) -> float:
        return _LEARNED_LONG if who == own.LEARNED else LONG

    @override
    def ends(self, content: Content) -> float:
        return _NEVER

    @override
    def word(self, change: Change) -> tuple[str, bool]:
        is_word = change.action in ("own-added", "own-removed")
        return str(change.fields.get("id", "")) if is_word else "", change.action == "own-removed"

    @override
    def tell(self, made: OwnEntry, before: OwnEntry | None, origin: DecidedBy, now: float) -> None:
        own.tell_own(self.state, now, origin.who, "own-added", made, node=origin.node)

    @override
    def tell_removed(self, record: OwnEntry, origin: DecidedBy, now: float) -> None:
        own.tell_own(self.state, now, origin.who, "own-removed", record, why=origin.why, node=origin.node)


_NEVER = float(1 << 36)


class HoldKind(_Kept[Hold]):
    """Holds of references.

    Args:
        state: the state folder.
        key: its local key.
        records: the configuration; None where nothing is recorded.
    """

    name, topic, kept, id_name = "hold", "records", holds.KEPT, "reference"

    def __init__(self, state: Path, key: Key, records: RecordsTable | None) -> None:
        super().__init__(state, key)
        self._records = records

    @override
    def take(self, changes: Sequence[Coming], now: float) -> list[str | Exception]:
        # As `urlward records release`: what is held besides is released first, so that it is tried again as
        # long as that cannot be. Of one that stays here the next purge holds it again before it deletes.
        results: list[str | Exception | None] = [self._not_released(change) for change in changes]
        left = [n for n, failed in enumerate(results) if failed is None]
        for n, result in zip(left, super().take([changes[n] for n in left], now), strict=True):
            results[n] = result
        return [result for result in results if result is not None]

    def _not_released(self, change: Coming) -> UrlwardError | None:
        """Why the assignments of a hold that is released cannot be; None where they are."""
        if change.content is not None or self._records is None:
            return None
        from urlward.assignments.retention import release_configured  # brings SQLAlchemy

        try:
            release_configured(self._records, self.state, change.id)
        except UrlwardError as e:
            return e
        return None

    @override
    def made(self, content: Content, here: Hold | None, now: float) -> Hold:
        return holds.hold_of(content)

    @override
    def word(self, change: Change) -> tuple[str, bool]:
        is_word = change.action in ("held", "released")
        return str(change.fields.get("reference", "")) if is_word else "", change.action == "released"

    @override
    def goes_before(self, here: Hold, coming: Hold) -> bool:
        # What one asks for is not shortened by what another does.
        return here.until > coming.until

    @override
    def tell(self, made: Hold, before: Hold | None, origin: DecidedBy, now: float) -> None:
        holds.tell_hold(self.state, now, "held", made, made.why, origin.who, node=origin.node)

    @override
    def tell_removed(self, record: Hold, origin: DecidedBy, now: float) -> None:
        holds.tell_hold(self.state, now, "released", record, origin.why, origin.who, node=origin.node)


class ObjectionKind(_Kept[Objection]):
    """Objections with their decisions; each node forgets them after the days that it keeps them for, and has
    no more of a client than its privacy level leaves.

    Args:
        state: the state folder.
        key: its local key.
        level: the privacy level.
    """

    name, kept, lasts, counts_from = "objection", objections.KEPT, False, "time"
    of = objections.objection_of

    def __init__(self, state: Path, key: Key, level: Level) -> None:
        super().__init__(state, key)
        self._privacy = Privacy(level, key.secret)

    @override
    def made(self, content: Content, here: Objection | None, now: float) -> Objection:
        # One that has come in here, and is decided elsewhere, keeps what this node has of its client.
        client = self._privacy.kept(content["client"], round(now * 1000)) if here is None else here.client
        return super().made(content | {"client": client}, here, now)

    @override
    def tell(self, made: Objection, before: Objection | None, origin: DecidedBy, now: float) -> None:
        if made.state != "open":
            objections.tell_decision(self.state, made, node=origin.node)

    @override
    def tell_removed(self, record: Objection, origin: DecidedBy, now: float) -> None:
        raise ValueError("no objection is removed by a decision")


class _OfFeed[T](RecordKind):
    """Records of what is decided of feeds, by their names.

    Args:
        state: the state folder.
        key: its local key.
        config: of the filter.
        refresh: has a feed of a name refreshed.
    """

    counts_from = "at"

    def __init__(self, state: Path, key: Key, config: Config, refresh: Callable[[str], object]) -> None:
        super().__init__(state, key)
        self.config = config
        self.refresh = refresh

    @override
    def files(self) -> Iterable[Path]:
        return tuple(self.state / FEEDS / f"{feed.name}.json" for feed in self.config.feed)

    @override
    def records(self) -> Mapping[str, T]:
        found = ((feed.name, self.of(FeedStore(self.state, feed.name))) for feed in self.config.feed)
        return {name: one for name, one in found if one is not None}

    @override
    def content(self, record: T) -> Content:
        return asdict(record)  # type: ignore[call-overload,no-any-return]

    @override
    def take(self, changes: Sequence[Coming], now: float) -> list[str | Exception]:
        results: list[str | Exception] = []
        for change in changes:
            try:
                feed, here = self._feed(change.id, change.seen)
                if change.content is None:
                    self.undo(feed, here, change.origin, now)
                    results.append("")
                else:
                    results.append(fingerprint(self.do(feed, here, change.content, change.origin, now)))
            except Exception as e:  # noqa: BLE001 - whoever asks is told, and the others are taken
                results.append(e)
        return results

    @abstractmethod
    def of(self, store: FeedStore) -> T | None:
        """The one of a feed."""

    @abstractmethod
    def do(
        self, feed: FeedTable, here: T | None, content: Content, origin: DecidedBy, now: float
    ) -> T | None:
        """Do as was decided; returns what is decided here then."""

    @abstractmethod
    def undo(self, feed: FeedTable, here: T | None, origin: DecidedBy, now: float) -> None:
        """Take back what was decided."""

    def _feed(self, name: str, seen: str) -> tuple[FeedTable, T | None]:
        """Feed of a name, and what is decided of it here.

        Raises:
            UrlwardError: there is none.
            OtherHereError: something else is.
        """
        feed = next((feed for feed in self.config.feed if feed.name == name), None)
        if feed is None:
            raise UrlwardError(f"{name}: no such feed here")
        here = self.of(FeedStore(self.state, name))
        _check(here, seen)
        return feed, here


class RollbackKind(_OfFeed[Held]):
    """Feeds that are held at an earlier list."""

    name, topic = "rollback", "lists"

    @override
    def of(self, store: FeedStore) -> Held | None:
        return store.facts().held

    @override
    def ends(self, content: Content) -> float:
        return _NEVER

    @override
    def word(self, change: Change) -> tuple[str, bool]:
        # Of a list that is published here, these actions are of another thing.
        is_word = change.action in ("rolled-back", "released") and "published" not in change.fields
        return str(change.fields.get("feed", "")) if is_word else "", change.action == "released"

    @override
    def do(self, feed: FeedTable, here: Held | None, content: Content, origin: DecidedBy, now: float) -> Held:
        wanted = Held(**content)
        if here is not None and here.serial == wanted.serial:
            return here
        return roll_back(
            feed, self.config, self.state, wanted.serial, why=wanted.why, who=f"{wanted.who} ({origin.node})",
            now=now,
        )  # fmt: skip

    @override
    def undo(self, feed: FeedTable, here: Held | None, origin: DecidedBy, now: float) -> None:
        if here is not None:
            release(feed, self.state, why=origin.why, who=f"{origin.who} ({origin.node})", now=now)
            self.refresh(feed.name)


class AcceptanceKind(_OfFeed[Accepted]):
    """Candidates of feeds that are let through once, on each node; also those that are used up here, which
    may be before the others have heard of them."""

    name, lasts = "acceptance", False

    @override
    def of(self, store: FeedStore) -> Accepted | None:
        facts = store.facts()
        return facts.accepted or facts.used

    @override
    def ends(self, content: Content) -> float:
        return float(content["at"]) + ACCEPTED_FOR

    @override
    def do(
        self, feed: FeedTable, here: Accepted | None, content: Content, origin: DecidedBy, now: float
    ) -> Accepted | None:
        if here is not None and here.at == content["at"]:
            return here
        # The digest of a candidate is keyed, and no other node's: one of about that size is meant.
        like = Accepted(**content | {"content": "-" if content["content"] else ""})
        why = f"accepted at {origin.node}"
        accept(feed, self.state, why=why, who=origin.who, now=now, like=like)
        self.refresh(feed.name)
        return self.of(FeedStore(self.state, feed.name))

    @override
    def undo(self, feed: FeedTable, here: Accepted | None, origin: DecidedBy, now: float) -> None:
        raise ValueError("no acceptance is taken back")


def all_kinds(state: Path, key: Key, config: Config, refresh: Callable[[str], object]) -> list[RecordKind]:
    """All kinds of records.

    Args:
        state: the state folder.
        key: its local key.
        config: of the filter.
        refresh: has a feed of a name refreshed.
    """
    records = config.records
    kept: list[RecordKind] = [
        AllowKind(state, key),
        OwnKind(state, key, refresh),
        HoldKind(state, key, records),
    ]
    if records is not None and records.days.blocks is not None:  # else nothing would ever delete them here
        kept.append(ObjectionKind(state, key, records.privacy))
    return kept + [kind(state, key, config, refresh) for kind in (RollbackKind, AcceptanceKind)]


def _check(here: object, seen: str) -> None:
    if fingerprint(here) != seen:
        raise OtherHereError("another is here", stays=False)
