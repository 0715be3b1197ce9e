"""Shared decisions: what an operator decides on one node is in force on all within a second.

Two keys in Valkey: ``decided``, a hash of all records by kind and id, each sealed, and ``decisions``, a
stream of the names of those that have changed. A task in the service process of each node looks whether a
record in its own files has changed, and tells the others; what they tell it puts into these files, as if
somebody had decided it here, and the audit log says who did, and on which node.

A record has a version, time and node, and the latest stands; the time is Valkey's, and always later than that
of what it replaces, so that no wrong clock undoes what was decided in knowledge of the other. A record that
was removed leaves a mark with a version of its own. That it was removed is known from the audit log alone:
one that is missing without a word there is lost, with its file, and comes back from the others.

``decisions.json`` in the state folder has the versions that this node knows. Without it, a record counts from
when it was made, so that what was removed elsewhere does not come back. Valkey may be away, empty, or lack
the last changes: whenever it is there again, each node takes what is later there, and gives what is later
here.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import batched, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from urlward.engine.errors import UrlwardError, fault_text
from urlward.fleet.connection import FleetConnection, StreamEntry
from urlward.fleet.kinds import (
    Coming,
    Content,
    DecidedBy,
    OtherHereError,
    RecordKind,
    fingerprint,
)
from urlward.state.audit_view import ChangeQuery, find_changes
from urlward.state.folder import locked, made_folder, read_kept, write_kept
from urlward.state.watch import Signature

logger = logging.getLogger("urlward.fleet")

FILE = "decisions.json"

LOOK = 0.2
"""Seconds between two looks whether a record here has changed."""

AGAIN = 5.0
"""Seconds after which what could not be taken, told or saved is tried again; each time in a row after twice
as long, up to `MERGE_EVERY`."""

FORGET_EVERY = 60.0
"""Seconds between two times that what is over is forgotten."""

MERGE_EVERY = 600.0
"""Seconds between two merges where there is no reason for one."""

KEPT = 120.0
"""Seconds for which the stream keeps its entries; who was away for longer merges anyway."""

A_LOOK = 1_000
"""Records that are read from Valkey, or told it, at a time; the files that they go to are written once."""

_VERSION = 1
_AT_ONCE = 100
"""Records that are taken while the folder is locked: each has a line in the audit log, and others wait."""

_CHANGES = 5_000
"""Lines of the audit log that are read at a time to find why a record is missing."""

_LONGEST_ID = 200
_MOST_SAID = 1_000
"""Troubles that are said, each once: who writes to Valkey must not fill the log."""

_DAY = 86_400.0


class RecordVersion(NamedTuple):
    """Version of a record: the later one stands.

    Attributes:
        time: milliseconds since 1970-01-01 UTC.
        node: that made it.
    """

    time: int
    node: str


@dataclass(slots=True)
class Known:
    """Knowledge of a record: its version, and whether it is here.

    Attributes:
        version: of it.
        here: `fingerprint` of the one in this node's files; empty where there is none.
        ends: when it may be forgotten, seconds since 1970-01-01 UTC.
        gone: who removed it, and why; None where nobody has.
        was: `fingerprint` of the one that was here before it was removed: who puts that one back has decided
            nothing.
        told: whether Valkey has this version, as far as this node knows.
    """

    version: RecordVersion
    here: str
    ends: float
    gone: tuple[str, str] | None = None
    was: str = ""
    told: bool = field(default=False, compare=False)


class Shared(NamedTuple):
    """Record as it is shared.

    Attributes:
        name: kind and id, under which it is shared: one that is sealed is no other's, whoever moves it.
        version: of it.
        ends: as of `Known`.
        gone: likewise.
        who: decided it.
        content: empty where it is gone.
    """

    name: str
    version: RecordVersion
    ends: float
    gone: tuple[str, str] | None
    who: str
    content: Content

    def packed(self) -> bytes:
        """As JSON."""
        return json.dumps(self._asdict(), sort_keys=True).encode()

    @classmethod
    def read(cls, data: bytes) -> "Shared":
        """Undo `packed`.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        found = json.loads(data)
        gone = found["gone"]
        return cls(
            str(found["name"]),
            RecordVersion(int(found["version"][0]), str(found["version"][1])), float(found["ends"]),
            None if gone is None else (str(gone[0]), str(gone[1])), str(found["who"]), dict(found["content"]),
        )  # fmt: skip


