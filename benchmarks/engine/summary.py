"""From rounds to figures, from figures to goals."""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any, TypedDict

from benchmarks.engine.plan import GOAL_SIZE, Plan

type Result = dict[str, Any]

SUBJECT = "urlward"
YARDSTICK = "adblock-rust"
WORDS = {
    "miss": "unlisted request",
    "first": "unlisted request to a new host",
    "near": "unlisted request to a listed page's host",
    "hit": "listed request",
    "hit_first": "listed request to a new host",
}
"""The series of requests."""

_FIGURES = (
    ("resident memory", "bytes an entry", 60, "bytes_per_entry_untrimmed"),
    ("compiling with a progress bar", "s", 6, "build_s"),
    ("loading", "s", 2, "load_s"),
    ("longest wait of another thread while loading", "ms", 20, "stall_ms"),
    ("longest step of loading after the first, which lets others run", "ms", 20, "load_step_ms"),
    ("longest step of freeing", "ms", 20, "release_step_ms"),
    ("a target of 64 KiB of `%25` to a listed page's host", "ms", 1, "escapes_ms"),
)


class Goal(TypedDict):
    """One goal: met where the value is at most the limit."""

    goal: str
    unit: str
    limit: float
    value: float | None
    passed: bool | None


def summarise(result: Result) -> None:
    """Add the medians of a result's rounds."""
    if result["status"] != "ok":
        return
    size = result["size"]
    rounds = result["rounds"]
    checks = {series: _spread([_microseconds(r[series]) for r in rounds]) for series in rounds[0]}
    figures: dict[str, Any] = {
        "check_us": checks,
        "build_s": round(result["build"]["wall"], 3),
        "stall_ms": round(median(result["stalls"]) * 1e3, 1),
        "escapes_ms": round(median(_microseconds(series) for series in result["escapes"]) / 1e3, 3),
        "bytes_per_entry": round(result["memory"]["trimmed"] / size, 1),
        "bytes_per_entry_untrimmed": round(result["memory"]["resident"] / size, 1),
    }
    if "loads" in result:
        loads = result["loads"]
        figures["load_s"] = round(median(load["wall"] for load in loads), 3)
        figures["load_step_ms"] = round(median(load["longest_step"] for load in loads) * 1e3, 1)
        figures["load_first_step_ms"] = round(median(load["first_step"] for load in loads) * 1e3, 1)
        figures["release_step_ms"] = round(median(r["longest_step"] for r in result["releases"]) * 1e3, 1)
    build = result["build"]
    figures["build_step_ms"] = round(max(build["first_step"], build["longest_step"]) * 1e3, 1)
    result["figures"] = figures


def goals(results: Sequence[Result], plan: Plan) -> list[Goal]:
    """Each goal with its limit, the value and whether it is met; None where it was not measured."""
    largest, smallest, reference = plan.sizes[-1], plan.sizes[0], plan.reference
    subject = _find(results, SUBJECT, largest)
    yardstick = _find(results, YARDSTICK, reference)
    compared = {
        "miss": (largest, reference, 1.0),
        "first": (reference, reference, 1.5),
        "near": (largest, largest, 1.0),
        "hit": (largest, largest, 1.0),
        "hit_first": (largest, reference, 1.0),
    }
    rows = [
        _goal(
            f"{WORDS[series]}: cost at {size:,} over adblock-rust's at {peer_size:,}",
            "times",
            limit,
            _ratio(_find(results, SUBJECT, size), _find(results, YARDSTICK, peer_size), series),
        )
        for series, (size, peer_size, limit) in compared.items()
    ]
    parsed = _ratio(subject, yardstick, "miss", "miss_parsed")
    rows.append(
        _goal(f"the first of these, where adblock-rust parses the URL at {reference:,}", "times", 1.0, parsed)
    )
    small = _find(results, SUBJECT, smallest)
    for series in ("miss", "first"):
        ratio = _ratio(subject, small, series)
        rows.append(_goal(f"{WORDS[series]}: cost over that at {smallest:,}", "times", 1.3, ratio))
    for name, unit, limit, figure in _FIGURES:
        rows.append(_goal(name, unit, limit, None if subject is None else subject["figures"][figure]))
    rows.append(_goal("wrong verdicts", "requests", 0, None if subject is None else _wrong(subject["found"])))
    if largest != GOAL_SIZE:
        # The limits are for the full size.
        for row in rows:
            row["passed"] = None
    return rows


def _goal(name: str, unit: str, limit: float, value: float | None) -> Goal:
    if value is None:
        return Goal(goal=name, unit=unit, limit=limit, value=None, passed=None)
    return Goal(goal=name, unit=unit, limit=limit, value=round(value, 3), passed=value <= limit)


def _wrong(found: dict[str, Any]) -> int:
    listed: list[tuple[int, int]] = [*found["hits"].values(), found["respelled"]]
    unlisted: int = found["unlisted"][0]
    return sum(total - blocked for blocked, total in listed) + unlisted


def _find(results: Sequence[Result], engine: str, size: int) -> Result | None:
    for result in results:
        if result["engine"] == engine and result["size"] == size and result["status"] == "ok":
            return result
    return None


def _ratio(above: Result | None, below: Result | None, series: str, other: str | None = None) -> float | None:
    """The median of the rounds' ratios: numerator and denominator are of one round."""
    if above is None or below is None:
        return None
    pairs = zip(above["rounds"], below["rounds"], strict=True)
    return median(_microseconds(a[series]) / _microseconds(b[other or series]) for a, b in pairs)


def _microseconds(series: dict[str, float]) -> float:
    return series["cpu"] / series["requests"] * 1e6


def _spread(values: list[float]) -> dict[str, float]:
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": round(median(values), 3), "low": round(low, 3), "high": round(high, 3)}
