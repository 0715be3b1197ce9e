"""Killed at any moment, records lose at most the last second, and say so."""

import json
import random
import time
from datetime import datetime
from pathlib import Path

from conftest import wait_for
from records.recording import emitted, emitted_at, end, kept, kill, recorder, worker
from urlward.records.writer import processes


def test_a_recorder_that_is_killed_again_and_again_loses_nothing_of_workers_that_live(tmp_path: Path) -> None:
    moments = random.Random(6)
    with worker(tmp_path, rate=2000, name="a") as a, worker(tmp_path, rate=2000, name="b") as b:
        for n in range(5):
            with recorder(tmp_path):
                before = len(kept(tmp_path))
                wait_for(lambda before=before: len(kept(tmp_path)) > before, f"events after kill {n}")
                _until(tmp_path, emitted(tmp_path, "a") + moments.randrange(300), "a")
        with recorder(tmp_path) as last:
            before = len(kept(tmp_path))
            wait_for(lambda: len(kept(tmp_path)) > before, "events after the last kill")
            for process in (a, b, last):
                end(process)
    for name in "ab":
        found = _of(tmp_path, name)
        assert found == [f"{name}{n}" for n in range(emitted(tmp_path, name))]
    assert len(kept(tmp_path, "gap")) == 5
    assert all("the process that records ended" in text for text in kept(tmp_path, "gap"))
    assert processes(tmp_path) == []


def test_a_worker_that_is_killed_loses_at_most_its_last_second_and_that_is_told(tmp_path: Path) -> None:
    moments = random.Random(7)
    with recorder(tmp_path):
        for n in range(4):
            with worker(tmp_path, rate=1000, name=f"w{n}") as process:
                wait_for(lambda n=n: _of(tmp_path, f"w{n}"), "its first events")
                _until(tmp_path, emitted(tmp_path, f"w{n}") + moments.randrange(350), f"w{n}")
                kill(process)
            wait_for(lambda n=n: len(kept(tmp_path, "gap")) > n, "the gap to be told")
            found = _of(tmp_path, f"w{n}")
            assert found == [f"w{n}{k}" for k in range(len(found))]
            assert _missing(tmp_path, len(found), f"w{n}") <= 1.0
    gaps = [json.loads(text) for text in kept(tmp_path, "gap")]
    assert [set(gap) for gap in gaps] == [{"since", "until", "text"}] * 4
    assert all("worker gw1-w" in gap["text"] for gap in gaps)


def test_a_worker_that_is_killed_before_anything_records_is_told_of_too(tmp_path: Path) -> None:
    with worker(tmp_path, rate=1000, name="w") as process:
        wait_for(lambda: (tmp_path / "outbox/outbox.db").exists(), "the outbox")
        _until(tmp_path, 500, "w")
        kill(process)
    last = time.time()
    with recorder(tmp_path):
        wait_for(lambda: kept(tmp_path, "gap"), "the gap to be told")
        wait_for(lambda: _of(tmp_path, "w"), "what it has written")
    (gap,) = [json.loads(text) for text in kept(tmp_path, "gap")]
    assert gap["text"].startswith("worker gw1-w-")
    since = datetime.fromisoformat(gap["since"]).timestamp()
    assert since <= last
    found = _of(tmp_path, "w")
    assert found == [f"w{k}" for k in range(len(found))]
    assert _missing(tmp_path, len(found), "w") <= 1.0
    with recorder(tmp_path) as again:
        wait_for(lambda: str(kept(tmp_path, "start")).count("records") == 2, "its start")
        end(again)
    assert len([text for text in kept(tmp_path, "gap") if "worker" in text]) == 1


def test_both_killed_lose_at_most_the_last_second(tmp_path: Path) -> None:
    def keeps_up() -> bool:
        count = len(kept(tmp_path))
        return count > 1000 and _missing(tmp_path, count) < 0.7

    with worker(tmp_path, rate=3000) as process, recorder(tmp_path) as other:
        # Which of them the machine lets run is not what this is about.
        wait_for(keeps_up, "events, as they come")
        kill(other, process)
    found = kept(tmp_path)
    assert found == [str(k) for k in range(len(found))]
    assert _missing(tmp_path, len(found)) <= 1.0
    with recorder(tmp_path):
        wait_for(lambda: kept(tmp_path, "gap"), "the gap to be told")


def test_an_end_in_order_leaves_no_gap(tmp_path: Path) -> None:
    for name in "ab":
        with recorder(tmp_path) as process, worker(tmp_path, rate=1000, count=50, name=name) as other:
            wait_for(lambda name=name: _of(tmp_path, name), "events")
            _until(tmp_path, 50, name)
            end(process, other)
    assert len(kept(tmp_path)) == emitted(tmp_path, "a") + emitted(tmp_path, "b")
    assert kept(tmp_path, "gap") == []
    assert len(kept(tmp_path, "start")) == len(kept(tmp_path, "stop")) == 4


def _of(state: Path, name: str) -> list[str]:
    return [text for text in kept(state) if text.startswith(name)]


def _until(state: Path, count: int, name: str) -> None:
    wait_for(lambda: emitted(state, name) >= count, "events to be emitted")


def _missing(state: Path, count: int, name: str = "") -> float:
    """Seconds in which a worker has emitted what is not among the first so many events."""
    last = emitted(state, name)
    return emitted_at(state, last, name) - emitted_at(state, min(count + 1, last), name) if last else 0.0
