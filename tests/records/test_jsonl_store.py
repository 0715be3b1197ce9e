import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from records.support import DAY, START, an_event, versions
from urlward.config.records import StoreTable
from urlward.engine.errors import UrlwardError
from urlward.records import jsonl_store as module
from urlward.records.event import as_json
from urlward.records.jsonl_store import JsonlStore
from urlward.records.store import Age, KeepingStore, StoreError
from urlward.records.stores import open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "records.jsonl"


def opened(path: Path, max_size: int = 1 << 20, keep: int = 3) -> JsonlStore:
    return JsonlStore(path, max_size, keep)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_lines_are_events_as_exported(tmp_path: Path) -> None:
    store = open_store(StoreTable(kind="jsonl"), tmp_path)
    assert isinstance(store, KeepingStore)
    event = an_event(1, list="é", detail='{"a": "b\\n"}')
    store.write([event, an_event(2)])
    store.close()
    (file,) = tmp_path.iterdir()
    assert file.name == "records.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first, second = file.read_bytes().splitlines()
    assert json.loads(first) == as_json(event)
    assert json.loads(second)["id"] == an_event(2).id


def test_the_same_is_kept_once_also_after_a_restart(path: Path) -> None:
    some = [an_event(n) for n in range(4)]
    store = opened(path)
    store.write([some[0], some[0], some[1]])
    store.write(some[:3])
    assert ids(path) == [event.id for event in some[:3]]
    opened(path).write(some)
    assert ids(path) == [event.id for event in some]


def test_only_the_last_ids_are_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    some = [an_event(n) for n in range(3)]
    store = opened(path)
    store.write(some)
    store.write(some)
    assert ids(path) == [event.id for event in [*some, some[0]]]


def test_rotation(path: Path) -> None:
    store = opened(path, max_size=1, keep=2)
    some = [an_event(n) for n in range(4)]
    for event in some:
        store.write([event])
    assert files(path) == ["records.jsonl", "records.jsonl.1", "records.jsonl.2"]
    assert ids(path) == [some[3].id]
    assert ids(path.with_name("records.jsonl.2")) == [some[1].id]
    # Those of the file before are known again as well.
    opened(path, max_size=1, keep=2).write([some[2]])
    assert ids(path) == [some[3].id]
    opened(path, max_size=1, keep=1).write([an_event(9)])
    assert files(path) == ["records.jsonl", "records.jsonl.1"]


def test_a_torn_line_is_cut_off(path: Path) -> None:
    some = [an_event(n) for n in range(2)]
    opened(path).write(some[:1])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "' + b"x" * 100_000)
    opened(path).write(some)
    assert path.read_bytes().startswith(whole)
    assert ids(path) == [event.id for event in some]
    path.write_bytes(b"torn" * 100_000)
    opened(path).write(some[:1])
    assert ids(path) == [some[0].id]


def test_all_or_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(path)
    store.write([an_event(0)])
    write, calls = os.write, []

    def full(fd: int, data: memoryview) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(fd, data[:50])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StoreError, match=r"records\.jsonl: No space left on device$"):
            store.write([an_event(1), an_event(2)])
    assert ids(path) == [an_event(0).id]
    store.write([an_event(1)])
    assert ids(path) == [an_event(0).id, an_event(1).id]


def test_purge(path: Path) -> None:
    store = opened(path, max_size=1, keep=5)
    for n in range(4):
        store.write([an_event(n, at=START + n * DAY), an_event(n + 10, kind="list", at=START + n * DAY)])
    store.write([an_event(20, at=START + 4 * DAY)])
    now = START + 4 * DAY
    leftover = path.with_name(".records.jsonl.3.tmp")
    leftover.write_bytes(b"of a killed one")
    path.with_name("records.jsonl.old").write_bytes(b"somebody's own")
    assert store.ages() == {"block": Age(5, START), "list": Age(4, START)}
    held = {an_event(1).reference}
    assert store.purge({"block": 2, "list": 3}, now, held) == 1 + 1
    assert store.ages() == {"block": Age(4, START + DAY), "list": Age(3, START + DAY)}
    assert store.ages(held) == {"block": Age(3, START + 2 * DAY), "list": Age(3, START + DAY)}
    # The oldest file went whole; that of the second day is as it was.
    assert files(path) == [
        *("records.jsonl", "records.jsonl.1", "records.jsonl.2", "records.jsonl.3", "records.jsonl.old"),
    ]
    assert store.purge({"block": 2, "list": 3}, now) == 1
    data = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert an_event(1).reference.encode() not in data
    assert an_event(11).reference.encode() in data
    assert store.purge({"block": 1}, now + 10 * DAY) == 3
    assert not path.exists()
    store.write([an_event(30)])
    assert ids(path) == [an_event(30).id]


