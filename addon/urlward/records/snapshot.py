"""Worker snapshots as the recorder takes them: counters that can be added up, and state.

The snapshot came over a socket, and perhaps from another release: whatever in it is not as it should be is
refused whole.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from urlward.records.labels import ERRORS, MAX_LISTS, STAGES, TROUBLES, VERDICTS, Origins, among
from urlward.records.metrics import BUCKETS, MAX_WHY, VERSION, ListFacts, RulesFacts

type Counts = dict[tuple[str, ...], float]
"""By the metric's name and its labels; a histogram's by its name and the number of the bucket or ``sum``."""

_MOST = 2.0**63

_MAX_WRONG, _MOST_WRONG = 80, 20
"""Characters of a word on what is wrong with rules, and how many there are."""


class SnapshotError(ValueError):
    """A malformed snapshot, or one of an unknown version."""


@dataclass(slots=True)
class Snapshot:
    """Latest snapshot of one worker.

    Attributes:
        started: when it did, seconds since 1970-01-01 UTC.
        counts: since then.
        open: connections.
        queue: events that wait in it.
        stall_longest: of the last minute, seconds.
        lists: in force.
        refused: by list, why what its file has now is not in force.
        rules: of a gateway; None where there is none.
        troubles: what keeps traffic from being filtered as it should be, by kind.
        canary: when the canary has last come through; 0 where it has not.
        authority: when the certificate of the filter's authority ends; 0 where this worker does not say.
        told: whether one before this was sent over another connection.
        said: the snapshot itself.
    """

    started: float = 0.0
    counts: Counts = field(default_factory=dict)
    open: int = 0
    queue: int = 0
    stall_longest: float = 0.0
    lists: tuple[ListFacts, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    rules: RulesFacts | None = None
    troubles: Mapping[str, str] = field(default_factory=dict)
    canary: float = 0.0
    authority: float = 0.0
    told: bool = False
    said: Mapping[str, Any] = field(default_factory=dict)


class Labels:
    """Labels of all workers' snapshots together, bounded once more."""

    def __init__(self) -> None:
        self.stage, self.verdict, self.error = among(STAGES), among(VERDICTS), among(ERRORS)
        self.origins = Origins()


def read_snapshot(data: dict[str, Any], labels: Labels) -> Snapshot:
    """Parse a snapshot.

    Raises:
        SnapshotError: it is none.
    """
    try:
        if data["version"] != VERSION:
            raise SnapshotError(f"a snapshot of version {data['version']}, and not {VERSION}")
        _number(data.get("stall_newest", 0.0))
        return Snapshot(
            started=_number(data["started"]),
            counts=_counts(data, labels),
            open=int(_number(data["open"])),
            queue=int(_number(data["queue"])),
            stall_longest=_number(data["stall_longest"]),
            lists=tuple(_list(row, labels) for row in data["lists"][:MAX_LISTS]),
            refused={
                labels.origins.lists(_text(name)): _text(why)[:MAX_WHY]
                for name, why in islice(data.get("refused", {}).items(), MAX_LISTS)
            },
            rules=_rules(data.get("rules")),
            troubles={
                kind: _text(why)[:MAX_WHY]
                for kind, why in data.get("troubles", {}).items()
                if kind in TROUBLES
            },
            canary=_number(data.get("canary", 0.0)),
            authority=_number(data.get("authority", 0.0)),
            told=bool(data.get("told", False)),
            said=data,
        )
    except SnapshotError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise SnapshotError(f"not a snapshot: {type(e).__name__}") from e


def add(to: Counts, counts: Mapping[tuple[str, ...], float]) -> None:
    """Add counts to others, in place."""
    for key, count in counts.items():
        to[key] = to.get(key, 0) + count


def _counts(data: dict[str, Any], labels: Labels) -> Counts:
    found: Counts = {}
    for stage, row in data["requests"].items():
        for verdict, count in row.items():
            add(found, {("requests", labels.stage(stage), labels.verdict(verdict)): _number(count)})
    for name in ("blocks", "would_blocks"):
        for list_, row in data[name].items():
            for category, count in row.items():
                add(found, {(name, *labels.origins(list_, category)): _number(count)})
    for kind, count in data["errors"].items():
        add(found, {("errors", labels.error(kind)): _number(count)})
    for name in ("failed_reloads", "opened", "dropped"):
        found[(name,)] = _number(data[name])
    for name, bounds in BUCKETS.items():
        histogram = data["histograms"][name]
        if len(histogram["counts"]) != len(bounds) + 1:
            raise SnapshotError("not a snapshot: other buckets")
        for number, count in enumerate(histogram["counts"]):
            found[name, str(number)] = _number(count)
        found[name, "sum"] = _number(histogram["sum"])
    return found


def _list(row: Any, labels: Labels) -> ListFacts:
    name, *numbers = row
    serial, entries, created = (int(_number(number)) for number in numbers)
    return ListFacts(labels.origins.lists(_text(name)), serial, entries, created)


def _rules(row: Any) -> RulesFacts | None:
    if row is None:
        return None
    restored, hand, wrong = row
    texts = tuple(_text(one)[:_MAX_WRONG] for one in islice(wrong, _MOST_WRONG))
    return RulesFacts(int(_number(restored)), _text(hand)[:_MAX_WRONG], texts)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value < _MOST:
        raise SnapshotError("not a snapshot: a number that is none")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise SnapshotError("not a snapshot: a name that is none")
    return value
