import gzip
import os
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.replay import run
from urlward.replay.run import BLOCK, HEAD, LineBlock, LogSource, blocks

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LINES = b"".join(b"line %d of a log\n" % n for n in range(60_000))

type Compress = Callable[[bytes], bytes]


def checked(data: bytes) -> bytes:
    """As the program `zstd` writes it."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


def source(folder: Path, data: bytes) -> LogSource:
    path = folder / "log"
    path.write_bytes(data)
    return LogSource(path)


def all_of(one: LogSource) -> bytes:
    return b"".join(iter(one.read, b""))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of 64 bytes."""
    monkeypatch.setattr(run, "BLOCK", 64)
    return 64


class TestSource:
    @each_row("compress", [bytes, gzip.compress, zstd.compress])
    def test_is_what_was_written(self, tmp_path: Path, compress: Compress) -> None:
        with source(tmp_path, compress(LINES)) as log:
            assert log.head == LINES[:HEAD]
            assert all_of(log) == LINES
            assert (log.trouble, log.consumed) == ("", log.size)
            assert log.reopens

    @pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
    def test_parts_follow_each_other(self, tmp_path: Path, compress: Compress) -> None:
        data = compress(LINES[:100_000]) + compress(b"") + compress(LINES[100_000:])
        with source(tmp_path, data) as log:
            assert all_of(log) == LINES
            assert log.trouble == ""

    def test_filled_up_with_zeros(self, tmp_path: Path) -> None:
        with source(tmp_path, gzip.compress(LINES) + bytes(512)) as log:
            assert all_of(log) == LINES
            assert log.trouble == ""

    def test_a_frame_to_skip_comes_first(self, tmp_path: Path) -> None:
        with source(tmp_path, b"\x50\x2a\x4d\x18\4\0\0\0abcd" + zstd.compress(LINES)) as log:
            assert all_of(log) == LINES

    @pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
    def test_cut_short(self, tmp_path: Path, compress: Compress) -> None:
        noise = random.Random(1).randbytes(400_000).hex().encode()
        data = compress(noise)
        with source(tmp_path, data[: len(data) // 2]) as log:
            read = all_of(log)
            assert log.trouble == "cut short"
        assert len(read) > 200_000
        assert noise.startswith(read)

    @pytest.mark.parametrize("compress", [gzip.compress, checked])
    def test_damaged(self, tmp_path: Path, compress: Compress) -> None:
        noise = random.Random(1).randbytes(400_000).hex().encode()
        data = bytearray(compress(noise))
        data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64
        with source(tmp_path, bytes(data)) as log:
            all_of(log)
            assert log.trouble == "damaged"
            assert log.read() == b""

    def test_something_else_behind(self, tmp_path: Path) -> None:
        with source(tmp_path, gzip.compress(LINES) + b"something else") as log:
            assert all_of(log) == LINES
            assert log.trouble == "damaged"

    def test_what_unpacks_to_very_much_comes_in_pieces(self, tmp_path: Path) -> None:
        with source(tmp_path, gzip.compress(bytes(50 << 20))) as log:
            sizes = [len(piece) for piece in iter(log.read, b"")]
        assert sum(sizes) == 50 << 20
        assert max(sizes) <= BLOCK

    @each_row(
        ("data", "program"),
        [
            (b"BZh91AY&SY", "bzcat"),
            (b"\xfd7zXZ\0", "xzcat"),
            (b"PK\3\4....", "unzip -p"),
            (b"\x04\x22\x4d\x18..", "lz4cat"),
        ],
    )
    def test_compressed_otherwise(self, tmp_path: Path, data: bytes, program: str) -> None:
        with pytest.raises(UrlwardError, match=f"log: neither text nor gzip nor zstd; try: {program} FILE"):
            source(tmp_path, data)

    def test_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UrlwardError, match="missing: No such file or directory"):
            LogSource(tmp_path / "missing")
        with pytest.raises(UrlwardError, match="Is a directory"):
            LogSource(tmp_path)

    def test_a_pipe_cannot_be_opened_again(self, tmp_path: Path) -> None:
        reading, writing = os.pipe()
        os.write(writing, zlib.compress(b"a\n", wbits=31))
        os.close(writing)
        with LogSource(Path(f"/dev/fd/{reading}")) as log:
            assert (log.reopens, log.size) == (False, 0)
            assert log.head == b"a\n"
            assert all_of(log) == b"a\n"
        os.close(reading)


class TestBlocks:
    def test_are_whole_lines_in_order(self, tmp_path: Path) -> None:
        with source(tmp_path, LINES) as log:
            found = list(blocks(log))
        assert b"".join(block.data for block in found) == LINES
        assert len(found) > 3
        first = 1
        for block in found:
            assert block.first == first
            assert block.lines == block.data.count(b"\n")
            assert block.data.endswith(b"\n")
            assert len(block.data) <= BLOCK
            first += block.lines

    def test_a_last_line_without_its_end(self, tmp_path: Path) -> None:
        with source(tmp_path, b"a\nb") as log:
            assert list(blocks(log)) == [LineBlock(1, 2, b"a\nb")]
        with source(tmp_path, b"") as log:
            assert list(blocks(log)) == []

    def test_lines_too_long_are_lost_alone(self, tmp_path: Path, small: int) -> None:
        with source(tmp_path, b"a\n" + b"x" * 200 + b"\nb\n" + b"y" * 300) as log:
            found = list(blocks(log))
        assert b"".join(block.data for block in found) == b"a\nb\n"
        assert [(block.first, block.lost) for block in found if block.lost] == [
            (2, "longer than 64 bytes"),
            (4, "longer than 64 bytes"),
        ]
        assert [(block.first, block.lines) for block in found if block.data] == [(1, 1), (3, 1)]

    def test_of_a_log_cut_short_half_a_line_is_none(self, tmp_path: Path) -> None:
        lines = b"".join(b"http://a.test/%d\n" % n for n in random.Random(1).choices(range(10**9), k=9000))
        data = gzip.compress(lines)
        with source(tmp_path, data[: len(data) * 2 // 3]) as log:
            *found, last = blocks(log)
        read = b"".join(block.data for block in found)
        assert read
        assert read.endswith(b"\n")
        assert lines.startswith(read)
        assert last == LineBlock(read.count(b"\n") + 1, 1, b"", "cut short")

    def test_are_not_cut_between_quotes(self, tmp_path: Path, small: int) -> None:
        row = b'1,"note\nover lines",x\n'
        with source(tmp_path, row * 10) as log:
            found = list(blocks(log, quotes=True))
        assert b"".join(block.data for block in found) == row * 10
        assert all(block.data.startswith(b"1,") for block in found)
        assert len(found) > 3

    def test_a_quote_without_end_does_not_stop_them(self, tmp_path: Path, small: int) -> None:
        text = b'1,"no end\n' + b"2,x\n" * 100
        with source(tmp_path, text) as log:
            found = list(blocks(log, quotes=True))
        assert b"".join(block.data for block in found) == text
        assert all(len(block.data) <= small for block in found)