def test_the_version_of_a_list_stays_with_what_it_listed(path: Path) -> None:
    evidence, others = versions()
    store = opened(path, max_size=1, keep=9)
    for event in [*others, *evidence]:
        store.write([event])
    held = {evidence[0].reference}
    assert sorted(store.evidence(held)) == sorted(evidence)
    assert store.evidence(()) == []
    days = {"block": 1, "list": 1, "feed": 1, "objection": 1}
    assert store.purge(days, START + 9 * DAY, held) == len(others)
    assert sorted(store.evidence(held)) == sorted(evidence)
    assert store.ages(held) == {}
    assert store.purge(days, START + 9 * DAY) == len(evidence)


def test_what_is_held_stays_when_the_oldest_file_goes(path: Path) -> None:
    evidence, others = versions()
    holds: list[str] | UrlwardError = [evidence[0].reference]

    def held() -> list[str]:
        if isinstance(holds, UrlwardError):
            raise holds
        return holds

    store = JsonlStore(path, 1, 2, held)
    for event in [*others, *evidence]:
        store.write([event])
    for n in range(20, 26):
        store.write([an_event(n)])
    assert sorted(store.evidence(held())) == sorted(evidence)
    assert files(path) == ["records.jsonl", *(f"records.jsonl.{n}" for n in (1, 2, 3))]
    assert len(ids(path.with_name("records.jsonl.3"))) == len(evidence)
    # While it is not known what is held nothing goes; what is released then goes with the rest.
    holds = UrlwardError("damaged")
    for n in range(30, 33):
        store.write([an_event(n)])
    assert len(files(path)) == 7
    holds = []
    store.write([an_event(40)])
    assert files(path) == ["records.jsonl", "records.jsonl.1", "records.jsonl.2"]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with pytest.raises(StoreError, match=r"/log: Not a directory$"):
        opened(tmp_path / "log" / "records.jsonl")


def test_what_is_held_while_a_purge_is_under_way_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    store = JsonlStore(path, 1, 3, lambda: held)
    events = [an_event(n) for n in range(3)]
    for event in events:
        store.write([event])
    keep_only = module._keep_only

    def then_held(file: Path, stays: Callable[[Mapping[str, Any]], bool]) -> int:
        count = keep_only(file, stays)
        held.append(events[1].reference)
        return count

    monkeypatch.setattr(module, "_keep_only", then_held)
    assert store.purge({"block": 1}, START + 3 * DAY) == 2
    assert store.evidence(held) == [events[1]]


def test_purge_misses_nothing_where_files_are_rotated_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, writer = opened(path, max_size=1, keep=9), opened(path, max_size=1, keep=9)
    for n in range(4):
        store.write([an_event(n)])
    keep_only, fresh = module._keep_only, iter([an_event(n, at=START + 9 * DAY) for n in (10, 11)])

    def rotated(file: Path, stays: Callable[[Mapping[str, Any]], bool]) -> int:
        count = keep_only(file, stays)
        if file.name.endswith((".jsonl", ".1")):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            writer._rotate()
            module._append(path, (json.dumps(as_json(next(fresh))) + "\n").encode())
        return count

    monkeypatch.setattr(module, "_keep_only", rotated)
    store.purge({"block": 1}, START + 9 * DAY)
    assert store.ages() == {"block": Age(2, START + 9 * DAY)}
