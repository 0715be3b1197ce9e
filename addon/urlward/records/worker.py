"""Recording of a worker: its events and metrics. Calls take microseconds, and never raise."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from urlward.config import RecordsTable
from urlward.engine.errors import UrlError
from urlward.engine.url import canonicalize
from urlward.engine.verdict import Verdict
from urlward.feeds.keeper import Keeper, Taken
from urlward.lasting import lasting
from urlward.records.asking import Reporter
from urlward.records.event import MAX_FIELD, RANDOM, Event, Kind, event_id
from urlward.records.metrics import ListFacts, Metrics, watch_loop
from urlward.records.privacy import Privacy, UrlDigest
from urlward.records.writer import Writer

logger = logging.getLogger("urlward.records")

MAX_TEXT = 1_000
"""Characters of an alarm's text."""

REPORT = 1.0
"""Seconds between two snapshots of what is counted."""

_MAX_MEDIA = 100
"""Characters of a media type."""

_KINDS: dict[tuple[bool, bool], Kind] = {
    (False, False): "block",
    (True, False): "would-block",
    (False, True): "cut",
    (True, True): "would-cut",
}
"""By whether it passes, and whether it was under way."""


FileAction = Literal["cut", "learn", "alert"]
"""What becomes of a response that is a known file: its connection is cut and its URL learned, its URL alone
is learned, or neither."""


class KnownFile(NamedTuple):
    """Known file, as it was met in a response. It holds nothing of the content.

    Attributes:
        algorithm: one of `urlward.records.metrics.ALGORITHMS`.
        action: what becomes of it.
        media: its media type, by its first bytes.
        size: bytes that were looked at.
        distance: bits in which a perceptual digest differs from the listed one.
        score: of a classifier.
        part: which part of a body it was, such as ``range``; empty for the whole.
        frame: seconds from the start of a video; None where it is none.
        folder: whether its URL's folder is learned, as of a stream in segments, and not the URL alone.
    """

    algorithm: str
    action: FileAction
    media: str = ""
    size: int = 0
    distance: int = 0
    score: float = 0.0
    part: str = ""
    frame: float | None = None
    folder: bool = False

    def detail(self) -> dict[str, Any]:
        """The detail of its event."""
        found: dict[str, Any] = {"algorithm": self.algorithm, "action": self.action}
        found |= {"media": self.media[:_MAX_MEDIA], "size": self.size}
        if self.algorithm == "pdq":
            found["distance"] = self.distance
        if self.algorithm == "classifier":
            found["score"] = round(self.score, 3)
        if self.part:
            found["part"] = self.part
        if self.frame is not None:
            found["frame"] = round(self.frame, 3)
        return found


class Hit(NamedTuple):
    """Hit: a request, connection or question that is listed.

    Attributes:
        verdict: of what is listed.
        client: its address.
        client_port: its source port.
        protocol: it spoke.
        stage: that decided.
        reference: as on the block page.
        url: gives the canonical URL, or None; a digest of it is kept. Asked within a second.
        destination: address that was meant, or empty.
        destination_port: likewise, or 0.
        would: whether it passes, since it is only to be said.
        cut: whether it was under way when it was listed.
        group: that the client is in, or empty.
        file: the known file that the response was; None where its names were listed.
        prefetched: whether the request said that it was a prefetch.
    """

    verdict: Verdict
    client: str
    client_port: int
    protocol: Literal["http", "tls", "tcp", "dns"]
    stage: Literal["dns", "peek", "match", "body"]
    reference: str = ""
    url: Callable[[], str | None] = lambda: None
    destination: str = ""
    destination_port: int = 0
    would: bool = False
    cut: bool = False
    group: str = ""
    file: KnownFile | None = None
    prefetched: bool = False

    def detail(self) -> str:
        """The detail of its event, as JSON; empty for none."""
        found = {} if self.file is None else self.file.detail()
        if self.prefetched:
            found["purpose"] = "prefetch"
        return json.dumps(found, separators=(",", ":")) if found else ""