class SharedDecisions:
    """Decisions of this node, and of the others.

    Args:
        connection: of this process.
        state: the state folder.
        kinds: of records.
        alarm: is told what another node has decided and is not in force here.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        connection: FleetConnection,
        state: Path,
        kinds: Sequence[RecordKind],
        alarm: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._state = state
        self._alarm = alarm
        self._clock = clock
        self._kinds = {kind.name: kind for kind in kinds}
        self._seen: dict[str, tuple[Signature | None, ...]] = {}
        self._known: dict[str, Known] = {}
        self._read = False
        self._written: Signature | None = None
        """Of the file, as this process has read or written it."""
        self._changed = False
        self._owing = True
        """Whether there may be something that Valkey has not been told."""
        self._forgotten = 0.0
        """When what is over was last forgotten, seconds since 1970-01-01 UTC."""
        self._merged = False
        """Whether Valkey has nothing that is later than what is here; before, this node tells nothing."""
        self._one = asyncio.Lock()
        """Held by whoever uses the files."""
        self._merging = asyncio.Event()
        self._lost = False
        """Whether a record is to be had back from the others."""
        self._failed = False
        """Whether there is one in Valkey that could not be taken."""
        self._saving = 0.0
        """When the file may be written again, by the clock of `monotonic`."""
        self._was: dict[str, str] = {}
        """`fingerprint` of records that were lost here."""
        self._said: set[str] = set()
        # Not the name alone: another node may have the same by mistake.
        self._process = f"{connection.node} {os.urandom(6).hex()}"
        self._hash, self._stream = connection.name("decided"), connection.name("decisions")
        connection.follow(self._stream, self._take)
        connection.on_begin(self._begin)

    async def run(self) -> None:
        """Share until cancelled."""
        while True:
            async with self._one:
                await self._look_here()
                await self._tell()
            await asyncio.sleep(LOOK)

    async def _in_thread[Result](self, work: Callable[[], Result]) -> Result:
        """Do some work on the files, to its end also where this is cancelled: who holds the lock next must
        not meet it."""
        doing = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait((doing,))
            if not doing.cancelled():
                doing.exception()  # that nobody waits for it is no fault
            raise

    # --- what is decided here

    async def _look_here(self) -> None:
        await self._in_thread(self._look)
        if self._lost:
            self._lost = False
            self._merging.set()

    def _look(self) -> None:
        """Find what has changed in this node's files."""
        now = self._clock()
        while not self._read or not self._is_as_written():
            if self._read:
                logger.warning("fleet: %s: as of another day: the other nodes know better", FILE)
                self._know_nothing_later()
            written = Signature.of(self._state / FILE)
            # Of kinds that this node shares no more, or not yet, nothing is known.
            known = (one for one in self._load() if one[0].partition(":")[0] in self._kinds)
            self._known, self._written = dict(known), written
            self._read = True
        for kind in self._kinds.values():
            signatures = tuple(Signature.of(path) for path in kind.files())
            if self._seen.get(kind.name) == signatures:
                continue
            try:
                self._look_at(kind, now)
            except UrlwardError as e:
                self._say(f"{kind.name}: not shared: {e}")
                continue
            self._seen[kind.name] = signatures
        if not self._is_as_written():
            self._merged = False  # nothing of what has been found is told before the next look
            return
        if abs(now - self._forgotten) >= FORGET_EVERY:
            self._forgotten = now
            self._forget(now)
        self._save()

    def _is_as_written(self) -> bool:
        """Whether the file is the one that this process has read or written last, or gone."""
        return Signature.of(self._state / FILE) in (None, self._written)

    def _know_nothing_later(self) -> None:
        """Where a copy of an earlier day has been put back, what is in it is no decision of today: nothing is
        told until all that is later has been taken."""
        self._merged, self._lost = False, True
        self._seen.clear()
        self._saving = time.monotonic() + AGAIN  # more of it may be on its way, this process's own file too

    def _look_at(self, kind: RecordKind, now: float) -> None:
        records = kind.records()
        missing: set[str] = set()
        closed = 0
        for name, known in self._of(kind):
            id_ = name.partition(":")[2]
            if known.here and id_ not in records:
                missing.add(id_)
        for id_, record in records.items():
            name, print_ = f"{kind.name}:{id_}", fingerprint(record)
            before = self._known.get(name)
            if before is not None and before.here == print_:
                continue
            if before is not None and before.gone is not None and (kind.once or print_ == before.was):
                before = None
                self._know_nothing_later()
            try:
                content = kind.content(record)
            except UrlwardError:
                closed += 1
                continue
            made = round(float(content[kind.counts_from]) * 1000) if before is None else 0
            self._known[name] = Known(self._later(before, made), print_, kind.ends(content))
            self._changed = True
        if closed:
            self._say(f"{kind.name}: not shared, since it does not open under the local key: {closed}")
        if missing:
            self._miss(kind, missing, now)

    def _later(self, before: Known | None, made: int = 0) -> RecordVersion:
        """Version that is later than another; a record that nobody has shared yet counts from when it was
        made."""
        at = made or round((self._connection.now() if self._connection.up else self._clock()) * 1000)
        if before is not None:
            at = max(at, before.version.time + 1)
        return RecordVersion(at, self._connection.node)

    def _miss(self, kind: RecordKind, missing: Collection[str], now: float) -> None:
        """Tell records that were removed from those that are over, or lost."""
        words, lost = self._last_words(kind, missing), 0
        for id_ in missing:
            name = f"{kind.name}:{id_}"
            known = self._known[name]
            was, known.here, known.told, self._changed = known.here, "", False, True
            if (gone := words.get(id_)) is not None:
                version = self._later(known)
                # By the later of two clocks: of an end that is past the others would know nothing.
                ends = max(now, version.time / 1000) + kind.known_for(gone[0])
                self._known[name] = Known(version, "", ends, gone, was)
            elif kind.lasts and known.ends > now:
                # With its file: what the others have of it is put back.
                self._known.pop(name)
                self._was[name] = was
                lost += 1
        if lost:
            self._lost = True
            logger.warning("fleet: %s: lost here, and taken from the other nodes: %d", kind.name, lost)

    def _last_words(self, kind: RecordKind, ids: Collection[str]) -> dict[str, tuple[str, str]]:
        """Who has removed records, and why, of those of which the audit log says so last."""
        words: dict[str, tuple[str, str]] = {}
        left, before = set(ids), None
        while left and kind.topic:
            query = ChangeQuery(topics=(kind.topic,), before=before, limit=_CHANGES)
            found = find_changes(self._state, query)
            for change in found:
                id_, is_removal = kind.word(change)
                if id_ in left:
                    left.discard(id_)
                    if is_removal:
                        words[id_] = change.who, str(change.fields.get("why", ""))
            if len(found) < _CHANGES:
                break
            before = found[-1].at
        return words

    def _of(self, kind: RecordKind) -> list[tuple[str, Known]]:
        return [(name, one) for name, one in self._known.items() if name.startswith(f"{kind.name}:")]

    def _forget(self, now: float) -> None:
        # Valkey is told first, where it is there at all.
        for name in [
            name
            for name, known in self._known.items()
            if not known.here and known.ends < (now if known.told else now - _DAY)
        ]:
            del self._known[name]
            self._changed = True
        # What was not over by Valkey's clock at the last look may be by now.
        self._owing |= any(not known.told and not known.here for known in self._known.values())

    async def _tell(self) -> None:
        """Tell the others what Valkey has not been told."""
        if not self._connection.up:
            self._merged = False
        if not self._merged or not self._owing:
            return
        self._owing = False
        names = [name for name, known in self._known.items() if not known.told]
        records: dict[str, Mapping[str, Any]] = {}
        for i in range(0, len(names), A_LOOK):
            some = names[i : i + A_LOOK]
            sealed = await self._in_thread(lambda some=some: [*self._sealed(some, records)])  # type: ignore[misc]
            over = [name for name in some if self._is_over_there(name)]
            if not await self._store(sealed, over):
                self._owing = True
                return

    def _is_done(self, name: str) -> bool:
        """Whether a record is no more, and nobody need know it."""
        known = self._known.get(name)
        return known is not None and not known.here and (known.gone is None or known.ends < self._clock())

    def _is_over_there(self, name: str) -> bool:
        """Whether a record is done, and Valkey may forget it: what is over by this node's clock alone is in
        force on the others."""
        known, kind = self._known.get(name), self._kinds[name.partition(":")[0]]
        return (
            known is not None
            and self._is_done(name)
            and (known.gone is not None or not kind.lasts or known.ends < self._connection.now())
        )

    def _sealed(
        self, names: Iterable[str], records: dict[str, Mapping[str, Any]]
    ) -> Iterator[tuple[str, RecordVersion, bytes]]:
        for name in names:
            known = self._known.get(name)
            if known is None or self._is_done(name):
                continue
            kind_name, _, id_ = name.partition(":")
            content: Content = {}
            who = known.gone[0] if known.gone else ""
            if known.gone is None:
                kind = self._kinds[kind_name]
                try:
                    if kind_name not in records:
                        records[kind_name] = kind.records()
                    record = records[kind_name].get(id_)
                    if fingerprint(record) != known.here:
                        continue  # it has changed meanwhile: the next look finds it
                    content = kind.content(record)
                except UrlwardError as e:
                    self._say(f"{kind_name} {id_}: not shared: {e}")
                    continue
                who = str(content.get("who", ""))
            shared = Shared(name, known.version, known.ends, known.gone, who, content)
            yield name, known.version, self._connection.seal.seal(shared.packed())

    async def _store(self, sealed: Sequence[tuple[str, RecordVersion, bytes]], over: Sequence[str]) -> bool:
        commands: list[Sequence[str | bytes | int]] = []
        if sealed:
            since = max(round((self._connection.now() - KEPT) * 1000), 0)
            rows = [part for name, _, data in sealed for part in (name, data)]
            commands.append(("HSET", self._hash, *rows))
            named, versions = (json.dumps([one[i] for one in sealed]) for i in (0, 1))
            entry = ("p", self._process, "n", named, "v", versions)
            commands.append(("XADD", self._stream, "MINID", "~", since, "*", *entry))
        if over:
            commands.append(("HDEL", self._hash, *over))
        if commands and await self._connection.ask(*commands, atomically=True) is None:
            return False
        for name, version, _ in sealed:
            known = self._known.get(name)
            if known is not None and known.version == version:
                known.told = True
        for name in over:
            if (known := self._known.get(name)) is not None:
                known.told = True
                if not known.here and known.ends < self._clock():
                    del self._known[name]
                    self._changed = True
        return True

    # --- what others decide

    async def _take(self, entries: list[StreamEntry]) -> None:
        names: dict[str, None] = {}
        for entry in entries:
            if entry.fields.get(b"p", b"") == self._process.encode():
                continue
            try:
                versions = json.loads(entry.fields.get(b"v", b"[]"))
                for name, version in zip_longest(json.loads(entry.fields.get(b"n", b"")), versions):
                    known = self._known.get(name)
                    # As each says anew what it has after Valkey has lost its data.
                    if known is None or version is None or known.version != tuple(version):
                        names[str(name)] = None
            except (ValueError, TypeError):
                self._say("an entry of another node is not understood")
        wanted = [*names]
        for i in range(0, len(wanted), A_LOOK):
            some = wanted[i : i + A_LOOK]
            found = await self._connection.ask(("HMGET", self._hash, *some))
            if found is None:
                return
            pairs = [(name, data) for name, data in zip(some, found[0], strict=True) if data is not None]
            await self._take_all(pairs)

    async def _take_all(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        async with self._one:
            await self._look_here()
            if await self._in_thread(lambda: self._take_each(pairs)):
                self._merging.set()
            await self._tell()

    def _take_each(self, pairs: Iterable[tuple[str, bytes]]) -> bool:
        """Take records; whether one of them has to be looked at again."""
        wanted: dict[str, dict[str, Shared]] = {}
        for name, data in pairs:
            kind_name, _, id_ = name.partition(":")
            if kind_name not in self._kinds or not id_.isprintable() or len(id_) > _LONGEST_ID:
                continue
            try:
                shared = Shared.read(self._connection.seal.unseal(data))
                if shared.name != name:
                    raise ValueError("another record")
                if self._is_later(name, shared):
                    wanted.setdefault(kind_name, {})[name] = shared
            except Exception as e:  # noqa: BLE001 - whatever another node writes, the others are taken
                self._refuse(name, e)
        again = False
        for kind_name, records in wanted.items():
            for some in batched(records.items(), _AT_ONCE):
                again |= self._take_some(self._kinds[kind_name], dict(some))
        self._save()
        return again

    def _is_later(self, name: str, shared: Shared) -> bool:
        """Whether a record is later than what is here, and to be taken."""
        known = self._known.get(name)
        if known is not None and known.version >= shared.version:
            # What is later here goes there; what is over here is still to be taken away there.
            known.told = known.version == shared.version and not self._is_done(name)
            self._owing |= not known.told
            return False
        if known is not None:
            known.told = True  # whatever becomes of it here, what is earlier does not go in its place
        has_here = known is not None and known.here
        if shared.ends < self._clock() and shared.gone is None and shared.ends >= self._connection.now():
            return False  # this node's clock is ahead: once it is not, there is something to be taken
        if shared.ends < self._clock() and not (has_here and shared.gone is not None):
            self._known[name] = Known(shared.version, known.here if known else "", shared.ends, shared.gone)
            self._changed = True
            return False
        if known is None and shared.gone is not None:
            was = self._was.pop(name, "")
            self._known[name] = Known(shared.version, "", shared.ends, shared.gone, was, told=True)
            self._changed = True
            return False
        return True

    def _take_some(self, kind: RecordKind, wanted: Mapping[str, Shared]) -> bool:
        """Take records of a kind that are later than those here; returns as `_take_each`.

        What cannot be had here now stays as it is, and is tried again: nothing is known of it that is not so.
        """
        changes = []
        for name, shared in wanted.items():
            known, gone = self._known.get(name), shared.gone
            origin = DecidedBy(shared.version.node, shared.who, gone[1] if gone else "")
            content = shared.content if gone is None else None
            before = known.here if known is not None else ""
            changes.append(Coming(name.partition(":")[2], content, before, origin))
        self._seen.pop(kind.name, None)  # whatever the files are like afterwards, they are worth a look
        results: Sequence[str | Exception]
        try:
            results = kind.take(changes, self._clock())
        except UrlwardError as e:
            results = [e] * len(changes)
        again = False
        for (name, shared), result in zip(wanted.items(), results, strict=True):
            if isinstance(result, str):
                known = self._known.get(name)
                was = known.here if known is not None and shared.gone is not None else ""
                self._known[name] = Known(shared.version, result, shared.ends, shared.gone, was, told=True)
            elif isinstance(result, OtherHereError) and result.stays:
                known = self._known[name]
                version = RecordVersion(shared.version.time + 1, self._connection.node)
                self._known[name] = Known(version, known.here, known.ends)
            elif isinstance(result, OtherHereError):
                again = self._failed = True
            elif isinstance(result, UrlwardError):
                again = self._failed = True
                done, is_so = ("decided", "not in force") if shared.gone is None else ("removed", "still")
                text = f"{name.replace(':', ' ', 1)}, {done} at {shared.version.node}, is {is_so} here"
                if self._say(f"{text}: {result}"):
                    self._alarm(text)
            else:
                self._refuse(name, result)
        self._changed = True
        return again

    def _refuse(self, name: str, error: Exception) -> None:
        what = fault_text(error) if isinstance(error, UrlwardError) else "not understood"
        self._say(f"{name.replace(':', ' ', 1)} of another node is not taken: {what}")

    # --- coming, and coming back

    async def _begin(self) -> None:
        again = AGAIN
        while True:
            self._merging.clear()
            try:
                done = await self._merge()
            except Exception as e:  # noqa: BLE001 - this node would tell nothing any more
                self._say(f"not merged with the other nodes: {fault_text(e)}")
                done = False
            if done and not self._failed:
                wait, again = MERGE_EVERY, AGAIN
            else:
                wait, again = again, min(2 * again, MERGE_EVERY)
            try:
                async with asyncio.timeout(wait):
                    await self._merging.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(LOOK)

    async def _merge(self) -> bool:
        """Take what is later in Valkey, and give it what is later here.

        Returns:
            Whether it is done.
        """
        async with self._one:
            self._merged = self._failed = False
            await self._look_here()
            for name, known in self._known.items():
                known.told = self._is_done(name) and known.told
            self._owing = True
        cursor = b"0"
        while True:
            found = await self._connection.ask(("HSCAN", self._hash, cursor, "COUNT", A_LOOK))
            if found is None:
                return False
            cursor, rows = found[0]
            async with self._one:
                pairs = [
                    (n.decode(errors="replace"), data) for n, data in zip(rows[::2], rows[1::2], strict=True)
                ]
                await self._in_thread(lambda pairs=pairs: self._take_each(pairs))  # type: ignore[misc]
            if cursor == b"0":
                break
        async with self._one:
            self._merged = True
            await self._tell()
        return True

    # --- the file

    def _load(self) -> Iterator[tuple[str, Known]]:
        then = "each record counts from when it was made"

        def made(stored: Mapping[str, Any]) -> tuple[str, Known]:
            at, node = stored["version"]
            gone = stored["gone"]
            return str(stored["name"]), Known(
                RecordVersion(int(at), str(node)), str(stored["here"]), float(stored["ends"]),
                None if gone is None else (str(gone[0]), str(gone[1])), str(stored.get("was", "")),
            )  # fmt: skip

        yield from read_kept(self._state / FILE, _VERSION, "decisions", made, UrlwardError, then)

    def _save(self) -> None:
        self._owing |= self._changed
        if not self._changed or time.monotonic() < self._saving or not self._is_as_written():
            return
        rows = [
            {"name": name, **{k: v for k, v in asdict(known).items() if k != "told"}}
            for name, known in self._known.items()
        ]
        try:
            with locked(made_folder(self._state)):
                write_kept(self._state / FILE, _VERSION, "decisions", rows)
                self._written = Signature.of(self._state / FILE)
        except UrlwardError as e:
            # What is decided is shared all the same: without the file a record counts from when it was made.
            self._saving = time.monotonic() + AGAIN
            self._say(str(e))
            return
        self._changed = False

    def _say(self, text: str) -> bool:
        """Say something once; returns whether that was now."""
        if text in self._said or len(self._said) >= _MOST_SAID:
            return False
        self._said.add(text)
        logger.error("fleet: %s", text)
        return True
