"""Killed at any moment, records lose at most the last second, and say so."""

import json
import os
import random
import signal
from pathlib import Path

from conftest import wait_for
from records.recording import emitted, emitted_at, kept, kill, recorder, worker


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
            for process in (a, b):
                os.kill(process.pid or 0, signal.SIGTERM)
                process.join(10)
            os.kill(last.pid or 0, signal.SIGTERM)
            last.join(10)
            assert (a.exitcode, b.exitcode, last.exitcode) == (0, 0, 0)
    for name in "ab":
        found = [text for text in kept(tmp_path) if text.startswith(name)]
        assert found == [f"{name}{n}" for n in range(emitted(tmp_path, name))]
    assert len(kept(tmp_path, "gap")) == 5
    assert all("the process that records ended" in text for text in kept(tmp_path, "gap"))
    assert not (tmp_path / "records.run").exists()


def test_a_worker_that_is_killed_loses_at_most_its_last_second_and_that_is_told(tmp_path: Path) -> None:
    moments = random.Random(7)
    with recorder(tmp_path):
        for n in range(4):
            with worker(tmp_path, rate=3000, name=f"w{n}") as process:
                _until(tmp_path, 300 + moments.randrange(900), f"w{n}")
                kill(process)
            wait_for(lambda n=n: len(kept(tmp_path, "gap")) > n, "the gap to be told")
            found = [text for text in kept(tmp_path) if text.startswith(f"w{n}")]
            assert found == [f"w{n}{k}" for k in range(len(found))]
            last = emitted(tmp_path, f"w{n}")
            if len(found) < last:
                lost = emitted_at(tmp_path, last, f"w{n}") - emitted_at(tmp_path, len(found) + 1, f"w{n}")
                assert lost <= 1.0
    gaps = [json.loads(text) for text in kept(tmp_path, "gap")]
    assert [set(gap) for gap in gaps] == [{"since", "until", "text"}] * 4
    assert all("worker gw1-w" in gap["text"] for gap in gaps)


def test_both_killed_lose_at_most_the_last_second(tmp_path: Path) -> None:
    with worker(tmp_path, rate=3000) as process, recorder(tmp_path) as other:
        wait_for(lambda: len(kept(tmp_path)) > 1000, "events")
        kill(other)
        kill(process)
    found, last = kept(tmp_path), emitted(tmp_path)
    assert found == [str(k) for k in range(len(found))]
    assert emitted_at(tmp_path, last) - emitted_at(tmp_path, min(len(found) + 1, last)) <= 1.0
    with recorder(tmp_path):
        wait_for(lambda: kept(tmp_path, "gap"), "the gap to be told")


def test_an_end_in_order_leaves_no_gap(tmp_path: Path) -> None:
    for name in "ab":
        with recorder(tmp_path) as process, worker(tmp_path, rate=1000, count=50, name=name) as other:
            wait_for(lambda name=name: any(text.startswith(name) for text in kept(tmp_path)), "events")
            _until(tmp_path, 50, name)
            os.kill(process.pid or 0, signal.SIGTERM)
            os.kill(other.pid or 0, signal.SIGTERM)
            process.join(10)
            other.join(10)
            assert (process.exitcode, other.exitcode) == (0, 0)
    assert len(kept(tmp_path)) == emitted(tmp_path, "a") + emitted(tmp_path, "b")
    assert kept(tmp_path, "gap") == []
    assert len(kept(tmp_path, "start")) == len(kept(tmp_path, "stop")) == 2


def _until(state: Path, count: int, name: str) -> None:
    wait_for(lambda: emitted(state, name) >= count, "events to be emitted")
