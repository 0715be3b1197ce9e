"""Outcome of an attempt, and whether it is the expected one; its evidence are the origin's log and the
filter's, joined with the client's result.
"""

import json
import re
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from urlward.lab.clients import Got
from urlward.lab.filter import FilterLog, LoggedHit
from urlward.lab.scenario import MOST_NODES
from urlward.lab.topology import CLIENT, GATEWAY, NODES_BACK, ORIGIN, node_place
from urlward.report.document import MarkedWord

STAGES: dict[str | int | None, str] = {"dns": "DNS", 1: "1 kernel", 2: "2 relay", 3: "3 match"}
"""Stages by their names in a scenario, as people read them."""

_REFERENCE = re.compile(r"\b[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}\b")
_OF_THE_GATEWAY = {ORIGIN.gateway4, ORIGIN.gateway6} | {
    NODES_BACK.at(node_place(number), family) for number in range(1, MOST_NODES + 1) for family in (4, 6)
}
_NOT_PAGES = ("/favicon.ico",)
_PATIENCE, _LESS_PATIENCE, _REFUSED = 10.0, 2.0, 400
"""Seconds for a line of a log that is to come, and for one that is not where the status is as high: few
origins here have such."""
_LITTLE_PATIENCE = 0.3
"""Seconds for a line of a filter that only says what it would block, which there may be none of."""


class Result(StrEnum):
    """Result of an attempt."""

    CAUGHT = "caught"
    PASSED = "passed"
    HELD = "as it should be"
    MISSED = "missed"
    WRONG = "wrongly blocked"
    UNEXPECTED = "not as expected"

    @property
    def good(self) -> bool:
        """Whether this result is acceptable."""
        return self in (Result.CAUGHT, Result.PASSED, Result.HELD)

    @property
    def mark(self) -> MarkedWord:
        """The result as a mark in a report."""
        return MarkedWord(self.value, "good" if self.good else "bad")


@dataclass(frozen=True, slots=True)
class Observations:
    """Observations of one attempt by the client, the origin and the filter's log.

    Attributes:
        status: of HTTP, as the client has got it; 0 without an answer.
        blocked: whether that was the filter's block page.
        served: how often the origin has served it.
        stage: that has decided; None where that cannot be told.
        entry, category: of the hit, from the filter's log.
        error: what the client has met, in a few words; empty where it has got an answer.
        seconds: it took.
        detail: more for the report, such as the protocol.
        asker: whose address the origin has seen, ``client`` or ``gateway``; empty where nothing was served.
    """

    status: int = 0
    blocked: bool = False
    served: int = 0
    stage: str | int | None = None
    entry: str = ""
    category: str = ""
    error: str = ""
    seconds: float = 0.0
    detail: str = ""
    asker: str = ""


@dataclass(frozen=True, slots=True)
class JudgedAttempt:
    """Judged attempt of one client.

    Attributes:
        step: number and name of the step.
        what: the URL, or the line that it is on.
        client: name of the client, and the machine it is on.
        expected: in words.
        result: judged.
        reason: why, in words.
        seen: what was seen.
        after: seconds after which the expectation came true, where it had time.
        why: the scenario's own words.
    """

    step: str
    what: str
    client: str
    expected: str
    result: Result
    reason: str
    seen: Observations = field(default_factory=Observations)
    after: float | None = None
    why: str = ""

    def as_data(self) -> dict[str, Any]:
        """The outcome as data for ``report.json``."""
        seen = self.seen
        return {
            "step": self.step, "what": self.what, "client": self.client, "expected": self.expected,
            "result": self.result.value, "reason": self.reason, "stage": seen.stage, "status": seen.status,
            "served": seen.served, "entry": seen.entry, "category": seen.category, "error": seen.error,
            "milliseconds": round(seen.seconds * 1000, 1), "after_s": self.after,
        }  # fmt: skip


def judge(
    expect: str,
    stage: str | int | None,
    entry: str | None,
    seen: Observations,
    monitor: bool,
    asker: str | None = None,
) -> tuple[Result, str]:
    """Judge whether the observations are what was expected.

    The origin's log decides whether something has arrived, whatever the client says.

    Args:
        expect: ``block``, ``refuse`` or ``pass``.
        stage, entry: that should have decided, where the scenario says so.
        seen: what was seen.
        monitor: whether the filter only says what it would block.
        asker: whose address the origin should have seen, where the scenario says so.

    Returns:
        The result, and why in words.
    """
    if monitor and expect == "block":
        result, reason = _judge_monitored(seen)
    elif expect == "pass":
        result, reason = _judge_pass(seen)
    else:
        result, reason = _judge_block(expect, seen)
    if not result.good:
        return result, reason
    if stage is not None and seen.stage != stage:
        return Result.UNEXPECTED, f"decided by stage {STAGES.get(seen.stage, 'unknown')}"
    if entry is not None and seen.entry != entry:
        return Result.UNEXPECTED, f"by entry {seen.entry or 'unknown'}"
    if asker is not None and seen.asker != asker:
        return Result.UNEXPECTED, f"the origin has seen the address of {seen.asker or 'nobody'}"
    return result, reason


def _judge_pass(seen: Observations) -> tuple[Result, str]:
    if seen.blocked:
        return Result.WRONG, "block page"
    if not seen.served:
        return Result.WRONG, f"did not arrive: {seen.error or f'status {seen.status}'}"
    if seen.error:
        return Result.WRONG, f"arrived, but the client met: {seen.error}"
    return Result.PASSED, "served by the origin"


def _judge_monitored(seen: Observations) -> tuple[Result, str]:
    result, reason = _judge_pass(seen)
    if not result.good:
        return result, reason
    if not seen.entry:
        return Result.MISSED, "served, and the filter has not said that it would block it"
    return Result.CAUGHT, "served, and said to be blocked (monitor)"


def _judge_block(expect: str, seen: Observations) -> tuple[Result, str]:
    if seen.served:
        return Result.MISSED, "served by the origin"
    if seen.blocked:
        return Result.CAUGHT, "block page"
    how = seen.error or f"status {seen.status}"
    if expect == "refuse":
        return Result.CAUGHT, how
    if seen.entry:
        return Result.CAUGHT, f"ended ({how})"
    return Result.UNEXPECTED, f"not served, but not blocked either: {how}"


@dataclass(frozen=True, slots=True)
class OriginLine:
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
        filter_logs: the filter's, or of each filter of a fleet.
        keeps_source: whether the origin sees clients' addresses whatever the way.
    """

    def __init__(self, origin: Path, *filter_logs: FilterLog, keeps_source: bool = False) -> None:
        self._path = origin
        self._keeps_source = keeps_source
        self._filters = filter_logs
        self._lines: dict[str, list[OriginLine]] = defaultdict(list)
        self._at = 0
        self._rest = b""
        self._taken: set[str] = set()
        """References of hits that were some client's: another may have the same port later."""
        self._lock = threading.Lock()

    def lines(self, tag: str) -> list[OriginLine]:
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
                    self._lines[told["tag"]].append(OriginLine(*values))
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
                events = [event for log in self._filters for event in log.read()]
            for event in reversed(events):
                by_address = not found and got.local and event.reference not in self._taken
                if event.reference in found or (by_address and _plain(event.client) == got.local):
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
    """The machine that a source is on; the exempt client and those by one node are other addresses of it."""
    if source.startswith("via"):
        return CLIENT.name
    return {"exempt": CLIENT.name, "gateway": GATEWAY}.get(source, source)
