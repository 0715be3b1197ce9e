import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from urlward.gateway import system
from urlward.gateway.system import NamespaceLock


def test_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_PATIENCE", 60.0)
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        own = NamespaceLock()
        for _ in range(20):
            with own.taken():
                inside += 1
                most = max(most, inside)
                time.sleep(0.0002)
                inside -= 1
        own.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    assert most == 1


def test_one_that_is_stuck_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_PATIENCE", 0.05)
    stuck, other = NamespaceLock(), NamespaceLock()
    went_on = threading.Event()
    with stuck.taken(), other.taken():
        went_on.set()
    assert went_on.is_set()
    with other.taken():
        pass
    stuck.close()
    other.close()
