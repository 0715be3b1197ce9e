"""Lookup: which subscriber had an address, and a port of it, at a time."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from urlward.assignments.deterministic import computed
from urlward.assignments.formats import DETERMINISTIC
from urlward.assignments.interval import (
    FOREVER,
    LAST_PORT,
    SECOND,
    UP_TO_A_GAP,
    AssignmentError,
    Ending,
    Interval,
    SightingSource,
    is_address,
    ms_text,
)
from urlward.assignments.store import ANEW, NOT_YET, AssignmentStore, Gap

_IN_DOUBT = (
    Ending.DOUBT, Ending.ORDER, Ending.DECLINED, Ending.LATE, Ending.UNREAD, Ending.WITHIN, Ending.NEWER,
    Ending.DELETED, Ending.BESIDE, Ending.MOVED, Ending.SILENT, *UP_TO_A_GAP,
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
        missing: what is not read of logs that were rotated, and may say otherwise; with the source's name.
        deleted: time before which what had ended is deleted, in ms; 0 where it lies before what is asked.
        unread: sources that are read up to before what is asked, where nobody is known: name, and time in ms.
    """

    question: WhoQuestion
    candidates: tuple[Holder, ...]
    missing: tuple[tuple[str, Gap], ...] = ()
    deleted: int = 0
    unread: tuple[tuple[str, int], ...] = ()

    @property
    def verdict(self) -> Literal["one", "none", "ambiguous"]:
        """One subscriber, none, or several; one alone who may have had it, or nobody, is ambiguous too."""
        subscribers = {candidate.interval.subscriber for candidate in self.candidates}
        if not subscribers:
            return "ambiguous" if self.missing else "none"
        doubted = all(candidate.is_in_doubt for candidate in self.candidates)
        return "ambiguous" if doubted or len(subscribers) > 1 else "one"


def who(store: AssignmentStore, question: WhoQuestion) -> WhoAnswer:
    """Find all who may have had an address.

    Raises:
        AssignmentError: not an address, or the database refuses.
    """
    since, until = question.at - question.tolerance, question.at + question.tolerance
    candidates: list[Holder] = []
    gaps = [gap for gap in store.gaps() if gap.since <= until]
    missing: set[Gap] = set()
    try:
        deleted = store.deleted_before()
        if deleted and store.keeps(question.address, question.port, since, until):
            deleted = 0  # all that answers for it is there, behind a translator too
        found = _found(store, question, gaps, missing, deleted)
        by_formula = computed(store, question.address, question.port, since, until)
        if not found and (by_formula or not gaps):
            missing.clear()
        elif not found:
            # Somebody may have begun in one, and have it since: what is in force a file of leases would have.
            missing.update(gap for gap in gaps if gap.file != ANEW or gap.until > _second_before(since))
        for interval in [*found, *by_formula]:
            if not is_address(interval.subscriber):
                candidates.append(Holder(interval))
                continue
            inner, inside = replace(question, address=interval.subscriber, port=None), set[Gap]()
            others = [gap for gap in gaps if gap.source != interval.source.id]
            holders = _found(store, inner, others, inside, deleted)
            missing |= inside
            candidates += [Holder(one, interval) for one in holders]
            if not holders:
                candidates.append(Holder(replace(interval, ending=Ending.MISSED) if inside else interval))
    except ValueError as e:
        raise AssignmentError(str(e)) from e
    names = store.sources() if missing or not candidates else {}
    told = [(names[gap.source].name, gap) for gap in gaps if gap in missing]
    late = sorted((one.name, one.read) for one in names.values() if 0 < one.read < until and not candidates)
    return WhoAnswer(question, tuple(candidates), tuple(told), deleted if deleted > since else 0, tuple(late))


def _found(
    store: AssignmentStore, question: WhoQuestion, gaps: list[Gap], missing: set[Gap], deleted: int
) -> list[Interval]:
    """As `AssignmentStore.find`; what may have ended before, or not yet, is in doubt.

    Args:
        store: where.
        question: that is asked.
        gaps: that began before its time was over.
        missing: to which those of them are added that put something in doubt.
        deleted: time before which something is deleted, in ms; 0 for none.
    """
    found = []
    since, until = question.at - question.tolerance, question.at + question.tolerance
    for one in store.find(question.address, question.port, since - SECOND, until):
        if one.end <= since and one.ending != Ending.ORDER:
            within = one.end - one.end % SECOND + SECOND > since
            if not within or (one.end % SECOND and one.end != one.start + 1):
                continue
            found.append(replace(one, ending=Ending.WITHIN))
        elif one.ending in UP_TO_A_GAP and until < one.seen:
            known = UP_TO_A_GAP[one.ending]
            found.append(replace(one, ending=known, end=FOREVER if known == Ending.NONE else one.end))
        elif one.ending in _UNTOLD and until > one.source.read:
            found.append(replace(one, ending=Ending.UNREAD))
        else:
            found.append(one)
    found = _in_doubt_behind(gaps, found, question, missing) if gaps else found
    certain = [one for one in found if one.ending not in _IN_DOUBT]
    before = _second_before(since)
    if deleted <= before or _is_covered(certain, question.port, before, since):
        return found
    return [replace(one, ending=Ending.DELETED) if one in certain else one for one in found]


