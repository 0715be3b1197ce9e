"""The lease: one publisher leads, and its token is above all before."""

from pathlib import Path

import pytest

from publish.publish_support import Clock
from urlward.publish.lease import NAME, Lease, LeaseLostError, leader_of
from urlward.publish.place import Folder, PlaceError


def test_one_leads_and_another_when_it_is_silent_for_the_term(tmp_path: Path) -> None:
    place, clock = Folder(tmp_path), Clock()
    one, two = (Lease(place, 30, clock) for _ in range(2))
    assert one.take()
    assert not two.take()
    for _ in range(5):
        clock.now += 20
        one.renew()
        assert not two.take()  # what matters is how long it has seen the same one
    clock.now += 29
    one.check()
    assert not two.take()
    clock.now += 1
    with pytest.raises(LeaseLostError):
        one.check()
    assert two.take()
    assert (one.token, two.token) == (1, 2)
    with pytest.raises(LeaseLostError):
        one.renew()
    two.check()


def test_one_that_was_frozen_learns_that_it_leads_no_more(tmp_path: Path) -> None:
    place, clock, stopped = Folder(tmp_path), Clock(), Clock()
    one, two = Lease(place, 30, stopped), Lease(place, 30, clock)
    assert one.take()
    assert not two.take()
    clock.now += 30
    assert two.take()
    one.check()  # by its own clock nothing has happened
    with pytest.raises(LeaseLostError, match=r"another publisher, .+, leads"):
        one.renew()
    with pytest.raises(LeaseLostError):
        one.check()
    one.release()
    two.renew()


def test_who_ends_leaves_it_to_others_at_once(tmp_path: Path) -> None:
    place, clock = Folder(tmp_path), Clock()
    assert leader_of(place) == ""
    one, two = (Lease(place, 30, clock) for _ in range(2))
    assert one.take()
    assert leader_of(place)
    assert not two.take()
    one.release()
    one.release()
    assert leader_of(place) == ""
    assert two.take()
    assert two.token == 2


def test_a_renewal_whose_answer_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, clock = Folder(tmp_path), Clock()
    lease = Lease(place, 30, clock)
    assert lease.take()
    write = place.write

    def lost(name: str, data: bytes, over: str) -> str:
        write(name, data, over)
        raise PlaceError("away")

    with monkeypatch.context() as patched:
        patched.setattr(place, "write", lost)
        with pytest.raises(PlaceError):
            lease.renew()
    lease.renew()
    before = place.read(NAME)
    lease.renew()
    lease.check()
    after = place.read(NAME)
    assert before is not None
    assert after is not None
    assert before.data != after.data, "a bucket tells objects by what is in them"


def test_one_thread_keeps_it_however_often_it_is_taken(tmp_path: Path) -> None:
    clock = Clock()
    lease = Lease(Folder(tmp_path), 3_600, clock)
    assert lease.take()
    first = lease.keep()
    clock.now += 3_600
    assert lease.take()
    second = lease.keep()
    first.join(20)
    assert (first.is_alive(), second.is_alive()) == (False, True)
    lease.release()
    second.join(20)
    assert not second.is_alive()


def test_who_was_cut_off_for_the_term_leads_again_at_once_if_nobody_else_does(tmp_path: Path) -> None:
    place, clock = Folder(tmp_path), Clock()
    one, two = (Lease(place, 30, clock) for _ in range(2))
    assert one.take()
    clock.now += 30
    with pytest.raises(LeaseLostError):
        one.check()
    assert one.take()
    assert one.token == 2
    one.check()
    assert not two.take()


def test_tokens_rise_though_the_lease_is_lost_or_edited(tmp_path: Path) -> None:
    place, clock = Folder(tmp_path), Clock()
    for token, content in ((8, None), (12, b"edited"), (20, b"{}")):
        if content is None:
            place.remove(NAME)
        else:
            (tmp_path / NAME).write_bytes(content)
        lease = Lease(place, 30, clock)
        assert lease.take(token - 1)
        assert lease.token == token


def test_it_is_kept_by_a_thread_until_it_is_released(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    lease = Lease(place, 1.0, Clock())  # which does not lose it, whoever waits for a processor
    assert lease.take()
    first = place.read(NAME)
    thread = lease.keep()
    try:
        while place.read(NAME) == first:
            assert thread.is_alive()
        lease.check()
    finally:
        lease.release()
    thread.join()
