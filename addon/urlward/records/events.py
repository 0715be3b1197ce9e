"""What a worker says of what happens: calls of microseconds, which wait for nothing and never raise."""

import json
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from urlward.config import RecordsTable
from urlward.engine.verdict import Verdict
from urlward.records.emitter import Emitter
from urlward.records.event import MAX_FIELD, RANDOM, Event, Kind, event_id
from urlward.records.privacy import Privacy, UrlDigest
from urlward.records.recorder import SOCKET

logger = logging.getLogger("urlward.records")

MAX_TEXT = 1_000
"""Characters of an alarm's text."""

_KINDS: dict[tuple[bool, bool], Kind] = {
    (False, False): "block",
    (True, False): "would-block",
    (False, True): "cut",
    (True, True): "would-cut",
}
"""By whether it passes, and whether it was under way."""


class Events:
    """One worker's.

    Args:
        records: the configuration.
        state: the state folder.
        secret: its key, 32 bytes (`urlward.lists.state.local_key`).
        worker: its number.
        clock: nanoseconds since 1970-01-01 UTC.

    Attributes:
        emitter: hands them over; run it, and close it at the end.
        privacy: what is kept of a client.
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
        self._node = records.node
        self._clock = clock
        self._worker = worker
        self.privacy = Privacy(records.privacy, secret)
        self._digest = UrlDigest(secret)
        # The same number is given to whoever takes the place of a worker that died.
        name = f"{records.node[:100]}-{worker}-{os.getpid()}-{os.urandom(4).hex()}"
        self.emitter = Emitter(state / SOCKET, name, records.node, limit=records.queue, clock=clock)

    def blocked(
        self,
        *,
        verdict: Verdict,
        client: str,
        client_port: int,
        protocol: Literal["http", "tls", "tcp", "dns"],
        stage: Literal["dns", "peek", "match"],
        would: bool = False,
        cut: bool = False,
        destination: str = "",
        destination_port: int = 0,
        serial: int = 0,
        reference: str = "",
        url: Callable[[], str | None] = lambda: None,
        group: str = "",
    ) -> None:
        """Say what was blocked or cut, or would have been; nothing where no event of a person is kept.

        Args:
            verdict: of what is listed.
            client: its address.
            client_port: its source port.
            protocol: it spoke.
            stage: that decided.
            would: whether it passes.
            cut: whether it was under way.
            destination: address that was meant, or empty.
            destination_port: likewise, or 0.
            serial: of the list.
            reference: as on the block page.
            url: gives the canonical URL, or None; a digest of it is kept. Asked within a second.
            group: that the client is in, or empty.
        """
        if not self.privacy.keeps_persons:
            return
        try:
            kind = _KINDS[would, cut]
            port = client_port if self.privacy.keeps_ports else 0
            # Not a closure, which takes an object for each name in it.
            self.emitter.emit(
                partial(
                    self._made, self._clock(), kind, client, port, protocol, destination, destination_port,
                    stage, verdict, serial, reference, url, group,
                )
            )  # fmt: skip
        except Exception as e:  # noqa: BLE001 - whatever becomes of the record, the decision stands
            _failed(e)

    def _made(
        self, now: int, kind: Kind, client: str, client_port: int, protocol: str, destination: str,
        destination_port: int, stage: str, verdict: Verdict, serial: int, reference: str,
        url: Callable[[], str | None], group: str,
    ) -> Event:  # fmt: skip
        time_ms = now // 1_000_000
        return Event(
            event_id(now, os.urandom(RANDOM)),
            time_ms,
            kind,
            self._node,
            self.privacy.client(client, time_ms),
            client_port,
            protocol,
            destination,
            destination_port,
            stage,
            verdict.list[:MAX_FIELD],
            serial,
            verdict.entry[:MAX_FIELD],
            verdict.category[:MAX_FIELD],
            verdict.action,
            reference,
            "" if (canonical := url()) is None else self._digest(canonical),
            group,
        )

    def list_changed(self, name: str, serial: int, entries: int, added: int, removed: int) -> None:
        """Say that a list in force has changed.

        Args:
            name: of the list.
            serial: now.
            entries: now.
            added: entries that were not in force before.
            removed: entries that are no longer.
        """
        detail = {"entries": entries, "added": added, "removed": removed}
        self.tell("list", detail, list=name, serial=serial)

    def alarm(self, alarm: str, text: str) -> None:
        """Say that somebody should look.

        Args:
            alarm: its kind, a word of ours.
            text: what is wrong; it may name no entry.
        """
        self.tell("alarm", {"alarm": alarm, "text": text[:MAX_TEXT]})

    def started(self) -> None:
        """Say that this worker serves."""
        self.tell("start", {"process": f"worker {self._worker}"})

    def stopped(self) -> None:
        """Say that this worker ends."""
        self.tell("stop", {"process": f"worker {self._worker}"})

    def tell(self, kind: Kind, detail: dict[str, Any], **fields: Any) -> None:
        """Say what there is no other word for.

        Args:
            kind: of event.
            detail: what JSON can say.
            fields: further fields of `Event`.
        """
        try:
            now = self._clock()
            said = json.dumps(detail, separators=(",", ":"))
            made = event_id(now, os.urandom(RANDOM))
            self.emitter.emit(Event(made, now // 1_000_000, kind, self._node, detail=said, **fields))
        except Exception as e:  # noqa: BLE001 - as above
            _failed(e)


def _failed(error: Exception) -> None:
    logger.error("records: an event could not be made: %s", type(error).__name__)
