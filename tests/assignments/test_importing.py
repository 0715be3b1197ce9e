import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assignments.support import START, at, intervals, read
from urlward.assignments import importing
from urlward.assignments.formats import ReadOptions
from urlward.assignments.importing import Imported, follow, import_file, in_order
from urlward.assignments.interval import AssignmentError, ms_text
from urlward.assignments.store import AssignmentStore, Changes, SourceChanged
from urlward.assignments.who import WhoQuestion, who

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADER = "address,from,to,subscriber\n"


def row(n: int) -> str:
    return f"192.0.2.{n % 200},{at(n)},{at(n + 1)},s{n}\n"


def rows(*numbers: int) -> str:
    return "".join(map(row, numbers))


def all_of(store: AssignmentStore) -> set[str]:
    return {one[0] for n in range(200) for one in intervals(store, f"192.0.2.{n}")}


def test_it_goes_on_where_it_ended(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + rows(1, 2))
    assert (read(store, "csv", path).rows, read(store, "csv", path).rows) == (2, 0)
    with path.open("a") as file:
        file.write(rows(3))
    done = read(store, "csv", path)
    assert (done.rows, done.resumed) == (1, len(HEADER + rows(1, 2)))
    assert all_of(store) == {"s1", "s2", "s3"}
    (shown,) = store.status()
    assert (shown["rows"], shown["files"][0]["offset"]) == (3, path.stat().st_size)


