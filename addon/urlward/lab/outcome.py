"""Outcome of an attempt, and whether it is the expected one."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from urlward.report.document import MarkedWord

STAGES: dict[str | int | None, str] = {"dns": "DNS", 1: "1 kernel", 2: "2 relay", 3: "3 match"}
"""Stages by their names in a scenario, as people read them."""


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
