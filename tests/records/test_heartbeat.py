from pathlib import Path

import pytest

from urlward.lists.state import StateError
from urlward.records.heartbeat import Heartbeat, note_lost


def test_a_start_after_an_end_in_order_misses_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        heartbeat = Heartbeat(tmp_path)
        assert heartbeat.begin(5_000) is None
        heartbeat.beat(6_000)
        heartbeat.end()
    assert list(tmp_path.iterdir()) == []


def test_a_start_after_none_knows_when_the_last_sign_of_life_was(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path)
    heartbeat.begin(5_000)
    heartbeat.beat(1_795_500_000_000)
    assert Heartbeat(tmp_path).begin(1_795_600_000_000) == 1_795_500_000_000 - 1000
    assert Heartbeat(tmp_path).begin(0) == 1_795_600_000_000 - 1000


def test_a_file_that_says_nothing_still_tells_by_its_age(tmp_path: Path) -> None:
    (tmp_path / "records.run").touch()
    changed = (tmp_path / "records.run").stat().st_mtime_ns // 1_000_000
    assert Heartbeat(tmp_path).begin(0) == changed - 1000


def test_a_worker_that_ends_before_anything_records_has_the_next_start_say_so(tmp_path: Path) -> None:
    note_lost(tmp_path, 9_000)
    note_lost(tmp_path, 8_000)
    heartbeat = Heartbeat(tmp_path)
    assert heartbeat.begin(20_000) == 9_000 - 1000
    note_lost(tmp_path, 9_000)  # it records, and says itself what it misses
    assert Heartbeat(tmp_path).begin(30_000) == 20_000 - 1000


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"records\.run"):
        Heartbeat(tmp_path / "none").begin(0)
