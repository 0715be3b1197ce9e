"""Known files in responses: which bodies are inspected, and what becomes of what is found in them."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Final

from urlward.config import FilesTable
from urlward.engine.entry import PDQ
from urlward.engine.verdict import Verdict
from urlward.files.body import SEGMENTS, BodySeen, Inspection, Room, facts_of
from urlward.files.inspection import Inspector, PictureFound
from urlward.files.seen import DROPPED
from urlward.proxy.block_page import BlockResponse, plain
from urlward.proxy.guard import Guard
from urlward.proxy.head import ResponseHead
from urlward.proxy.names import Client, Names
from urlward.proxy.relay import Pending
from urlward.proxy.threads import Threads
from urlward.records.metrics import HASHED
from urlward.records.privacy import network_of
from urlward.records.worker import FileAction, KnownFile

CLASSIFIER: Final = "classifier"

AT_ONCE: Final = 0.001
"""Seconds for which the event loop itself waits for a thread that begins at once: where the loop is busy,
that would have no time to begin for a second or two."""

_THREADS: Final = 4
"""Client networks for which something is undone at a time."""

_SUSPECTED: Final = Verdict("monitor", "file")
"""Verdict on what a classifier takes for something."""


class KnownFiles:
    """Inspection of responses.

    Args:
        table: the configuration.
        inspector: looks at pictures; None where nobody does.
        secret: for keyed digests of places, which all workers have.
    """

    def __init__(self, table: FilesTable, inspector: Inspector | None = None, secret: bytes = b"") -> None:
        self._table = table
        self._inspector = inspector if table.inspects else None
        self._secret = secret
        self._room = Room()
        self._threads = Threads(_undo, "inflate", threads=_THREADS)

    def inspection(
        self, guard: Guard, client: Client, pending: Pending, head: ResponseHead
    ) -> Inspection[BlockResponse] | None:
        """Choose the inspection of a response's body; None for none.

        Args:
            guard: decides.
            client: whose response it is.
            pending: its request.
            head: its own.

        Raises:
            Exception: the filter's own, where no response may pass because of one.
        """
        try:
            algorithms = guard.matcher().file_algorithms
            if not algorithms:
                return None
            table = self._table
            exact = algorithms - {PDQ} if table.exact else ()
            inspector = self._inspector if PDQ in algorithms or table.classifier else None
            if not exact and inspector is None:
                return None
            facts = facts_of(head.status, head.fields, head.length)
            judge = _Response(table, guard, client, pending, inspector)
            place = self._place(pending.names) if inspector is not None and table.video else ""
            aside = partial(begin, self._threads, network_of(str(client.peername[0])))
            return Inspection(facts, table, exact, judge, inspector, place, self._room, aside)
        except Exception as e:
            if guard.failed(e, client):
                return None
            raise

    def _place(self, names: Names) -> str:
        """Keyed digest of the folder that a response is from: what segments of a stream lack is there."""
        folder = names.target.partition("?")[0].rpartition("/")[0]
        text = "\n".join([*names.hosts, folder]).encode("latin-1", "replace")
        return blake2b(text, key=self._secret, digest_size=16).hexdigest()


type _Step = tuple[Future[bytes], Callable[[], bytes]]


def begin(
    threads: Threads[_Step, None], network: str, work: Callable[[], bytes], then: Callable[[], None]
) -> Future[bytes]:
    """Have something done for a network (`urlward.files.body.Aside`)."""
    loop = asyncio.get_running_loop()

    def tell(_: Future[bytes]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits for it
            loop.call_soon_threadsafe(then)

    done: Future[bytes] = Future()
    at_once = threads.begins_at_once(network)
    threads.ask(network, (done, work), lambda _: None)
    if at_once:
        wait([done], AT_ONCE)
    if not done.done():
        done.add_done_callback(tell)
    return done


def _undo(step: _Step) -> None:
    done, work = step
    if done.set_running_or_notify_cancel():
        try:
            done.set_result(work())
        except BaseException as e:  # noqa: BLE001 - whoever waits is told
            done.set_exception(e)


@dataclass(eq=False, slots=True)
class _Response:
    """Judge of one response (`urlward.files.body.Judge`)."""

    _table: FilesTable
    _guard: Guard
    _client: Client
    _pending: Pending
    _inspector: Inspector | None
    _told: set[tuple[str, ...]] = field(default_factory=set)
    """Entries that it was told of, of which a video may have a frame each second, each with algorithm and
    action: one id often stands for digests of all kinds, and what is only said of one cuts by another."""

    def exact(self, digests: Mapping[str, bytes], seen: BodySeen) -> BlockResponse | None:
        """Decide on a body's digests."""
        guard = self._guard
        try:
            for what, number in zip(HASHED, (1, seen.size), strict=True):
                guard.metrics.files(what, number)
        except Exception as e:  # noqa: BLE001 - no fault of ours may let it pass
            return self._fault(e)
        return self.so_far(digests, seen)

    def so_far(self, digests: Mapping[str, bytes], seen: BodySeen) -> BlockResponse | None:
        """Decide on the digests of what has come of a body."""
        guard = self._guard
        try:
            verdict = guard.matcher().check_file(digests, guard.clock(), guard.rule_for(self._client))
            if not verdict.listed:
                return None
            return self._known(verdict, verdict.algorithm, self._table.action, seen)
        except Exception as e:  # noqa: BLE001 - as above
            return self._fault(e)

    def alike(self, found: PictureFound, seen: BodySeen) -> BlockResponse | None:
        """Decide on what the inspector has found."""
        guard, pictures = self._guard, self._table.pictures
        try:
            if found.algorithm == CLASSIFIER:
                return self._known(_SUSPECTED, CLASSIFIER, "alert", seen, found)
            if pictures == "off":
                return None
            verdict = guard.matcher().file_verdict(
                found.list, found.row, guard.clock(), guard.rule_for(self._client), distance=found.distance
            )
            action: FileAction = "learn" if pictures == "cut" and seen.gone else pictures
            return self._known(verdict, PDQ, action, seen, found) if verdict.listed else None
        except Exception as e:  # noqa: BLE001 - as above
            return self._fault(e)

    def unseen(self) -> None:
        """Count a body that there is no room for."""
        if self._inspector is not None:
            self._inspector.count(DROPPED)
        else:
            self._guard.metrics.files(DROPPED)

    def _fault(self, error: Exception) -> BlockResponse | None:
        """Log an error of the filter; the response in the place of this one, where that must not pass."""
        if self._guard.failed(error, self._client):
            return None
        return plain(503, "The filter could not decide on this response.", head=False)

    def _known(
        self,
        verdict: Verdict,
        algorithm: str,
        action: FileAction,
        seen: BodySeen,
        found: PictureFound | None = None,
    ) -> BlockResponse | None:
        """Have it said, and learned; the response in its place, where it must not pass."""
        entry = verdict.list, verdict.entry, verdict.action, algorithm
        if entry in self._told:
            return None
        self._told.add(entry)
        moving = seen.media.startswith("video/")
        known = KnownFile(
            algorithm,
            action,
            seen.media,
            seen.size,
            distance=found.distance if found is not None else 0,
            score=found.score if found is not None else 0.0,
            part="range" if seen.part else "",
            frame=found.frame if found is not None and moving else None,
            folder=self._table.learn_folders and seen.media in SEGMENTS,
        )
        pending = self._pending
        return self._guard.known_file(verdict, known, pending.names, self._client, pending.head)
