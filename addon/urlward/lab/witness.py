"""Evidence of an attempt: the origin's log and the filter's, joined with the client's result."""

import json
import re
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from urlward.lab.addresses import GATEWAY, ORIGIN
from urlward.lab.clients import Got
from urlward.lab.filter import FilterLog, LoggedHit
from urlward.lab.outcome import JudgedAttempt, Observations, Result

_REFERENCE = re.compile(r"\b[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}\b")
_OF_THE_GATEWAY = {ORIGIN.gateway4, ORIGIN.gateway6}
_NOT_PAGES = ("/favicon.ico",)
_PATIENCE, _LESS_PATIENCE, _REFUSED = 10.0, 2.0, 400
"""Seconds for a line of a log that is to come, and for one that is not where the status is as high: few
origins here have such."""
_LITTLE_PATIENCE = 0.3
"""Seconds for a line of a filter that only says what it would block, which there may be none of."""


@dataclass(frozen=True, slots=True)
class Line:
    """Line of the origin's log: a request that has reached it, and who sent it."""

    tag: str
    uri: str
    status: int
    client: str
    protocol: str

    @property
    def served(self) -> bool:
        """Whether a page was served (499: whoever asked has gone meanwhile)."""
        return (self.status < 400 or self.status == 499) and self.uri not in _NOT_PAGES


class Witness:
    """Reader of the origin's and the filter's logs.

    Args:
        origin: the origin's log.
        filter_log: the filter's.
        keeps_source: whether the origin sees clients' addresses whatever the way.
    """

    def __init__(self, origin: Path, filter_log: FilterLog, *, keeps_source: bool = False) -> None:
        self._path = origin
        self._keeps_source = keeps_source
        self._filter = filter_log
        self._lines: dict[str, list[Line]] = defaultdict(list)
        self._at = 0
        self._rest = b""
        self._taken: set[str] = set()
        """References of hits that were some client's by its address: another may have the same port later."""
        self._lock = threading.Lock()

    def lines(self, tag: str) -> list[Line]:
        """Lines of the origin's log for an attempt so far."""
        with self._lock:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
            self._at += len(data)
            *complete, self._rest = (self._rest + data).split(b"\n")
            for line in complete:
                with suppress(ValueError, KeyError):
                    told = json.loads(line)
                    values = (told[k] for k in ("tag", "uri", "status", "from", "protocol"))
                    self._lines[told["tag"]].append(Line(*values))
            return list(self._lines[tag])

    def look(self, tag: str, got: Got, secure: bool, status: int, *, monitor: bool = False) -> Observations:
        """Collect the observations of an attempt.

        Args:
            tag: the attempt's.
            got: by the client.
            secure: whether it was over TLS.
            status: that the filter's block page has.
            monitor: whether the filter only says what it would block, so that all clients get answers.
        """
        event = self._event(got, monitor)
        blocked = event is not None and bool(event.reference) and event.reference in got.body
        end = time.monotonic() + (_PATIENCE if got.status < _REFUSED else _LESS_PATIENCE)
        lines = self.lines(tag)
        while got.status and not blocked and got.status != status and not lines and time.monotonic() < end:
            time.sleep(0.01)
            lines = self.lines(tag)
        served = [line for line in lines if line.served]
        asker = "" if not served else "gateway" if served[0].client in _OF_THE_GATEWAY else "client"
        blocked = blocked or (got.status == status and bool(_REFERENCE.search(got.body)))
        return Observations(
            status=status if blocked else got.status,
            blocked=blocked,
            served=len(served),
            stage=self._stage(got, asker, secure, blocked, event),
            entry=event.entry if event else "",
            category=event.category if event else "",
            error=got.error,
            seconds=got.seconds,
            detail=served[0].protocol if served else "",
            asker=asker,
        )

    def look_again(self, tag: str, outcome: JudgedAttempt) -> JudgedAttempt:
        """Check attempts judged caught once more when all is over: the origin's log has the last word."""
        served = sum(line.served for line in self.lines(tag))
        if outcome.result is not Result.CAUGHT or outcome.seen.served or not served:
            return outcome
        seen = replace(outcome.seen, served=served)
        return replace(outcome, result=Result.MISSED, reason="served by the origin, late", seen=seen)

    def _event(self, got: Got, monitor: bool) -> LoggedHit | None:
        found = _REFERENCE.findall(got.body)
        if not found and not got.error and got.status < 400 and not monitor:
            return None
        end = time.monotonic() + (_PATIENCE if found else _LITTLE_PATIENCE if monitor else 0)
        while True:
            with self._lock:
                events = list(self._filter.read())
            for event in reversed(events):
                if event.reference in found:
                    return event
                if event.reference not in self._taken and got.local and _plain(event.client) == got.local:
                    self._taken.add(event.reference)
                    return event
            if time.monotonic() > end:
                return None
            time.sleep(0.01)

    def _stage(
        self, got: Got, asker: str, secure: bool, blocked: bool, event: LoggedHit | None
    ) -> str | int | None:
        if asker:
            if self._keeps_source:
                return 3 if got.decrypted else None
            if asker == "client":
                return 1
            if not secure:
                return 3
            return None if got.decrypted is None else 3 if got.decrypted else 2
        if blocked:
            return 3
        if event is not None:
            return 2 if got.error.startswith("tls") or "ssl" in got.error else 3
        if got.error == "no address" or "name not resolved" in got.error:
            return "dns"
        return 1 if got.error else 3 if got.status else None


def _plain(client: str) -> str:
    return client.replace("[", "").replace("]", "")


def machine_of(source: str) -> str:
    """The machine that a source is on; the exempt client is another address of the client's."""
    return {"exempt": "client", "gateway": GATEWAY}.get(source, source)
