"""Interface of the dashboard to the rest of urlward."""

from typing import Any, NamedTuple, TypedDict

from urlward.engine.errors import UrlwardError

type Row = dict[str, Any]
"""By the names that the interface for scripts has too."""


class NotConfiguredError(UrlwardError):
    """A part that is not configured; the message says how it would be."""


class EventPage(NamedTuple):
    """Page of events, newest first.

    Attributes:
        events: by the names of an event's fields.
        older: the `EventQuery.before` of the next page; empty where there is none.
    """

    events: list[Row]
    older: str


class Now(TypedDict):
    """Current traffic: the last ten minutes, and the workers.

    Keys:
        time: of the newest second, seconds since 1970-01-01 UTC; 0 where none is known yet.
        seconds: those of the last ten minutes that are known, ascending.
        requests, blocks: in each of these seconds.
        latency: that the filter added to a request, milliseconds, the mean of each second; None without one.
        stall: the longest of the event loops, milliseconds.
        connections: open now.
        workers: each with ``name``, ``since`` (RFC 3339), ``connections``, ``queue`` and ``dropped``.
    """

    time: int
    seconds: list[int]
    requests: list[int]
    blocks: list[int]
    latency: list[float | None]
    stall: list[float]
    connections: int
    workers: list[Row]


class Past(TypedDict):
    """Traffic of hours or days, step by step; each list has a value a step, None where nothing was counted.

    Keys:
        span: a name of `urlward.dashboard.history.SPANS`.
        step: seconds.
        times: when each step begins, seconds since 1970-01-01 UTC, ascending.
        counted: share of each step in which somebody counted, 0 to 1.
        requests: a second, on average.
        blocks, errors: in each step.
        p50, p99: of the latency that the filter added, milliseconds; None without a request.
        stall: the longest of the event loops, milliseconds.
        connections: most at a time.
        dns: answers a second by verdict.
        lists, categories: blocks in each step, by name, the most blocked first.
        feeds: seconds since the last success, at most, by name.
    """

    span: str
    step: int
    times: list[int]
    counted: list[float]
    requests: list[float | None]
    blocks: list[int | None]
    errors: list[int | None]
    p50: list[float | None]
    p99: list[float | None]
    stall: list[float | None]
    connections: list[int | None]
    dns: dict[str, list[float | None]]
    lists: dict[str, list[int | None]]
    categories: dict[str, list[int | None]]
    feeds: dict[str, list[float | None]]
