"""Stores that fail, are slow or come back, and disks that are full: nothing is lost that need not be."""

import json
import resource
from collections import Counter
from pathlib import Path

from conftest import wait_for
from records.recording import emitted, end, kept, kill, recorder, worker
from urlward.records.outbox import Outbox, Position


def _alarms(state: Path) -> list[str]:
    return [json.loads(text)["alarm"] for text in kept(state, "alarm")]


def _all_arrived(state: Path) -> bool:
    return kept(state) == [str(n) for n in range(emitted(state))]


def test_what_a_store_does_not_take_arrives_when_it_is_back_even_from_another_process(tmp_path: Path) -> None:
    (tmp_path / "down").touch()
    with worker(tmp_path, rate=2000, count=3000):
        with recorder(tmp_path) as process:
            wait_for(lambda: emitted(tmp_path) >= 3000, "events to be emitted")
            wait_for(lambda: _spooled(tmp_path) > 100_000, "events to be spooled")
            wait_for(lambda: _spooled_alarms(tmp_path)["store-down"], "the word that it is down")
            kill(process)
        with recorder(tmp_path):
            (tmp_path / "down").unlink()
            wait_for(lambda: _all_arrived(tmp_path), "all events")
            wait_for(lambda: "store-back" in _alarms(tmp_path), "the word that it is back")
            wait_for(lambda: not _spooled(tmp_path), "the spool to be empty")
    assert _alarms(tmp_path)[0] == "store-down"


def test_a_store_that_is_slow_does_not_slow_the_worker(tmp_path: Path) -> None:
    # It emits until it is told to end: whenever the store begins to be slow there are events to come.
    with recorder(tmp_path), worker(tmp_path, rate=2000) as process:
        wait_for(lambda: kept(tmp_path), "the first events")
        (tmp_path / "slow").write_text("1.2")
        wait_for(lambda: _spooled(tmp_path), "events to be spooled")
        before = emitted(tmp_path)
        wait_for(lambda: emitted(tmp_path) >= before + 2000, "events to be emitted")
        (tmp_path / "slow").unlink()
        end(process)
        wait_for(lambda: _all_arrived(tmp_path), "all events")


def test_what_a_full_spool_does_not_take_is_dropped_counted_and_told(tmp_path: Path) -> None:
    (tmp_path / "down").touch()
    with recorder(tmp_path, spool=1 << 20), worker(tmp_path, rate=10_000, count=10_000):
        wait_for(lambda: emitted(tmp_path) >= 10_000, "events to be emitted")
        wait_for(lambda: _spooled_alarms(tmp_path)["dropped"], "the first of them to be dropped")
        (tmp_path / "down").unlink()
        wait_for(lambda: "store-back" in _alarms(tmp_path), "the word that it is back")
        wait_for(lambda: _alarms(tmp_path)[-1] == "dropped", "the word of what was dropped")
        wait_for(lambda: "were dropped" in str(kept(tmp_path, "gap")), "the gap")

        def are_told() -> bool:
            told = int(json.loads(kept(tmp_path, "alarm")[-1])["text"].split(": ")[1].split()[0])
            # What the recorder and the worker say of themselves may be among them.
            return 0 <= told - (emitted(tmp_path) - len(kept(tmp_path))) <= 8

        # The worker may have had some in hand yet.
        wait_for(are_told, "as many to be told as were dropped, and all others to arrive")
        assert len(kept(tmp_path)) > 1000


def test_where_the_disk_takes_nothing_events_wait_in_memory(tmp_path: Path) -> None:
    # No file of theirs may be larger: neither the store's nor the outbox's.
    small = 400_000
    with worker(tmp_path, rate=4000, count=4000, file_size=small) as other:
        with recorder(tmp_path, file_size=small) as process:
            wait_for(lambda: emitted(tmp_path) >= 4000, "events to be emitted")
            kill(process)
        assert len(kept(tmp_path)) < 4000
        assert other.pid is not None
        resource.prlimit(other.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        with recorder(tmp_path):
            wait_for(lambda: _all_arrived(tmp_path), "all events")


def _spooled(state: Path) -> int:
    """Bytes that wait in the outbox."""
    outbox = Outbox(state, make=False)
    try:
        return outbox.used() if outbox.waiting("", Position()) else 0
    finally:
        outbox.close()


def _spooled_alarms(state: Path) -> Counter[str]:
    """Alarms that wait in the outbox, by kind."""
    outbox = Outbox(state, make=False)
    try:
        return outbox.news(Position()).alarms
    finally:
        outbox.close()
