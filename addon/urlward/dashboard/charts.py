"""Charts of the history, and the same figures as tables.

A chart has a line for each of a few names; those behind them are one line together.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from urlward.dashboard.sources import Past
from urlward.records.metrics import NONE, OTHER

LINES = 6
"""Lines of a chart: as many as can be told apart by their colours and dashes."""

_IN_STEP = "history.in_step"
_KNOWN = {NONE: "lists.no_name", OTHER: "history.others"}
"""Keys of the names that metrics have for none, and for what is beyond their bounds."""

type Value = float | None


class Line(NamedTuple):
    """Line of a chart.

    Attributes:
        name: of a list, a category or a feed; a key of the texts where there is one.
        values: one a step.
    """

    name: str
    values: Sequence[Value]


class Chart(NamedTuple):
    """Chart.

    Attributes:
        name: ``history.NAME`` is the key of its title.
        unit: key of its unit, whose text may have the ``step`` in it.
        lines: at least one.
    """

    name: str
    unit: str
    lines: Sequence[Line]


def charts_of(past: Past, *, whole: bool = False) -> list[Chart]:
    """Charts of a span; one of which nothing is counted here, such as DNS, is left out.

    Args:
        past: the span.
        whole: whether what is counted in the step that is under way is left out: it would look like a fall.
    """
    in_step, a_second = _IN_STEP, "now.a_second"
    found = [
        Chart("requests", a_second, [Line("now.requests", past["requests"])]),
        Chart("latency", "history.ms", [Line("history.p50", past["p50"]), Line("history.p99", past["p99"])]),
        Chart("lists", in_step, _lines(past["lists"])),
        Chart("categories", in_step, _lines(past["categories"])),
        Chart("dns", a_second, _lines(past["dns"], "term.")),
        Chart("errors", in_step, [Line("history.errors", past["errors"])]),
        Chart("stall", "history.ms", [Line("now.stall", past["stall"])]),
        Chart("connections", "history.most", [Line("now.connections", past["connections"])]),
        Chart("feeds", "history.hours", _lines({n: _hours(ages) for n, ages in past["feeds"].items()})),
    ]
    under_way = whole and past["counted"][-1] < 1
    return [_without_last(one) if under_way and one.unit == _IN_STEP else one for one in found if one.lines]


def _without_last(chart: Chart) -> Chart:
    return chart._replace(lines=[line._replace(values=[*line.values[:-1], None]) for line in chart.lines])


def _lines(values: Mapping[str, Sequence[Value]], prefix: str = "") -> list[Line]:
    values = {_KNOWN.get(name, prefix + name): of_name for name, of_name in values.items()}
    names = list(values)
    if len(names) <= LINES:
        return [Line(name, values[name]) for name in names]
    first, others = names[: LINES - 1], names[LINES - 1 :]
    together = [
        None if all(value is None for value in step) else round(sum(value or 0 for value in step), 3)
        for step in zip(*(values[name] for name in others), strict=True)
    ]
    return [*(Line(name, values[name]) for name in first), Line("history.others", together)]


def _hours(ages: Sequence[Value]) -> list[Value]:
    return [None if age is None else round(age / 3_600, 2) for age in ages]
