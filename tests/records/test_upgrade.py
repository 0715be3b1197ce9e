"""What the versions before the outbox left in spools is taken in, once."""

import struct
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest

from records.recording import events
from rows import each_row
from urlward.records.event import Event
from urlward.records.outbox import Outbox, Position
from urlward.records.recorder import sign_of_life, take_in_spools

PLACES = {"sqlite": "sqlite records.db", "jsonl": "jsonl records.jsonl"}


def segment(state: Path, store: str, number: int, *frames: list[Event]) -> Path:
    """A file as those versions wrote it."""
    data = b"urlward spool 1\n"
    for some in frames:
        frame = msgspec.json.encode(some)
        data += struct.pack(">II8s", len(frame), len(some), blake2b(frame, digest_size=8).digest()) + frame
    path = state / "spool" / store / f"{number:012d}.spool"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def waiting(state: Path, store: str) -> list[Event]:
    return Outbox(state).read(PLACES[store], Position(), 1000).events


def test_each_store_gets_its_own_in_order(tmp_path: Path) -> None:
    segment(tmp_path, "sqlite", 2, events(3, 20))
    segment(tmp_path, "sqlite", 1, events(10), events(10, 10))
    segment(tmp_path, "jsonl", 1, events(1, 50))
    take_in_spools(tmp_path, PLACES)
    assert waiting(tmp_path, "sqlite") == events(23)
    assert waiting(tmp_path, "jsonl") == events(1, 50)
    assert not (tmp_path / "spool").exists()
    take_in_spools(tmp_path, PLACES)
    assert len(waiting(tmp_path, "sqlite")) == 23


@each_row("cut", [1, 20, None])
def test_of_a_damaged_one_what_can_be_read_is_kept(tmp_path: Path, cut: int | None) -> None:
    path = segment(tmp_path, "sqlite", 1, events(10), events(10, 10))
    data = path.read_bytes()
    path.write_bytes(data[:-cut] if cut else data[:-5] + b"?" + data[-4:])
    segment(tmp_path, "sqlite", 2, events(1, 20))
    segment(tmp_path, "sqlite", 3).write_bytes(b"noise")
    segment(tmp_path, "sqlite", 4).unlink()
    (tmp_path / "spool/sqlite/000000000004.spool").mkdir()
    take_in_spools(tmp_path, PLACES)
    assert waiting(tmp_path, "sqlite") == [*events(10), *events(1, 20)]
    assert len([*(tmp_path / "damaged").iterdir()]) == 3
    assert not (tmp_path / "spool").exists()


def test_what_waits_for_no_store_any_more_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment(tmp_path, "syslog", 1, events(10))
    take_in_spools(tmp_path, PLACES)
    assert "spool/syslog: waits for a store that is not configured: deleted" in caplog.text
    assert not (tmp_path / "spool").exists()


def test_a_folder_that_is_a_link_is_taken_in_too(tmp_path: Path) -> None:
    state, large = tmp_path / "state", tmp_path / "large"
    for each in (state, large):
        each.mkdir()
    (state / "spool").symlink_to(large)
    path = segment(state, "sqlite", 1, events(10))
    take_in_spools(state, PLACES)
    assert waiting(state, "sqlite") == events(10)
    assert not path.exists()
    assert not (state / "spool").is_symlink()


def test_a_recorder_that_was_killed_is_told_of_once(tmp_path: Path) -> None:
    assert sign_of_life(tmp_path) is None
    (tmp_path / "records.run").write_text("001795500000000\n")
    assert sign_of_life(tmp_path) == 1_795_500_000_000
    assert sign_of_life(tmp_path) is None
    (tmp_path / "records.run").write_text("?")
    assert sign_of_life(tmp_path) is None
    assert not (tmp_path / "records.run").exists()
