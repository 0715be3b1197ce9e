"""Lookup: which subscriber had an address, and a port of it, at a time."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from urlward.assignments.deterministic import computed
from urlward.assignments.formats import DETERMINISTIC
from urlward.assignments.interval import (
    FOREVER,
    LAST_PORT,
    SECOND,
    AssignmentError,
    Ending,
    Interval,
    SightingSource,
    is_address,
    ms_text,
)
from urlward.assignments.store import AssignmentStore

_IN_DOUBT = (
    Ending.DOUBT, Ending.ORDER, Ending.DECLINED, Ending.LATE, Ending.UNREAD, Ending.WITHIN, Ending.NEWER,
)  # fmt: skip
_UNTOLD = (Ending.EXPIRY, Ending.RELEASED, Ending.NONE, Ending.SECOND)


@dataclass(frozen=True, slots=True)
class WhoQuestion:
    """Query for the holder of an address and port at a time.

    Attributes:
        address: IPv4 or IPv6.
        port: source port, None where it is not known.
        at: in ms since 1970-01-01 UTC.
        tolerance: how far clocks may be apart, in ms: who had it in that time before or after is a candidate.
    """

    address: str
    port: int | None
    at: int
    tolerance: int = 0


@dataclass(frozen=True, slots=True)
class Holder:
    """Candidate: an assignment that matches the question.

    Attributes:
        interval: that names the subscriber.
        via: the translator's, if `interval` is of the inner address that it says.
    """

    interval: Interval
    via: Interval | None = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is not known that it had not ended."""
        return any(one.ending in _IN_DOUBT for one in (self.interval, self.via) if one)


@dataclass(frozen=True, slots=True)
class WhoAnswer:
    """Answer: all candidates for a question.

    Attributes:
        question: that was asked.
        candidates: in order of their beginnings.
    """

    question: WhoQuestion
    candidates: tuple[Holder, ...]

    @property
    def verdict(self) -> Literal["one", "none", "ambiguous"]:
        """One subscriber, none, or several; one alone who may have had it, or nobody, is ambiguous too."""
        subscribers = {candidate.interval.subscriber for candidate in self.candidates}
        if not subscribers:
            return "none"
        doubted = all(candidate.is_in_doubt for candidate in self.candidates)
        return "ambiguous" if doubted or len(subscribers) > 1 else "one"


def who(store: AssignmentStore, question: WhoQuestion) -> WhoAnswer:
    """Find all who may have had an address.

    Raises:
        AssignmentError: not an address, or the database refuses.
    """
    since, until = question.at - question.tolerance, question.at + question.tolerance
    candidates: list[Holder] = []
    try:
        found = _found(store, question)
        found += computed(store, question.address, question.port, since, until)
        for interval in found:
            inner = (
                _found(store, replace(question, address=interval.subscriber, port=None))
                if is_address(interval.subscriber)
                else []
            )
            candidates += [Holder(one, interval) for one in inner] or [Holder(interval)]
    except ValueError as e:
        raise AssignmentError(str(e)) from e
    return WhoAnswer(question, tuple(candidates))


def _found(store: AssignmentStore, question: WhoQuestion) -> list[Interval]:
    """As `AssignmentStore.find`; what may have ended before, or not yet, is in doubt."""
    found = []
    since, until = question.at - question.tolerance, question.at + question.tolerance
    there = store.find(question.address, question.port, since - SECOND, until)
    told: dict[tuple[object, ...], list[Interval]] = {}
    for one in there:
        if one.ending == Ending.TOLD:
            told.setdefault(one.whose, []).append(one)
    for one in there:
        if one.end <= since and one.ending != Ending.ORDER:
            within = one.end - one.end % SECOND + SECOND > since
            if not within or (one.end % SECOND and one.end != one.start + 1):
                continue
            found.append(replace(one, ending=Ending.WITHIN))
        elif one.ending in _UNTOLD and until > one.source.read:
            found.append(replace(one, ending=Ending.UNREAD))
        elif one.ending == Ending.NEXT and any(map(one.is_ended_by, told.get(one.whose, ()))):
            found.append(replace(one, ending=Ending.LATE))
        else:
            found.append(one)
    return found


def answer_fields(answer: WhoAnswer) -> dict[str, Any]:
    """An answer as JSON has it; `None` for an end that is not known."""
    question = answer.question
    return {
        "address": question.address,
        "port": question.port,
        "at": ms_text(question.at),
        "tolerance": question.tolerance / 1000,
        "answer": answer.verdict,
        "candidates": [
            _fields(one.interval) | ({"via": _fields(one.via)} if one.via else {})
            for one in answer.candidates
        ],
    }


def answer_lines(answer: WhoAnswer) -> list[str]:
    """An answer for people."""
    question = answer.question
    port = "" if question.port is None else f" port {question.port}"
    lines = [
        f"{question.address}{port} at {ms_text(question.at)}, "
        f"clocks may be {question.tolerance / 1000:g} s apart"
    ]
    if answer.verdict == "none":
        lines.append("nobody: no assignment of that time is known")
    elif answer.verdict == "ambiguous":
        subscribers = {candidate.interval.subscriber for candidate in answer.candidates}
        several = f"{len(subscribers)} subscribers" if len(subscribers) > 1 else "one subscriber, or nobody"
        lines.append(f"ambiguous: {several}")
    for candidate in answer.candidates:
        lines += [candidate.interval.subscriber, *_lines(candidate.interval)]
        if candidate.via:
            lines += [f"  behind a translator, with the inner address {candidate.via.subscriber}"]
            lines += _lines(candidate.via)
    return lines


def _lines(interval: Interval) -> list[str]:
    first, last = interval.ports
    ports = "" if (first, last) == (0, LAST_PORT) else f" ports {first}-{last}"
    end = "" if interval.end == FOREVER else f" until {ms_text(interval.end)}"
    seen = f", last said {ms_text(interval.seen)}" if interval.seen else ""
    start = f" from {ms_text(interval.start)}" if interval.start else ""
    source = interval.source
    return [
        f"  {interval.network}{ports}{start}{end} ({interval.ending.text}{seen})",
        f"  source {source.name}: {source.format}, {_SAYS[_path_is(source)]}{source.path}"
        + (f", session {interval.session}" if interval.session else ""),
    ]


def _fields(interval: Interval) -> dict[str, Any]:
    return {
        "subscriber": interval.subscriber,
        "network": interval.network,
        "first_port": interval.ports[0],
        "last_port": interval.ports[1],
        "from": ms_text(interval.start),
        "to": None if interval.end == FOREVER else ms_text(interval.end),
        "end": interval.ending.name.lower(),
        "last_said": ms_text(interval.seen) if interval.seen else None,
        "session": interval.session or None,
        "source": {
            "name": interval.source.name,
            "format": interval.source.format,
            _path_is(interval.source): interval.source.path,
        },
    }


_SAYS = {"formula": "", "last_imported_from": "last imported from "}


def _path_is(source: SightingSource) -> str:
    """Name of the field for a source's path: an interval may come from a file before that one."""
    return "formula" if source.format == DETERMINISTIC else "last_imported_from"
