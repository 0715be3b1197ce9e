import mmap
import os
from pathlib import Path

import pytest

from lists.support import SECRET, artifact, blocks, descriptors
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.lists import memory
from urlward.lists.build import checksum
from urlward.lists.files import Signature
from urlward.lists.source import SourceError


@pytest.fixture
def fd() -> int:
    return memory.sealed(b"content")


def test_what_was_written_is_read(fd: int) -> None:
    view = memory.view(fd)
    os.close(fd)
    assert bytes(view) == b"content"
    assert view.readonly


def test_nobody_can_change_it(fd: int) -> None:
    view = memory.view(fd)
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    with pytest.raises(PermissionError):
        os.truncate(fd, 0)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 0)  # which would be writable
    assert bytes(view) == b"content"
    os.close(fd)


def test_what_may_be_half_written_is_not_mapped() -> None:
    fd = memory.new()
    os.write(fd, b"half")
    with pytest.raises(OSError, match="not sealed"):
        memory.view(fd)
    os.close(fd)


def test_nothing_is_a_view_too() -> None:
    fd = memory.sealed(b"")
    assert bytes(memory.view(fd)) == b""
    os.close(fd)


def test_a_list_needs_no_copy_of_it(tmp_path: Path) -> None:
    data = artifact(["a.example id=1", "http://b.example/page"])
    fd = memory.sealed(data)
    view = memory.view(fd)
    os.close(fd)
    loaded = load(view, Key(SECRET))
    assert {section.obj for section in loaded.artifact.sections} == {view.obj}
    assert blocks(Matcher([loaded]), "http://b.example/page")
    assert not [part for part in loaded.artifact.sections if not part.readonly]


class TestCopy:
    def test_bytes_and_their_checksum(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "_CHUNK", 1000)
        path = tmp_path / "list"
        path.write_bytes(os.urandom(3210))
        fd, content = memory.sealed_copy(path)
        assert content == checksum(path)
        assert bytes(memory.view(fd)) == path.read_bytes()
        path.write_bytes(b"")  # a mapping of the file itself would end us now
        assert len(memory.view(fd)) == 3210
        os.close(fd)

    @pytest.mark.parametrize("make", [lambda p: None, os.mkdir, os.mkfifo], ids=["missing", "folder", "pipe"])
    def test_not_a_file(self, tmp_path: Path, make: object) -> None:
        path = tmp_path / "list"
        make(path)  # type: ignore[operator]
        before = descriptors()
        with pytest.raises(SourceError, match=f"^{path}: "):
            memory.sealed_copy(path)
        assert descriptors() <= before

    def test_no_memory_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "list"
        path.write_bytes(b"x")

        def full(fd: int, data: bytes) -> int:
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(os, "write", full)
        before = descriptors()
        with pytest.raises(OSError, match="Cannot allocate"):
            memory.sealed_copy(path)
        assert descriptors() <= before


def test_a_whole_copy_is_of_one_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"a" * 3_000_000)
    read, changes = memory._read, [2]

    def read_slowly(path: Path, fd: int) -> bytes:
        chunk = read(path, fd)
        if chunk and changes[0] > 0:
            changes[0] -= 1
            path.write_bytes(chunk[:1].upper() * 3_000_000)  # in its place, under the reader's hands
            os.utime(path, ns=(changes[0], changes[0]))
        return chunk

    monkeypatch.setattr(memory, "_read", read_slowly)
    fd, content, signature = memory.whole_copy(path)
    assert len({*os.pread(fd, 3_000_000, 0)}) == 1
    os.close(fd)
    assert content == checksum(path)
    assert signature == Signature.of(path)
    changes[0] = 1_000_000
    with pytest.raises(memory.ChangingError, match=r"list: changed each time while it was read$"):
        memory.whole_copy(path)
    os.close(memory.whole_copy(path, as_is=True)[0])


def test_a_file_that_is_replaced_while_it_is_read_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"a" * 3_000_000)
    before, read = Signature.of(path), memory._read

    def read_slowly(path: Path, fd: int) -> bytes:
        (tmp_path / "other").write_bytes(b"other")
        (tmp_path / "other").replace(path)
        return read(path, fd)

    monkeypatch.setattr(memory, "_read", read_slowly)
    fd, _, signature = memory.whole_copy(path)
    assert os.pread(fd, 4_000_000, 0) == b"a" * 3_000_000
    assert signature == before
    os.close(fd)
