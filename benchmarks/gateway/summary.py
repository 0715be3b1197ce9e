"""From rounds to figures, from figures to goals."""

from statistics import median, quantiles
from typing import Any

from benchmarks.gateway.routing import Case
from benchmarks.goals import Goal, judge

_SHARE = 0.97
"""Of plain routing that an unlisted host must have at least."""

_JUDGED = {
    Case.KEEP: "requests on keep-alive connections",
    Case.KEEP6: "the same over IPv6",
    Case.BULK: "bulk transfer",
}

type Rounds = list[dict[str, dict[str, float]]]


def middle(rounds: Rounds, case: Case, name: str) -> float | None:
    """The median of the rounds; None where this was not measured."""
    values = [one[case][name] for one in rounds if name in one[case]]
    return median(values) if values else None


def ratio(rounds: Rounds, case: Case, name: str, other: str) -> tuple[float, float]:
    """The median of the rounds' ratios, and half the distance between their quartiles."""
    return _spread([one[case][name] / one[case][other] for one in rounds])


def added(rounds: Rounds, case: Case, name: str, other: str) -> tuple[float, float]:
    """Likewise of the differences."""
    return _spread([one[case][name] - one[case][other] for one in rounds])


def goals(result: dict[str, Any]) -> list[Goal]:
    """Each goal with its limit, the value and whether it is met."""
    rounds, answers = result["routing"]["rounds"], result["dns"]
    listings, first = result["listing"]["listings"], answers["first_connections"]
    rate = median(one["urlward"]["answers_per_s"] for one in answers["rounds"])
    p50 = {name: one["p50"] for name, one in answers["latency_ms"].items()}
    found = []
    for case, what in _JUDGED.items():
        share, _ = ratio(rounds, case, "urlward", "plain")
        name = f"unlisted host, {what}: rate over plain routing's"
        found.append(judge(name, "times", _SHARE, share, least=True))
    blocked, ended = (max(one[key] for one in listings) for key in ("blocked_s", "ended_s"))
    escaped = f"first connections behind a DNS answer that escape, of {first['tries']:,}"
    return [
        *found,
        judge("DNS on one core: answers a second", "", 3_000, rate, least=True),
        judge("DNS: time added at the median", "ms", 1.5, p50["urlward"] - p50["resolver"]),
        judge("longest from a name listed, resolved before, to its next connection blocked", "s", 2, blocked),
        judge("longest from a name listed to the end of a connection that is open", "s", 2, ended),
        judge(escaped, "", 0, first["escaped"]),
    ]


def _spread(values: list[float]) -> tuple[float, float]:
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return median(values), (high - low) / 2
