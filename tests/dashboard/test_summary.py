from urlward.dashboard.history import by_minute, newest
from urlward.dashboard.sources import Now


def now(first: int, requests: list[int], latency: list[float | None]) -> Now:
    count = len(requests)
    return Now(
        time=first + count - 1, seconds=list(range(first, first + count)), requests=requests,
        blocks=[1] * count, latency=latency, stall=[float(n) for n in range(count)],
        connections=0, workers=[],
    )  # fmt: skip


def test_minutes_begin_with_minutes_and_the_newest_is_first():
    rows = by_minute(now(110, [2] * 20, [1.0] * 20))
    assert [row["begin"] for row in rows] == [120, 60]
    assert rows[0] == {"begin": 120, "requests": 2.0, "blocks": 1.0, "latency": 1.0, "stall": 19.0}
    assert rows[1]["stall"] == 9.0


def test_latency_is_weighed_by_requests():
    assert newest(now(0, [9, 1, 0], [1.0, 11.0, None]))["latency"] == 2.0


def test_the_newest_figures_are_of_ten_seconds():
    assert newest(now(0, [100] * 5 + [3] * 10, [None] * 15))["requests"] == 3.0


def test_of_nothing():
    assert by_minute(now(0, [], [])) == []
    assert newest(now(0, [], [])) == {"requests": 0.0, "blocks": 0.0, "latency": None, "stall": 0.0}
