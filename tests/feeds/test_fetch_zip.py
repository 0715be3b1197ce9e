import io
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.fetch_support import memory_descriptors
from rows import each_row
from urlward.feeds.body import BodyLimits, content, unzipped
from urlward.feeds.source import FetchError

LINES = b"".join(b"host-%d.test\n" % number for number in range(5000))


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in members:
            made.writestr(name, data)
        made.comment = comment
    return file.getvalue()


def content_of(data: bytes) -> bytes:
    guard = BodyLimits("https://feed.test", 1 << 30, lambda: None)
    return b"".join(unzipped(iter([data[:7], b"", data[7:]]), guard))


def reason(data: bytes) -> str:
    before = memory_descriptors()
    with pytest.raises(FetchError) as caught:
        content_of(data)
    assert "secret" not in str(caught.value)
    assert memory_descriptors() <= before
    return caught.value.reason


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_one_file(method: int) -> None:
    assert content_of(archive(("list.txt", LINES), method=method)) == LINES
    assert (
        content_of(archive(("a/", b""), ("a/list.txt", LINES), method=method, comment=b"x" * 60_000)) == LINES
    )
    assert content_of(archive(("../../etc/passwd", LINES), method=method)) == LINES


def test_written_as_a_stream() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("list.txt", LINES)
    assert content_of(pipe.data) == LINES


def test_within_a_body() -> None:
    made = BodyLimits("https://feed.test", 1 << 30, lambda: None)
    data = archive(("list.txt", LINES))
    assert b"".join(content(iter([data[:3], data[3:]]), "", made)) == LINES


@each_row("names", [(), ("a/",), ("secret-1", "secret-2")])
def test_not_one_file(names: tuple[str, ...]) -> None:
    assert reason(archive(*((name, b"" if name.endswith("/") else LINES) for name in names))) == "unsupported"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_of_another_method(method: int) -> None:
    assert reason(archive(("secret", LINES), method=method)) == "unsupported"


def test_encrypted() -> None:
    data = bytearray(archive(("secret", LINES)))
    data[data.index(b"PK\1\2") + 8] |= 1
    assert reason(bytes(data)) == "unsupported"


@each_row("share", [0.0, 0.5, 0.99])
def test_cut(share: float) -> None:
    data = archive(("secret", LINES))
    assert reason(data[: max(4, int(share * len(data)))]) == "truncated"


def test_damaged() -> None:
    data = archive(("secret", LINES))
    for at in (100, len(data) // 2):
        assert reason(data[:at] + bytes(32) + data[at + 32 :]) == "corrupt"


def test_content_shorter_than_said() -> None:
    data = archive(("secret", LINES), method=zipfile.ZIP_STORED)
    directory = data.index(b"PK\1\2")
    wrong = bytearray(data)
    struct.pack_into("<L", wrong, directory + 16, 0)  # the checksum
    assert reason(bytes(wrong)) == "corrupt"


def test_directory_of_very_many() -> None:
    """Each entry costs some hundred bytes of memory, for 46 in the archive."""
    assert reason(archive(*((f"{number:060}", b"") for number in range(10_000)))) == "corrupt"


@given(st.data())
def test_anything_is_content_or_an_error(data: st.DataObject) -> None:
    whole = bytearray(archive(("secret", b"a.test\n" * 20)))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FetchError):
        content_of(bytes(whole))


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    content_of(archive(("list.txt", LINES)))
    assert not list(tmp_path.iterdir())
