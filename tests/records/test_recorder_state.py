from types import SimpleNamespace

from urlward.records.recorder_state import StoreState, recorder_state


def test_all_stores_together() -> None:
    sqlite = SimpleNamespace(up=True, written=5, failures=0, queued=1, spooled=0, spool_bytes=0, dropped=0)
    syslog = SimpleNamespace(up=False, written=2, failures=3, queued=2, spooled=4, spool_bytes=400, dropped=6)
    found = recorder_state(
        [("sqlite", sqlite), ("syslog", syslog)],
        events={"block": 5},
        raised={"store-down": 1, "store-back": 1},
        alarms={"store-down": "x"},
        spool_limit=1000,
    )
    assert found.stores == {"sqlite": StoreState(True, 5, 0), "syslog": StoreState(False, 2, 3)}
    assert (found.queue, found.spool_events, found.spool_bytes, found.spool_limit) == (2, 4, 400, 1000)
    assert (found.dropped, found.events, found.alarms) == (6, {"block": 5}, {"store-down": "x"})
    assert found.raised == {"store-down": 1}
