import os
from pathlib import Path

import pytest

from lists.support import descriptors
from rows import each_row
from urlward.lists import source
from urlward.lists.source import SourceError


@each_row("make", [lambda p: None, os.mkdir, os.mkfifo], ids=["missing", "folder", "pipe"])
def test_what_is_no_file(tmp_path: Path, make: object) -> None:
    path = tmp_path / "list"
    make(path)  # type: ignore[operator]
    before = descriptors()
    with pytest.raises(SourceError, match=f"^{path}: "):
        source.whole_copy(path)
    assert descriptors() <= before


def test_no_memory_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"x")

    def full(fd: int, data: bytes) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "write", full)
    before = descriptors()
    with pytest.raises(OSError, match="Cannot allocate"):
        source.whole_copy(path)
    assert descriptors() <= before


def test_a_whole_copy_is_of_one_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"a" * 3_000_000)
    read, changes = source._read, [2]

    def read_slowly(path: Path, fd: int) -> bytes:
        chunk = read(path, fd)
        if chunk and changes[0] > 0:
            changes[0] -= 1
            path.write_bytes(chunk[:1].upper() * 3_000_000)  # in its place, under the reader's hands
            os.utime(path, ns=(changes[0], changes[0]))
        return chunk

    monkeypatch.setattr(source, "_read", read_slowly)
    fd = source.whole_copy(path)
    assert len({*os.pread(fd, 3_000_000, 0)}) == 1
    os.close(fd)
    changes[0] = 1_000_000
    with pytest.raises(source.ChangingError, match=r"list: changed each time while it was read$"):
        source.whole_copy(path)
    os.close(source.whole_copy(path, as_is=True))


def test_a_file_that_is_replaced_while_it_is_read_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"a" * 3_000_000)
    read = source._read

    def read_slowly(path: Path, fd: int) -> bytes:
        (tmp_path / "other").write_bytes(b"other")
        (tmp_path / "other").replace(path)
        return read(path, fd)

    monkeypatch.setattr(source, "_read", read_slowly)
    fd = source.whole_copy(path)
    assert os.pread(fd, 4_000_000, 0) == b"a" * 3_000_000
    os.close(fd)
