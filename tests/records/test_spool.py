import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obstacles import permissions_hold
from records.recording import events
from urlward.records.event import Event
from urlward.records.spool import Spool, SpoolError

LIMIT = 64 << 20


def drained(spool: Spool) -> list[Event]:
    found = []
    while (segment := spool.oldest()) is not None:
        found += segment.events
        spool.remove_oldest(damaged=segment.damaged > 0)
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


@pytest.mark.parametrize("name", ["spool/sqlite/000000000001.spool", "spool/sqlite", "spool"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "noise", "folder", "pipe", "unreadable"])
def test_what_is_damaged_is_set_aside(tmp_path: Path, name: str, damage: str) -> None:
    folder, path = tmp_path / "spool/sqlite", tmp_path / name
    spool = Spool(folder, LIMIT, tmp_path)
    spool.append(events(10))
    spool.append(events(10, 10))
    spool.close()
    data = b"" if path.is_dir() else path.read_bytes()
    if damage == "unreadable":
        path.chmod(0)
    elif damage == "folder":
        if data:
            path.unlink()
            path.mkdir()
    elif damage == "pipe":
        path.unlink() if data else shutil.rmtree(path)
        os.mkfifo(path)
    else:
        if not data:
            shutil.rmtree(path)
        flipped = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:] if data else b""
        path.write_bytes(
            {"flipped": flipped, "cut": data[:-5], "empty": b"", "noise": b"\xff\x00" * 900}[damage]
        )
    with permissions_hold():
        spool = Spool(folder, LIMIT, tmp_path)
        spool.append(events(5, 100))
        found = drained(spool)
    assert found[-5:] == events(5, 100)
    if data:
        assert found[:-5] == (events(10) if damage in ("flipped", "cut") else [])
    if data or damage != "folder":
        (aside,) = (tmp_path / "damaged").iterdir()
        assert aside.name.startswith(path.name)


def test_a_segment_that_becomes_unreadable_holds_up_no_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool/sqlite", LIMIT, tmp_path)
    spool.append(events(10))
    path = next((tmp_path / "spool/sqlite").iterdir())
    path.unlink()
    path.mkdir()
    segment = spool.oldest()
    assert segment is not None
    assert segment.damaged > 0
    spool.remove_oldest(damaged=True)
    assert not spool


def test_what_is_appended_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after `append` loses nothing of it (fsync(2)), nor the segment's name."""
    synchronised: list[tuple[str, int]] = []

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        synchronised.append((path.name, path.stat().st_size if path.is_file() else 0))

    spool = Spool(tmp_path / "spool", LIMIT)
    monkeypatch.setattr(os, "fsync", fsync)
    spool.append(events(10))
    (segment,) = (tmp_path / "spool").iterdir()
    size = segment.stat().st_size
    assert synchronised[1:] == [("spool", 0), (segment.name, size)]
    spool.append(events(10))
    assert synchronised[3:] == [(segment.name, segment.stat().st_size)]


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
