from typing import Any

import pytest
from mitmproxy.connection import Client
from mitmproxy.proxy import mode_specs

from urlward.config import ProbingTable
from urlward.engine.verdict import Verdict
from urlward.proxy import probing as module
from urlward.proxy.probing import MAX_WAIT, Probe, Probing

PROBER, OTHER = "192.0.2.7", "192.0.2.8"


def client(address: str) -> Client:
    return Client(
        peername=(address, 1234),
        sockname=("192.0.2.254", 8080),
        timestamp_start=0.0,
        proxy_mode=mode_specs.ProxyMode.parse("regular"),
    )


class Watched:
    """Probing on a clock that the test moves."""

    def __init__(self, **table: Any) -> None:
        self.now = 1000.0
        self.alarms: list[Probe] = []
        self.held: list[tuple[str, float]] = []
        values = {"entries": 3, "window": 60.0, **table}
        self.probing = Probing(ProbingTable(**values), self.alarms.append, self._hold, lambda: self.now)

    def _hold(self, client: Client, seconds: float) -> None:
        self.held.append((client.peername[0], seconds))

    def draw(self, *entries: str, address: str = PROBER) -> None:
        for entry in entries:
            self.probing.drew(client(address), Verdict("block", entry=entry, list="test"))

    def ask(self, address: str = PROBER) -> float:
        """Seconds for which it is held."""
        before = len(self.held)
        self.probing.asked(client(address))
        return self.held[-1][1] if len(self.held) > before else 0.0

    def connect(self, address: str = PROBER) -> float:
        return self.probing.connecting(client(address))


def test_more_entries_than_a_person_would_meet_raise_an_alarm() -> None:
    w = Watched()
    w.draw("a", "b", "c")
    assert w.alarms == []
    w.draw("d")
    assert w.alarms == [Probe(PROBER, 4, 60.0, slowed=False)]


def test_the_same_entry_again_and_again_does_not() -> None:
    w = Watched()
    w.draw(*"abcabcabc" * 100)
    assert w.alarms == []


def test_entries_of_one_id_in_two_lists_are_two() -> None:
    w = Watched()
    for number in range(4):
        w.probing.drew(client(PROBER), Verdict("block", entry="a", list=f"list-{number}"))
    assert len(w.alarms) == 1


def test_only_those_within_the_window_count() -> None:
    w = Watched()
    for entry in "abcdefgh":
        w.draw(entry)
        w.now += 20.0
    assert w.alarms == []  # never more than three in a minute
    w.draw("i", "j")
    assert len(w.alarms) == 1


def test_an_entry_that_comes_again_counts_from_then_on() -> None:
    w = Watched()
    w.draw("a", "b")
    w.now += 50
    w.draw("a")
    w.now += 20  # b is too old
    w.draw("c", "d")
    assert w.alarms == []
    w.draw("e")
    assert len(w.alarms) == 1


def test_there_is_one_alarm_for_a_client_and_window() -> None:
    w = Watched()
    w.draw(*"abcdefgh")
    w.now += 59
    w.draw(*"ijklmnop")
    assert len(w.alarms) == 1
    w.now += 1
    w.draw(*"qrst")
    assert len(w.alarms) == 2


def test_clients_are_told_apart() -> None:
    w = Watched()
    for entry in "abcdefgh":
        w.draw(entry, address=f"192.0.2.{ord(entry)}")
    assert w.alarms == []


def test_a_network_of_64_bits_is_one_client() -> None:
    w = Watched()
    for n, entry in enumerate("abcd"):
        w.draw(entry, address=f"2001:db8:1:2::{n}")
    assert [alarm.client for alarm in w.alarms] == ["2001:db8:1:2::/64"]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DRAWN", 20)
    w = Watched(entries=1000)
    for n in range(100):
        w.draw(*"abcdef", address=f"192.0.2.{n}")
        kept = w.probing._drawn.values()
        assert sum(len(drawn.times) for drawn in kept) == w.probing._entries <= 20
    w.draw(*(str(n) for n in range(500)))
    assert w.probing._entries <= 20


def test_a_client_has_no_more_than_the_threshold() -> None:
    w = Watched()
    w.draw(*(str(n) for n in range(1000)))
    assert len(w.probing._drawn[PROBER].times) == 3


def test_nobody_is_slowed_where_that_is_not_wanted() -> None:
    w = Watched()
    w.draw(*"abcdefgh")
    assert not w.probing.slowing
    assert (w.ask(), w.connect()) == (0.0, 0.0)


def test_who_is_slowed_is_kept_to_the_rate_in_all_that_they_ask_for() -> None:
    w = Watched(slow=True, rate=2)
    w.draw(*"abcd")
    assert w.probing.slowing
    assert w.alarms[0].slowed
    assert [w.ask() for _ in range(4)] == [0.5, 1.0, 1.5, 2.0]
    w.now += 2.0
    assert w.ask() == pytest.approx(0.5)
    w.now += 30.0
    assert (w.ask(), w.ask()) == (0.0, 0.5)  # nothing is saved up


def test_others_are_not() -> None:
    w = Watched(slow=True)
    w.draw(*"abcd")
    assert (w.ask(OTHER), w.connect(OTHER)) == (0.0, 0.0)


def test_a_connection_takes_the_moment_of_its_first_request() -> None:
    w = Watched(slow=True, rate=1)
    w.draw(*"abcd")
    assert w.connect() == 1.0
    assert w.ask() == 0.0
    assert w.ask() == 2.0


def test_many_connections_gain_nothing() -> None:
    w = Watched(slow=True, rate=1)
    w.draw(*"abcd")
    waits = [w.connect() for _ in range(1000)]
    taken = [wait for wait in waits if wait <= MAX_WAIT]
    assert taken == [float(n + 1) for n in range(int(MAX_WAIT))]
    w.now += MAX_WAIT
    assert [w.ask() for _ in taken] == [0.0] * len(taken)
    assert w.ask() > 0


def test_requests_on_an_open_connection_take_each_a_moment_however_long_the_wait() -> None:
    w = Watched(slow=True, rate=1)
    w.draw(*"abcd")
    count = int(MAX_WAIT) + 5
    assert [w.ask() for _ in range(count)] == [float(n + 1) for n in range(count)]


def test_it_ends_with_the_window_after_the_last_of_too_many() -> None:
    w = Watched(slow=True)
    w.draw(*"abcd")
    w.now += 30
    w.draw(*"efgh")
    w.now += 59
    w.ask()
    assert w.probing.slowing
    w.now += 1
    assert (w.ask(), w.probing.slowing) == (0.0, False)


def test_how_many_are_slowed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SLOWED", 5)
    w = Watched(slow=True)
    for n in range(10):
        w.draw(*"abcd", address=f"192.0.2.{n}")
    assert len(w.probing._slowed) == 5
    w.now += 60
    w.draw(*"abcd", address="198.51.100.1")
    assert list(w.probing._slowed) == ["198.51.100.1"]
