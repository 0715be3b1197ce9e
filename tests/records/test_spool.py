import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.recording import events
from urlward.records.event import Event
from urlward.records.spool import Spool, SpoolError

LIMIT = 64 << 20


def drained(spool: Spool) -> list[Event]:
    found = []
    while (segment := spool.oldest()) is not None:
        assert not segment.damaged
        found += segment.events
        spool.remove_oldest()
    return found


def test_what_was_put_in_comes_out_in_order_and_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", LIMIT)
    assert not spool
    assert spool.oldest() is None
    put = events(6000)
    for n in range(0, 4000, 100):
        assert spool.append(put[n : n + 100])
    assert len(list((tmp_path / "spool").iterdir())) > 1
    spool = Spool(tmp_path / "spool", LIMIT)
    assert spool.events == 4000
    assert spool.size == sum(path.stat().st_size for path in (tmp_path / "spool").iterdir())
    for n in range(4000, 6000, 100):
        assert spool.append(put[n : n + 100])
    assert drained(spool) == put
    assert (spool.size, spool.events, bool(spool)) == (0, 0, False)
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_comes_while_the_oldest_is_read_is_not_lost(tmp_path: Path) -> None:
    spool, put = Spool(tmp_path, LIMIT), events(20)
    spool.append(put[:10])
    assert (segment := spool.oldest()) is not None
    spool.append(put[10:])
    assert segment.events == put[:10]
    spool.remove_oldest()
    assert drained(spool) == put[10:]


def test_it_takes_no_more_than_it_may(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100_000)
    taken = 0
    while spool.append(events(10, taken)):
        taken += 10
    assert 100 < taken < 2000
    assert spool.size <= 100_000
    assert Spool(tmp_path, 100_000).events == taken
    assert drained(spool) == events(taken)
    assert spool.append(events(10))


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 3000))
def test_a_torn_end_costs_no_more_than_itself(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, LIMIT)
    for n in range(5):
        spool.append(events(5, 5 * n))
    path = next(folder.iterdir())
    os.truncate(path, max(path.stat().st_size - cut, 0))
    spool = Spool(folder, LIMIT)
    spool.append(events(5, 100))
    found = drained(spool)
    assert found[-5:] == events(5, 100)
    assert found[:-5] == events(len(found) - 5)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 2000), value=st.integers(0, 255))
def test_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, at: int, value: int) -> None:
    folder = tmp_path_factory.mktemp("spool")
    Spool(folder, LIMIT).append(events(10))
    path = next(folder.iterdir())
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= value
    path.write_bytes(data)
    segment = Spool(folder, LIMIT).oldest()
    assert segment is not None
    assert segment.events in ([], events(10))


def test_damaged_bytes_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    spool.append(events(10))
    spool.append(events(10, 10))
    path = next(tmp_path.iterdir())
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    segment = Spool(tmp_path, LIMIT).oldest()
    assert segment is not None
    assert segment.events == events(10)
    assert segment.damaged > 100


@pytest.fixture
def small_files() -> Iterator[int]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield 20_000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_full_disk_takes_half_of_is_not_there_at_all(tmp_path: Path, small_files: int) -> None:
    spool, taken = Spool(tmp_path, LIMIT), 0
    while spool.size < small_files - 2_500:
        spool.append(events(10, taken))
        taken += 10
    with pytest.raises(SpoolError, match="File too large"):
        spool.append(events(100, taken))
    assert spool.events == taken > 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    spool.append(events(10, taken))
    assert drained(Spool(tmp_path, LIMIT)) == events(taken + 10)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spool = Spool(tmp_path / "file2", LIMIT)
    (tmp_path / "file2").touch()
    with pytest.raises(SpoolError, match="file2"):
        spool.append(events(1))
    with pytest.raises(SpoolError, match="file"):
        Spool(tmp_path / "file", LIMIT)