def _in_doubt_behind(
    gaps: list[Gap], found: list[Interval], question: WhoQuestion, missing: set[Gap]
) -> list[Interval]:
    """Put in doubt what may have ended in a gap, and where somebody else may have had it since."""
    shown = []
    certain = []
    since, until = question.at - question.tolerance, question.at + question.tolerance
    for one in found:
        between = [gap for gap in gaps if one.source.id == gap.source and _may_change(gap, one, since)]
        missing.update(between)
        if one.ending in _IN_DOUBT or not between:
            certain += [one] if one.ending not in _IN_DOUBT else []
            shown.append(one)
        else:
            shown.append(replace(one, ending=Ending.MISSED))
    # Where nobody is known to have had it, somebody may have that is not known; in all of a second, too.
    before = _second_before(since)
    bare = [
        gap
        for gap in gaps
        if not _is_covered(certain, question.port, max(before, gap.since), min(until, gap.until - 1))
    ]
    missing.update(bare)
    if not bare:
        return shown
    return [replace(one, ending=Ending.MISSED) if one in certain else one for one in shown]


def _may_change(gap: Gap, one: Interval, since: int) -> bool:
    """Whether an assignment of the same source, asked for from a time at a gap or behind it on, may have
    ended in it, or not begun yet."""
    if one.start >= gap.until:
        return False
    if gap.file == ANEW:
        return one.ending in UP_TO_A_GAP  # else the file has it still, or had it then
    if one.start >= gap.since + SECOND and since < gap.until:
        return True  # what is told of a session behind it need not be the address that it began with
    # A session's own end, or what is said of it later, tells that it went on.
    proved = one.end if one.ending == Ending.TOLD else one.seen
    return not (one.session and proved >= min(gap.until, one.end))


def _second_before(at: int) -> int:
    """The last of the second before, in ms: who had it then may have had it in all of this one."""
    return at - at % SECOND - 1


def _is_covered(some: list[Interval], port: int | None, since: int, until: int) -> bool:
    """Whether somebody is known to have had it, with all ports where none is given, all the time from one to
    another, in ms."""
    for one in sorted(some, key=lambda one: one.start):
        if one.start <= since and (port is not None or one.ports == (0, LAST_PORT)):
            since = max(since, one.end)
    return since > until


def answer_fields(answer: WhoAnswer) -> dict[str, Any]:
    """An answer as JSON has it; `None` for an end that is not known."""
    question = answer.question
    return {
        "address": question.address,
        "port": question.port,
        "at": ms_text(question.at),
        "tolerance": question.tolerance / 1000,
        "answer": answer.verdict,
        "deleted_before": ms_text(answer.deleted) if answer.deleted else None,
        "unread": [
            {"source": name, "to": ms_text(read) if read > NOT_YET else None} for name, read in answer.unread
        ],
        "missing": [{"source": name} | gap.fields() for name, gap in answer.missing],
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
        gone = f": what ended before {ms_text(answer.deleted)} is deleted" if answer.deleted else ""
        lines.append(f"nobody: no assignment of that time is known{gone}")
        lines += [
            f"  source {name} is read up to {ms_text(read)} alone"
            if read > NOT_YET
            else f"  of source {name} nothing is read yet, or again since it was deleted"
            for name, read in answer.unread
        ]
    elif answer.verdict == "ambiguous":
        subscribers = {candidate.interval.subscriber for candidate in answer.candidates}
        several = f"{len(subscribers)} subscribers" if len(subscribers) > 1 else "one subscriber, or nobody"
        if not subscribers:
            several = "nobody, or somebody that is not known"
        lines.append(f"ambiguous: {several}")
    lines += [f"in doubt: {name}'s log {gap.path} was {gap.text}" for name, gap in answer.missing]
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