def test_a_copy_and_another_file_with_the_same_beginning(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    path, copy = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text(HEADER + rows(*range(100)))
    copy.write_text(path.read_text())
    assert read(sqlite_store, "csv", path).rows == 100
    assert read(sqlite_store, "csv", copy).rows == 0
    # Longer, and not what was read: from its beginning.
    copy.write_text(HEADER + rows(*range(98), *range(100, 105)))
    assert read(sqlite_store, "csv", copy).rows == 103
    assert all_of(sqlite_store) == {f"s{n}" for n in range(105)}


@pytest.mark.parametrize(("end", "left"), [("", {"s1", "s4"}), ("\n", {"s1", "s3", "s4"})])
def test_what_is_longer_than_any_row_is_none(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, left: set[str]
) -> None:
    """Such as the hole in a log that was cut while its writer went on behind it: it is not held in memory."""
    monkeypatch.setattr(importing, "_BLOCK", 100)
    monkeypatch.setattr(importing, "_LONGEST", 400)
    path = tmp_path / "a.csv"
    path.write_text(HEADER + rows(1) + "\0" * 999 + end + rows(3, 4) + "\0" * 999)
    done = read(sqlite_store, "csv", path)
    assert (done.rows, done.faults) == (
        len(left) + 2,
        [(3, "longer than any row is"), (5 + bool(end), "longer than any row is")],
    )
    with path.open("a") as file:
        file.write(rows(5))
    assert read(sqlite_store, "csv", path).rows == 1
    assert all_of(sqlite_store) == left | {"s5"}


@pytest.mark.parametrize("begins", [b"\x1f\x8b\x08\x08", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"])
def test_one_that_is_compressed_is_said_to_be(
    sqlite_store: AssignmentStore, tmp_path: Path, begins: bytes
) -> None:
    path = tmp_path / "detail.2.gz"
    path.write_bytes(begins)
    with pytest.raises(AssignmentError, match=r"detail\.2\.gz: compressed: decompress it first"):
        read(sqlite_store, "detail", path)


def test_many_blocks(store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_BLOCK", 100)
    path = tmp_path / "a.csv"
    path.write_text(HEADER + rows(*range(30)) + "x" * 500 + "\n" + rows(30))
    told: list[float] = []
    source = store.source("csv", "csv", "a.csv")
    done = importing.import_file(
        store, source, path, ReadOptions(), lambda: START / 1000, lambda _, share: told.append(share)
    )
    assert (done.rows, done.skipped) == (32, 1)
    assert (told[-1], told) == (1.0, sorted(told))
    assert len(told) > 10
    assert all_of(store) == {f"s{n}" for n in range(31)}


def test_whoever_is_stopped_goes_on(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_BLOCK", 100)
    path = tmp_path / "a.csv"
    path.write_text(HEADER + rows(*range(30)))
    write, left = AssignmentStore.write, [4]

    def fail(store: AssignmentStore, source: object, changes: Changes, now: int) -> None:
        if left[0] == 0:
            raise AssignmentError("full")
        left[0] -= 1
        write(store, source, changes, now)  # type: ignore[arg-type]

    monkeypatch.setattr(AssignmentStore, "write", fail)
    with pytest.raises(AssignmentError, match=r"a\.csv: full"):
        read(sqlite_store, "csv", path)
    monkeypatch.setattr(AssignmentStore, "write", write)
    done = read(sqlite_store, "csv", path)
    assert 0 < done.rows < 30
    assert sqlite_store.status()[0]["rows"] == 30
    assert all_of(sqlite_store) == {f"s{n}" for n in range(30)}


def test_what_cannot_be_read(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    with pytest.raises(AssignmentError, match=r"nothing\.csv: No such file"):
        read(sqlite_store, "csv", tmp_path / "nothing.csv")
    with pytest.raises(AssignmentError, match="Is a directory"):
        read(sqlite_store, "csv", tmp_path)
    assert in_order(sqlite_store, "kea", [Path()], ReadOptions()) == [Path()]


class Tail:
    """Follows a file; each step is a look at it."""

    def __init__(self, store: AssignmentStore, path: Path) -> None:
        self.source = store.source("csv", "csv", str(path))
        self.wait: Callable[[float], bool] = lambda _: True
        self.looks: Iterator[Imported] = follow(
            store,
            self.source,
            path,
            ReadOptions(),
            clock=lambda: START / 1000,
            wait=lambda seconds: self.wait(seconds),
        )

    def rows(self, looks: int = 1) -> int:
        return [next(self.looks).rows for _ in range(looks)][-1]


def test_following(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER[:-5])
    tail = Tail(sqlite_store, path)
    assert tail.rows() == 0
    path.write_text(HEADER + rows(1) + row(2)[:-4])
    assert tail.rows() == 1
    path.write_text(HEADER + rows(1, 2))
    assert tail.rows() == 2
    # Renamed; something is still written to it, and another one begun.
    path.rename(tmp_path / "a.csv.1")
    with (tmp_path / "a.csv.1").open("a") as file:
        file.write(rows(3))
    path.write_text(HEADER + rows(4))
    assert tail.rows(2) == 1
    assert all_of(sqlite_store) == {"s1", "s2", "s3", "s4"}
    # Cut, and written to anew.
    path.write_text(HEADER)
    assert tail.rows() == 0
    path.write_text(HEADER + rows(5))
    assert tail.rows() == 1
    assert all_of(sqlite_store) == {"s1", "s2", "s3", "s4", "s5"}


def test_what_is_followed_is_read_up_to_now(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    """Also where nothing was said since it was rotated, and not where nothing was ever said."""
    path, now = tmp_path / "a.log", START
    path.touch()
    source = sqlite_store.source("cgn", "cgn", str(path))
    looks = follow(sqlite_store, source, path, ReadOptions(), clock=lambda: now / 1000, wait=lambda _: True)
    next(looks)
    assert sqlite_store.status()[0]["read"] is None
    path.write_text("2026-11-18T11:00:00Z thunder FIXED-NAT-PORTS 100.64.0.1->198.51.100.1:1024-2047\n")
    next(looks)
    for _ in range(2):
        now += 300_000
        next(looks)
        assert sqlite_store.status()[0]["read"] == ms_text(now)
        path.rename(tmp_path / "a.log.1")
        path.touch()
        next(looks)


def test_a_file_that_is_not_there_yet_is_told(
    sqlite_store: AssignmentStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.log"
    source = sqlite_store.source("cgn", "cgn", str(path))
    assert list(follow(sqlite_store, source, path, ReadOptions(), wait=lambda _: False)) == []
    assert caplog.messages == [f"{path}: not there yet; nothing is read until it is"]


def test_two_readers_of_one_source(store: AssignmentStore, tmp_path: Path) -> None:
    """Such as of the files of two servers: what one has read is no other's to write over or to end."""
    paths = [tmp_path / f"{name}.csv" for name in "ab"]
    for path in paths:
        path.write_text("address,from,subscriber,event\n")
    one, other = (Tail(store, path) for path in paths)

    def say(path: Path, seconds: int, subscriber: str, event: str) -> None:
        with path.open("a") as file:
            file.write(f"192.0.2.7,{at(seconds)},{subscriber},{event}\n")

    say(paths[1], 0, "anna", "start")
    say(paths[1], 10, "anna", "stop")
    assert other.rows() == 2
    say(paths[0], 20, "berta", "start")
    assert one.rows() == 1
    say(paths[1], 30, "carla", "start")
    assert other.rows() == 3
    say(paths[0], 31, "berta", "stop")
    assert one.rows() == 2
    assert intervals(store, "192.0.2.7") == [
        ("anna", 0, 10, "TOLD"),
        ("berta", 20, 30, "NEXT"),
        ("carla", 30, None, "NONE"),
    ]
    (shown,) = store.status()
    assert (shown["rows"], shown["skipped"]) == (5, 1)


def test_one_that_others_write_beside_all_the_time_comes_to_its_end(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a rotated log that is imported while the next one is followed."""
    monkeypatch.setattr(importing, "_BLOCK", 1 << 12)
    path, live = tmp_path / "a.csv", tmp_path / "live.csv"
    path.write_text(HEADER + "".join(row(n) for n in range(400)))
    live.write_text(HEADER)
    source = sqlite_store.source("csv", "csv", str(live))
    written, is_alone = 0, False
    lines_in, take_alone = importing.FileReader._lines_in, importing.FileReader._take_alone

    def write() -> None:
        nonlocal written
        written += 1
        with live.open("a") as file:
            file.write(row(1000 + written))
        import_file(sqlite_store, source, live, ReadOptions(), lambda: START / 1000)

    def disturbed(self: importing.FileReader, data: bytes) -> Any:
        if self._path == path and not is_alone:
            write()
        return lines_in(self, data)

    def behind(self: importing.FileReader, progress: Any) -> bool:
        nonlocal is_alone
        write()
        is_alone = True
        try:
            return take_alone(self, progress)
        finally:
            is_alone = False

    reader = importing.FileReader(sqlite_store, source, path, ReadOptions(), lambda: START / 1000)
    monkeypatch.setattr(importing.FileReader, "_lines_in", disturbed)
    monkeypatch.setattr(importing.FileReader, "_take_alone", behind)
    try:
        assert reader.read().rows == 400
    finally:
        reader.close()
    (shown,) = sqlite_store.status()
    assert shown["rows"] == 400 + written


def test_who_follows_reads_nothing_that_another_has_read(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """Also where there was nothing to read before: what has ended would begin anew."""
    path = tmp_path / "a.csv"
    path.write_text("address,from,subscriber,event\n" + (start := f"192.0.2.7,{at(0)},anna,start\n"))
    read(sqlite_store, "csv", path)
    tail = Tail(sqlite_store, path)
    assert tail.rows() == 0
    with path.open("a") as file:
        file.write(start.replace("anna", "berta") + start.replace("start", "stop"))
    assert read(sqlite_store, "csv", path).rows == 2
    assert tail.rows() == 0
    (shown,) = sqlite_store.status()
    assert shown["rows"] == 3


def test_an_export_with_nothing_in_it_yet_misses_none_before_it(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """As a log does that was rotated before it was read to its end."""
    path = tmp_path / "a.csv"
    path.write_text(HEADER + rows(1))
    read(sqlite_store, "csv", path)
    path.write_text(HEADER)
    assert next(Tail(sqlite_store, path).looks).left == 0


def test_files_are_read_in_order(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.csv", "a.csv.1", "a.csv.10", "a.csv.2", "gone", "none")]
    for path, number in zip(paths, (9, 8, 1, 7), strict=False):
        path.write_text(HEADER + rows(number))
    paths[-1].write_text("")
    found = in_order(sqlite_store, "csv", paths, ReadOptions())
    assert [path.name for path in found] == ["a.csv.10", "a.csv.2", "a.csv.1", "a.csv", "gone", "none"]


def test_exports_are_read_in_the_order_of_what_is_newest_in_them(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """They begin with any row, such as that of the lowest address."""
    paths = [tmp_path / "old.csv", tmp_path / "new.csv"]
    paths[0].write_text(HEADER + rows(5, 1))
    paths[1].write_text(HEADER + rows(1, 5, 9))
    assert in_order(sqlite_store, "csv", paths, ReadOptions()) == paths


@pytest.mark.parametrize("copied", [0, 5000])
def test_a_log_that_was_rotated_tells_nothing_of_what_came_then(
    store: AssignmentStore, tmp_path: Path, copied: int
) -> None:
    """An older one that is read later takes nothing of it back, nor does when it was copied count."""
    event = "FIXED-NAT-PORTS 100.64.0.{}->198.51.100.{}:1024-2047"
    for number, written in ((2, 400), (1, 60)):
        path = tmp_path / f"cgn.log.{number}"
        path.write_text(f"{ms_text(at(written))} thunder {event.format(number, number)}\n")
        os.utime(path, (at(written + copied) // 1000,) * 2)
        source = store.source("cgn", "cgn", str(path))
        for later in (at(900), at(1000)):
            import_file(store, source, path, ReadOptions(), lambda now=later: now / 1000)
        (shown,) = store.status()
        assert (shown["read"], shown["files"][-1]["read"]) == (ms_text(at(400)), ms_text(at(1000)))
    assert who(store, WhoQuestion("198.51.100.2", 1024, at(400))).verdict == "one"
    assert who(store, WhoQuestion("198.51.100.2", 1024, at(401))).verdict == "ambiguous"


@pytest.mark.parametrize("at_write", [1, 2])
def test_what_another_reader_has_read_again_is_counted_once(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_write: int
) -> None:
    monkeypatch.setattr(importing, "_BLOCK", 100)
    path = tmp_path / "a.csv"
    path.write_text(HEADER + rows(1, 2, 3, 4))
    write, left = sqlite_store.write, iter(range(at_write - 1, -9, -1))

    def changed(*given: Any) -> None:
        if next(left) == 0:
            raise SourceChanged
        write(*given)

    monkeypatch.setattr(sqlite_store, "write", changed)
    assert read(sqlite_store, "csv", path).rows == 4
    assert sqlite_store.status()[0]["rows"] == 4


def test_following_goes_on_when_the_store_does(
    sqlite_store: AssignmentStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A log that is rotated while the database is down is read to its end, by the file that is open."""
    path, write = tmp_path / "a.csv", AssignmentStore.write
    path.write_text(HEADER + rows(1))
    tail = Tail(sqlite_store, path)
    assert tail.rows() == 1
    waits: list[float] = []

    def refuse(*_: object) -> None:
        raise AssignmentError("the server is gone")

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if waits.count(importing.AGAIN) == 2:
            monkeypatch.setattr(AssignmentStore, "write", write)
        return True

    with path.open("a") as file:
        file.write(rows(2))
    path.rename(tmp_path / "a.csv.1")
    path.write_text(HEADER + rows(3))
    monkeypatch.setattr(AssignmentStore, "write", refuse)
    tail.wait = wait
    assert tail.rows() == 1
    (tmp_path / "a.csv.1").unlink()
    assert tail.rows() == 1
    assert all_of(sqlite_store) == {"s1", "s2", "s3"}
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        f"{path}: the server is gone; tried again each half a minute"
    ]


def test_following_what_cannot_be_read_from_the_beginning_ends(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    with pytest.raises(AssignmentError, match=r"not a regular file|Is a directory"):
        Tail(sqlite_store, tmp_path).rows()


def test_a_file_whose_name_is_no_text(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "\udcff.csv"
    path.write_text(HEADER + rows(1, 2))
    assert (read(store, "csv", path).rows, read(store, "csv", path).rows) == (2, 0)
    (shown,) = store.status()
    assert shown["path"] == shown["files"][0]["path"] == rf"{tmp_path}/\udcff.csv"


@pytest.mark.parametrize("more", [0, 1 << 20])
def test_an_export_that_is_changed_within(sqlite_store: AssignmentStore, tmp_path: Path, more: int) -> None:
    """Neither at its beginning nor at its end, and no byte longer."""
    path = tmp_path / "a.csv"
    path.write_text(HEADER + rows(*range(100, 250)) + "\n" * more + rows(*range(250, 400)))
    assert read(sqlite_store, "csv", path).rows == 300
    path.write_text(path.read_text().replace(",s250\n", ",new0\n"))
    assert read(sqlite_store, "csv", path).rows == 300
    assert "new0" in all_of(sqlite_store)
    assert read(sqlite_store, "csv", path).rows == 0


def test_what_a_later_export_leaves_out_may_have_ended(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    source = sqlite_store.source("csv", "csv", str(path))
    for names, now in (("ab", 1000), ("b", 2000), ("b", 3000)):
        path.write_text(HEADER + "".join(f"192.0.2.{ord(one)},{at(10)},,{one}\n" for one in names))
        import_file(sqlite_store, source, path, ReadOptions(), lambda now=now: at(now) / 1000)  # type: ignore[misc]

    def verdicts(address: str) -> list[str]:
        return [who(sqlite_store, WhoQuestion(address, None, at(seconds))).verdict for seconds in (900, 2500)]

    assert verdicts("192.0.2.97") == ["one", "ambiguous"]
    assert verdicts("192.0.2.98") == ["one", "one"]


def test_an_export_that_is_written_over_while_it_is_followed(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + rows(1, 2))
    tail = Tail(sqlite_store, path)
    assert [tail.rows() for _ in range(2)] == [2, 2]
    path.write_text(HEADER + rows(1, 3, 4))
    os.utime(path, (at(50) / 1000,) * 2)
    assert [tail.rows() for _ in range(2)] == [3, 3]
    assert all_of(sqlite_store) == {"s1", "s2", "s3", "s4"}
