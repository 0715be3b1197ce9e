"""Report on a known file that was met, for a hotline or an authority: what the records say of it, who has
prepared it and why. Neither the file nor its URL is in it, since neither was kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from urlward.assignments.who import WhoAnswer, answer_fields, answer_lines
from urlward.engine.dates import time_text_ms
from urlward.policy.own import OwnEntry
from urlward.records.event import Event, as_json, detail_of
from urlward.report.document import Cell, Fact, MarkedWord, ReportDocument, ReportSection, ReportTable

PERSONAL = ("client", "client_port", "group")
"""Fields of an event that tell of a person, who is named on an order alone."""

_ACTIONS = {
    "cut": "The file did not arrive whole: its connection was cut, or the block page sent in its place.",
    "learn": "The file has passed, as configured.",
    "alert": "The file has passed, as configured.",
}
_EXACT = "The digest is of the whole file: it is that file, byte for byte."
_MD5 = "Digests of this kind can be forged: another file may have been made to have the same one."
_LIKE = (
    "The digest is of what a picture looks like: a match says that it is like the listed one, and not that "
    "it is the same. Somebody has to look at it before anything follows for anybody."
)
_GUESS = "A classifier has guessed; no list has the file. Somebody has to look before anything follows."


@dataclass(frozen=True, slots=True)
class Prepared:
    """Preparation of a report.

    Attributes:
        who: the person who exports it.
        at: ms since 1970-01-01 UTC.
        why: whom or what it is for, in their words.
        node: the machine.
        order: that asks whose address it was; empty for none.
    """

    who: str
    at: int
    why: str
    node: str
    order: str = ""


def report_of(
    reference: str,
    events: Sequence[Event],
    prepared: Prepared,
    learned: Sequence[OwnEntry] = (),
    answers: Sequence[WhoAnswer] = (),
) -> ReportDocument:
    """Make the report on what has one reference.

    Args:
        reference: of the events.
        events: of kind ``file``, at least one.
        prepared: who prepares it.
        learned: own entries that were learned of it.
        answers: who had the client's address, where an order asks for it.

    Raises:
        UrlwardError: an event's detail is damaged.
    """
    first = events[0]
    detail = detail_of(first)
    algorithm, action = str(detail.get("algorithm", "")), str(detail.get("action", ""))
    found = [_without_person(event) for event in events]
    sections = [_met(events), *_learned(learned), *_who(answers, prepared), _prepared(prepared)]
    return ReportDocument(
        title=f"Known file, reference {reference}",
        verdict=MarkedWord("A known file was met", "bad" if algorithm in _BYTES else "warn"),
        summary=f"{_ACTIONS.get(action, '')} {_blocks(learned)} {_says(algorithm)}\n\n"
        "urlward keeps neither the file nor its URL: the digest of the URL is keyed, and tells at the filter "
        "alone whether two events are of the same one.",
        facts=(
            Fact("list", first.list or None),
            Fact("digest's id", first.entry or None),
            Fact("algorithm", algorithm),
            Fact("met (UTC)", time_text_ms(first.time)),
        ),
        sections=tuple(sections),
        data={
            "reference": reference,
            "prepared": {
                "who": prepared.who, "time": time_text_ms(prepared.at), "why": prepared.why,
                "node": prepared.node, "order": prepared.order or None,
            },
            "events": found,
            "learned": [one.id for one in learned],
            "assignments": [answer_fields(answer) for answer in answers],
        },
    )  # fmt: skip


_BYTES = frozenset({"sha256", "sha1", "md5"})


def _says(algorithm: str) -> str:
    """What a match by this algorithm says, and what not."""
    if algorithm == "sha256":
        return _EXACT
    if algorithm in _BYTES:
        return f"{_EXACT} {_MD5}"
    return _GUESS if algorithm == "classifier" else _LIKE


def _blocks(learned: Sequence[OwnEntry]) -> str:
    """What blocks its URL: not every one is learned, and what was may have been removed, or be over."""
    if not learned:
        return "Its URL was not learned by this event, or what was learned has been removed since."
    return f"Its URL was learned, and is blocked until {max(one.expires for one in learned)}."


def _without_person(event: Event) -> dict[str, Any]:
    return {name: value for name, value in as_json(event).items() if name not in PERSONAL}


def _met(events: Sequence[Event]) -> ReportSection:
    """What was met: a table an event."""
    tables = []
    for event in events:
        found = _without_person(event)
        detail = found.pop("detail", {})
        rows: list[tuple[Cell, ...]] = [(name, _cell(value)) for name, value in {**found, **detail}.items()]
        tables.append(ReportTable(f"Event of {time_text_ms(event.time)}", ("field", "value"), tuple(rows)))
    return ReportSection(
        "What was met",
        "As the records have it; what it means is in `urlward help records`. Times are UTC.",
        tables=tuple(tables),
    )


def _cell(value: object) -> Cell:
    # As text: numbers would be rounded, and have commas.
    return "" if value is None else str(value)


def _learned(learned: Sequence[OwnEntry]) -> list[ReportSection]:
    if not learned:
        return []
    rows = tuple((one.id, one.kind, one.expires) for one in learned)
    return [
        ReportSection(
            "Its URL",
            "Learned as an own entry. Whoever may can have it shown at the filter, where that is audited: "
            "`urlward own reveal ID`.",
            tables=(ReportTable("Own entries", ("id", "kind", "last day"), rows),),
        )
    ]


def _who(answers: Sequence[WhoAnswer], prepared: Prepared) -> list[ReportSection]:
    if not prepared.order:
        return []
    rows = tuple((line,) for answer in answers for line in answer_lines(answer))
    return [
        ReportSection(
            "Who had the address",
            f"Asked for by: {prepared.order}. An assignment tells who had an address, and not who used it.",
            tables=(ReportTable("Assignments", ("as they were imported",), rows),),
        )
    ]


def _prepared(prepared: Prepared) -> ReportSection:
    return ReportSection(
        "Who has prepared this",
        "The audit log of the filter has a line of it.",
        facts=(
            Fact("by", prepared.who),
            Fact("at (UTC)", time_text_ms(prepared.at)),
            Fact("for", prepared.why),
            Fact("filter", prepared.node),
        ),
    )