class Recording:
    """Recording: takes one worker's events and metrics.

    Args:
        records: the configuration.
        state: the state folder.
        secret: its key, 32 bytes (`urlward.state.folder.local_key`).
        worker: its number.
        clock: nanoseconds since 1970-01-01 UTC.

    Attributes:
        metrics: what is counted.
        writer: takes the events.
        logs: whether what is recorded stands in the log as well.
        named: gives a client as a line of the log may name it (`Privacy.in_log`).
    """

    def __init__(
        self,
        records: RecordsTable,
        state: Path,
        secret: bytes,
        worker: str = "0",
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.metrics = Metrics(time.time())
        self.logs = records.log
        self._node = records.node
        self._worker = worker
        self._clock = clock
        self._privacy = Privacy(records.privacy, secret)
        self.named = self._privacy.in_log
        self._digest = UrlDigest(secret)
        # The same number is given to whoever takes the place of a worker that died.
        name = f"{records.node[:100]}-{worker}-{os.getpid()}-{os.urandom(4).hex()}"
        self.writer = Writer(state, name, records.node, limit=records.queue, size=records.spool, clock=clock)
        self._reporter = Reporter(state, name)
        self._serials: dict[str, int] = {}
        self._open: Callable[[], int] = lambda: 0
        self._keeper: Keeper | None = None
        self._closed = False

    async def run(self, connections: Callable[[], int] = lambda: 0) -> None:
        """Write events until cancelled, or until `close`.

        Args:
            connections: says how many clients' connections are open.
        """
        self._open = connections
        self.tell("start", {"process": f"worker {self._worker}"})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lasting("records: writing", self.writer.run))
            tasks.create_task(lasting("records: the metrics", self._report))
            tasks.create_task(lasting("records: the loop's lag", partial(watch_loop, self.metrics)))

    async def close(self) -> None:
        """Write the last events."""
        self.tell("stop", {"process": f"worker {self._worker}"})
        self._closed = True
        self._report_metrics()
        await self.writer.close()
        self._reporter.close()

    async def _report(self) -> None:
        while not self._closed:
            self._report_metrics()
            await asyncio.sleep(REPORT)

    def _report_metrics(self) -> None:
        try:
            self._reporter.report(self.snapshot())
        except Exception as e:  # noqa: BLE001 - what is counted must not cost what is recorded
            logger.error("records: the metrics cannot be told: %s", type(e).__name__)

    def hit(self, hit: Hit) -> None:
        """Record a block or cut, one that would be, or a known file; only counted where nothing of a person
        is kept."""
        try:
            verdict = hit.verdict
            if hit.file is None:
                self.metrics.blocked(verdict.list, verdict.category, would=hit.would)
            else:
                self.metrics.matched(verdict.list, hit.file.algorithm)
            if self._privacy.keeps_persons:
                serial = self._serials.get(verdict.list, 0)
                # Not a closure, which takes an object for each name in it.
                self.writer.emit(partial(self._event, self._clock(), hit, serial))
        except Exception as e:  # noqa: BLE001 - whatever becomes of the record, the decision stands
            _failed(e)

    def _event(self, now: int, hit: Hit, serial: int) -> Event:
        milliseconds, verdict = now // 1_000_000, hit.verdict
        return Event(
            event_id(now, os.urandom(RANDOM)),
            milliseconds,
            _KINDS[hit.would, hit.cut] if hit.file is None else "file",
            self._node,
            self._privacy.client(hit.client, milliseconds),
            hit.client_port if self._privacy.keeps_ports else 0,
            hit.protocol,
            hit.destination,
            hit.destination_port,
            hit.stage,
            verdict.list[:MAX_FIELD],
            serial,
            verdict.entry[:MAX_FIELD],
            verdict.category[:MAX_FIELD],
            verdict.action,
            hit.reference,
            "" if (url := hit.url()) is None else self._digest(url),
            hit.group,
            hit.detail(),
        )

    def hit_by_dns(self, verdict: Verdict, host: str, client: str, port: int, reference: str) -> None:
        """Record that a host listed whole was not to be found by its name."""
        self.metrics.requests("dns", "block")
        url = partial(canonical_url, f"http://{host}/")
        self.hit(Hit(verdict, client, port, "dns", "dns", reference, url))

    def alarm(self, alarm: str, text: str) -> None:
        """Record an alarm for the operator.

        Args:
            alarm: its kind, a word of ours.
            text: what is wrong; it may name neither an entry nor a client.
        """
        self.tell("alarm", {"alarm": alarm, "text": text[:MAX_TEXT]})

    def tell(self, kind: Kind, detail: dict[str, Any], **fields: Any) -> None:
        """Record an event.

        Args:
            kind: of event.
            detail: what JSON can say.
            fields: further fields of `Event`.
        """
        try:
            now = self._clock()
            said = json.dumps(detail, separators=(",", ":"))
            made = event_id(now, os.urandom(RANDOM))
            self.writer.emit(Event(made, now // 1_000_000, kind, self._node, detail=said, **fields))
        except Exception as e:  # noqa: BLE001 - as above
            _failed(e)

    def take_lists(self, keeper: Keeper) -> None:
        """Set the lists in force, and record an event for each that has changed."""
        self._keeper = keeper
        self._look(keeper)
        keeper.on_taken = self._taken

    def _taken(self, keeper: Keeper, taken: Taken) -> None:
        self._look(keeper)
        if taken.failed:
            self.metrics.failed_reload()
            return
        self.metrics.reload(taken.seconds)
        added, removed = max(taken.entries - taken.before, 0), max(taken.before - taken.entries, 0)
        detail = {"entries": taken.entries, "added": added, "removed": removed}
        self.tell("list", detail, list=taken.name, serial=taken.serial)

    def _look(self, keeper: Keeper) -> None:
        facts = keeper.facts
        self._serials = {one.name: one.serial for one in facts}
        self.metrics.lists(ListFacts(one.name, one.serial, one.entries, one.created) for one in facts)

    def snapshot(self) -> dict[str, Any]:
        """Snapshot of the metrics, for the recorder."""
        self.metrics.queue(self.writer.waiting, self.writer.dropped)
        self.metrics.trouble("spool-down", self.writer.trouble)
        self.metrics.open(self._open())
        if self._keeper is not None:
            self.metrics.refused(self._keeper.refused)
        return self.metrics.snapshot()


def _failed(error: Exception) -> None:
    logger.error("records: an event could not be made: %s", type(error).__name__)


def canonical_url(url: str) -> str | None:
    """Canonicalise a URL; None where it has no canonical form."""
    try:
        return str(canonicalize(url.encode("latin-1", "replace")))
    except UrlError:
        return None
