from typing import Any

from urlward.dashboard.sources import SPAN, History

NOW = 1_795_600_000


def snapshot(requests: int, blocks: int = 0, added: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "started": 1.0,
        "open": 3,
        "stall_longest": 0.05,
        "stall_newest": 0.002,
        "requests": {"match": {"pass": requests}, "dns": {"pass": 99}},
        "blocks": {"hotline": {"phishing": blocks}} if blocks else {},
        "histograms": {"added": {"counts": [requests, 0], "sum": added}},
    } | more


def test_each_second_has_what_it_added():
    history = History()
    history.sample({"a": snapshot(100), "b": snapshot(50)}, NOW)
    history.sample({"a": snapshot(110, 2, 0.02), "b": snapshot(55, 1, 0.01)}, NOW + 1)
    now = history.now([])
    assert now["seconds"] == [NOW, NOW + 1]
    assert now["requests"] == [0, 15]
    assert now["blocks"] == [0, 3]
    assert now["latency"] == [None, 2.0]
    assert now["stall"] == [2.0, 2.0]
    assert now["connections"] == 6


def test_a_worker_that_is_replaced_counts_from_nothing():
    history = History()
    history.sample({"a": snapshot(100)}, NOW)
    history.sample({}, NOW + 1)
    history.sample({"a": snapshot(7, started=2.0)}, NOW + 2)
    assert history.now([])["requests"] == [0, 0, 7]


def test_seconds_are_told_once_and_in_order():
    history = History()
    for count, at in enumerate((0.0, 1.0, 1.4, 0.5, 2.0)):
        history.sample({"a": snapshot(count)}, NOW + at)
    now = history.now([])
    assert now["seconds"] == [NOW, NOW + 1, NOW + 2]
    assert now["requests"] == [0, 1, 3]


def test_ten_minutes_are_kept():
    history = History()
    for at in range(SPAN + 50):
        history.sample({"a": snapshot(at)}, NOW + at)
    now = history.now([])
    assert len(now["seconds"]) == SPAN
    assert now["time"] == NOW + SPAN + 49
    history.sample({"a": snapshot(SPAN)}, NOW + 10 * SPAN)
    assert history.now([])["seconds"] == [NOW + 10 * SPAN]


def test_nothing_is_known_at_first():
    assert History().now([{"name": "w"}]) == {
        "time": 0, "seconds": [], "requests": [], "blocks": [], "latency": [], "stall": [],
        "connections": 0, "workers": [{"name": "w"}],
    }  # fmt: skip


def test_a_clock_that_is_set_back_begins_another_ten_minutes():
    history = History()
    history.sample({"a": snapshot(1)}, NOW)
    history.sample({"a": snapshot(3)}, NOW - 3_600)
    now = history.now([])
    assert (now["time"], now["seconds"], now["requests"]) == (NOW - 3_600, [NOW - 3_600], [2])


def test_a_stall_is_shown_in_its_own_second():
    history = History()
    for at, stall in enumerate((0.0, 1.0, 0.0)):
        history.sample({"a": snapshot(0, stall_newest=stall, stall_longest=1.0)}, NOW + at)
    assert history.now([])["stall"] == [0.0, 1000.0, 0.0]
