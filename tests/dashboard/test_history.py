"""The history of traffic: what is counted, what is kept, and what is shown of it."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from lists.policy_support import config as read
from rows import each_row
from urlward.dashboard import history
from urlward.dashboard.history import (
    AHEAD,
    DAY,
    FILE,
    HOUR,
    KEPT,
    MINUTE,
    SPAN,
    SPANS,
    History,
    HistoryFile,
    Step,
    past,
)
from urlward.dashboard.live_sources import LiveSources, RecorderParts
from urlward.dashboard.pages import LINES, charts_of
from urlward.dashboard.sources import NotConfiguredError
from urlward.engine.errors import UrlwardError
from urlward.records.exposition import Exposition
from urlward.records.metrics import ADDED, Counts, Metrics

NOW = 1_795_600_020
"""When a minute begins."""


def totals(requests: int, blocks: int = 0, added: float = 0.0) -> Counts:
    return {
        ("requests", "match", "pass"): requests,
        ("requests", "dns", "pass"): 99,
        ("blocks", "hotline", "phishing"): blocks,
        ("added", "0"): requests,
        ("added", "sum"): added,
    }


def sample(history: History, requests: int, at: float, **more: Any) -> tuple[int, Step] | None:
    stall = more.pop("stall", 0.002)
    return history.sample(totals(requests, **more), 6, stall, at)


def test_each_second_has_what_it_added():
    history = History()
    sample(history, 150, NOW)
    sample(history, 165, NOW + 1, blocks=3, added=0.03)
    now = history.now([])
    assert now["seconds"] == [NOW, NOW + 1]
    assert now["requests"] == [0, 15]
    assert now["blocks"] == [0, 3]
    assert now["latency"] == [None, 2.0]
    assert now["stall"] == [2.0, 2.0]
    assert now["connections"] == 6


def test_seconds_are_told_once_and_in_order():
    history = History()
    for count, at in enumerate((0.0, 1.0, 1.4, 0.5, 2.0)):
        sample(history, count, NOW + at)
    now = history.now([])
    assert now["seconds"] == [NOW, NOW + 1, NOW + 2]
    assert now["requests"] == [0, 1, 3]


def test_ten_minutes_are_kept():
    history = History()
    for at in range(SPAN + 50):
        sample(history, at, NOW + at)
    now = history.now([])
    assert len(now["seconds"]) == SPAN
    assert now["time"] == NOW + SPAN + 49
    sample(history, SPAN, NOW + 10 * SPAN)
    assert history.now([])["seconds"] == [NOW + 10 * SPAN]


def test_nothing_is_known_at_first():
    assert History().now([{"name": "w"}]) == {
        "time": 0, "seconds": [], "requests": [], "blocks": [], "latency": [], "stall": [],
        "connections": 0, "workers": [{"name": "w"}],
    }  # fmt: skip


def test_a_clock_that_is_set_back_begins_another_ten_minutes():
    history = History()
    sample(history, 1, NOW)
    sample(history, 3, NOW - 3_600)
    now = history.now([])
    assert (now["time"], now["seconds"], now["requests"]) == (NOW - 3_600, [NOW - 3_600], [2])


def test_a_stall_is_shown_in_its_own_second():
    history = History()
    for at, stall in enumerate((0.0, 1.0, 0.0)):
        sample(history, 0, NOW + at, stall=stall)
    assert history.now([])["stall"] == [0.0, 1000.0, 0.0]


def test_a_minute_has_what_its_seconds_have():
    history = History()
    ended = [sample(history, 10 * at, NOW + at, blocks=at) for at in range(-3, 62)]
    (before, minute) = [one for one in ended if one is not None]
    assert (before[0], before[1].seconds, before[1].requests) == (NOW - 60, 2.0, 20)
    assert (minute[0], minute[1].seconds, minute[1].requests) == (NOW, 60.0, 600)
    assert (minute[1].lists, minute[1].categories, minute[1].blocks) == (
        {"hotline": 60}, {"phishing": 60}, 60,
    )  # fmt: skip
    assert sum(minute[1].added) == 600
    begin, rest = history.end() or (0, Step())
    assert (begin, rest.seconds) == (NOW + 60, 2.0)
    assert history.end() is None


def test_names_and_answers_are_counted_apart():
    history = History()
    history.sample({}, 0, 0.0, NOW)
    metrics = Metrics(1.0)
    metrics.requests("dns", "pass")
    metrics.requests("peek", "pass")
    metrics.requests("match", "block")
    metrics.blocked("hotline", "phishing")
    metrics.blocked("hotline", "")
    metrics.blocked("trial", "phishing", would=True)
    metrics.error("page")
    metrics.added(0.0003)
    exposition = Exposition([], Path("/nowhere"))
    exposition.take("w0", metrics.snapshot())
    history.sample(exposition.total(), 0, 0.0, NOW + 1)
    _, step = history.end() or (0, Step())
    assert step.requests == 2
    assert step.dns == {"pass": 1}
    assert step.lists == {"hotline": 2}
    assert step.categories == {"phishing": 1, "none": 1}
    assert step.errors == {"page": 1}
    assert (step.added[2], sum(step.added)) == (1, 1)


def test_latency_of_a_share_of_requests():
    counts = [0] * (len(ADDED) + 1)
    assert Step(added=counts).latency(0.5) is None
    counts[1] = 100  # above 0.1 ms, up to 0.25
    assert Step(added=counts).latency(0.5) == pytest.approx(0.175)
    counts[-1] = 100  # above a second: no more is known of them
    assert Step(added=counts).latency(0.99) == 1000.0


@pytest.fixture
def file(tmp_path: Path) -> HistoryFile:
    return HistoryFile(tmp_path / FILE)


def test_what_is_written_is_there_after_a_restart(file: HistoryFile, tmp_path: Path):
    step = Step(seconds=60, requests=7, lists={"hotline": 2}, added=[7], feeds={"hotline": 30.0}, stall=1.5)
    file.add(NOW, step, NOW)
    again = HistoryFile(tmp_path / FILE)
    assert again.read(MINUTE, NOW, NOW + 1) == [(NOW, step)]
    assert again.read(HOUR, NOW - HOUR, NOW + 1) == [(NOW - NOW % HOUR, step)]
    # The rest of a minute that a restart cut in two.
    again.add(NOW, Step(seconds=20, requests=1, feeds={"hotline": 90.0}, stall=0.5), NOW)
    ((_, both),) = again.read(MINUTE, NOW, NOW + 1)
    assert (both.seconds, both.requests, both.stall, both.feeds) == (80, 8, 1.5, {"hotline": 90.0})
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_an_hour_is_made_of_its_minutes(file: HistoryFile):
    begin = NOW - NOW % HOUR
    for minute in range(60):
        file.add(begin + 60 * minute, Step(seconds=60, requests=minute, connections=minute), NOW)
    ((at, hour),) = file.read(HOUR, begin, begin + HOUR)
    assert (at, hour.seconds, hour.requests, hour.connections) == (begin, 3_600, 1_770, 59)


@pytest.mark.ours
def test_no_more_is_kept_than_there_is_room_for(file: HistoryFile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(KEPT, MINUTE, 5)
    monkeypatch.setitem(KEPT, HOUR, 2)
    for n in range(200):
        file.add(NOW + MINUTE * n, Step(seconds=60), NOW + MINUTE * n)
    assert [begin for begin, _ in file.read(MINUTE, 0, 1 << 40)] == [
        NOW + MINUTE * n for n in range(195, 200)
    ]
    assert len(file.read(HOUR, 0, 1 << 40)) == 2


def test_a_clock_that_was_ahead_takes_nothing_with_it(file: HistoryFile):
    file.add(NOW, Step(seconds=60), NOW)
    file.add(NOW + 900 * DAY, Step(seconds=60), NOW + 900 * DAY)
    assert len(file.read(MINUTE, 0, 1 << 40)) == 2
    file.add(NOW + MINUTE, Step(seconds=60), NOW + MINUTE)
    begins = [begin for begin, _ in file.read(MINUTE, 0, 1 << 40)]
    assert begins == [NOW, NOW + MINUTE]
    assert all(begin < NOW + AHEAD for begin, _ in file.read(HOUR, 0, 1 << 40))


def test_a_row_that_is_none_is_left_out(file: HistoryFile, tmp_path: Path):
    file.add(NOW, Step(seconds=60, requests=1), NOW)
    with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        db.execute("UPDATE step SET data = ? WHERE length = 60", ["{"])
    assert file.read(MINUTE, 0, 1 << 40) == []
    file.add(NOW, Step(seconds=60, requests=2), NOW)
    assert [step.requests for _, step in file.read(MINUTE, 0, 1 << 40)] == [2]


@pytest.mark.parametrize("who", ["a page", "the minute"])
def test_a_file_that_is_damaged_meanwhile_is_begun_anew(file: HistoryFile, tmp_path: Path, who: str):
    """Not by the next start alone, until which nothing was kept and no page shown."""
    file.add(NOW, Step(seconds=60), NOW)
    (tmp_path / FILE).write_bytes(bytes(4_096))
    with pytest.raises(UrlwardError, match="not a database"):
        file.read(MINUTE, 0, 1) if who == "a page" else file.add(NOW, Step(seconds=60), NOW)
    assert [path.name.partition(".2")[0] for path in (tmp_path / "damaged").glob(f"{FILE}.2*")] == [FILE]
    file.add(NOW, Step(seconds=30), NOW)
    assert [step.seconds for _, step in file.read(MINUTE, 0, 1 << 40)] == [30]


def test_a_file_that_is_in_use_stays(file: HistoryFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file.add(NOW, Step(seconds=60), NOW)
    monkeypatch.setattr(history, "WAIT", 0.0)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UrlwardError, match="locked"):
            file.add(NOW, Step(seconds=60), NOW)
    assert not (tmp_path / "damaged").exists()
    assert len(file.read(MINUTE, 0, 1 << 40)) == 1


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(UrlwardError, match=FILE):
        HistoryFile(tmp_path / FILE).add(NOW, Step(seconds=60), NOW)
    assert HistoryFile(tmp_path / "none" / FILE).read(MINUTE, 0, 1) == []


def steps(*found: tuple[int, Step]) -> Callable[[int, int, int], list[tuple[int, Step]]]:
    return lambda length, since, until: [one for one in found if since <= one[0] < until]


@each_row("name", SPANS)
@each_row("rows", [False, True])
def test_a_span_ends_with_the_step_that_is_under_way(name: str, rows: bool):
    found = past(name, steps(), NOW, rows=rows)
    assert found["times"][-1] <= NOW < found["times"][-1] + found["step"]
    assert {b - a for a, b in zip(found["times"], found["times"][1:], strict=False)} == {found["step"]}
    assert len(found["times"]) <= (60 if rows else 400)


def test_a_gap_is_no_zero():
    begin = NOW - NOW % 600
    counted = Step(seconds=150, requests=300, lists={"hotline": 3}, errors={"page": 2}, feeds={"a": 90.0})
    found = past("24h", steps((begin - 1_200, counted), (begin, Step(seconds=20))), NOW)
    assert found["counted"][-3:] == [0.25, 0.0, round(20 / 600, 3)]
    assert found["requests"][-3:] == [2.0, None, 0.0]
    assert found["blocks"][-3:] == [3, None, 0]
    assert found["errors"][-3:] == [2, None, 0]
    assert found["lists"] == {"hotline": [*[None] * 141, 3, None, 0]}
    assert found["p50"][-3:] == [None, None, None]
    assert found["feeds"]["a"][-3:] == [90, None, 0]


def test_names_come_by_how_much_they_have():
    many = Step(seconds=60, lists={f"list-{n}": n for n in range(1, 20)}, dns={"pass": 60})
    found = past("24h", steps((NOW - NOW % 600, many)), NOW)
    charts = {chart.name: chart for chart in charts_of(found)}
    assert [line.name for line in charts["lists"].lines] == [
        "list-19", "list-18", "list-17", "list-16", "list-15", "history.others",
    ]  # fmt: skip
    assert len(charts["lists"].lines) == LINES
    assert charts["lists"].lines[-1].values[-2:] == [None, sum(range(1, 15))]
    assert charts["dns"].lines[0].values[-1] == 1.0
    plotted = {chart.name: chart.lines[-1].values for chart in charts_of(found, whole=True)}
    assert (plotted["lists"][-1], plotted["dns"][-1]) == (None, 1.0)
    assert "feeds" not in charts


def running(tmp_path: Path, clock: Callable[[], float], total: Callable[[], Counts]) -> LiveSources:
    parts = RecorderParts(snapshots=lambda: {"w": {"open": 4, "stall_newest": 0.001}}, total=total)
    return LiveSources(read(tmp_path, ""), tmp_path, parts, clock=clock)


def test_it_goes_on_after_a_restart(tmp_path: Path):
    passed = 0

    def clock() -> float:
        return NOW + passed

    def counted() -> Counts:
        return totals(2 * passed)

    for _ in range(2):
        live = running(tmp_path, clock, counted)
        for _ in range(90):
            live.tick()
            passed += 1
        live.close()
        passed += 1_200  # nobody counts meanwhile
    found = running(tmp_path, clock, lambda: totals(0)).history("24h")
    pairs = zip(found["counted"], found["requests"], strict=True)
    known = [(share, rate) for share, rate in pairs if share]
    assert sum(share * 600 for share, _ in known) == pytest.approx(178, abs=1)
    assert {rate for _, rate in known} == {2.0}
    assert None in found["requests"][found["requests"].index(2.0) :]


def test_without_metrics_there_is_none(tmp_path: Path):
    with pytest.raises(NotConfiguredError, match="not collected"):
        LiveSources(read(tmp_path, ""), tmp_path).history("24h")


def test_a_disk_that_takes_nothing_is_said_once_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    broken = threading.Event()
    broken.set()
    add, tried = HistoryFile.add, []

    def sometimes(self: HistoryFile, begin: int, step: Step, now: float) -> None:
        tried.append(begin)
        if broken.is_set():
            raise UrlwardError("no space left")
        add(self, begin, step, now)

    monkeypatch.setattr(HistoryFile, "add", sometimes)
    at = NOW
    live = running(tmp_path, lambda: at, lambda: totals(0))
    for minute in range(3):
        for _ in range(60):
            live.tick()
            at += 1
        live.tick()
        at += 1
        wait_for(lambda minute=minute: len(tried) > minute, "an attempt")  # type: ignore[misc]
    broken.clear()
    live.close()
    assert caplog.text.count("the history of traffic is not kept: ") == 1
    assert len(HistoryFile(tmp_path / FILE).read(MINUTE, 0, 1 << 40)) >= 3
