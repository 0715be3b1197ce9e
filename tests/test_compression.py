import gzip
import sys
import zlib
from random import Random

import brotli
import pytest

from rows import each_row
from urlward.compression import (
    CONTENT_CODINGS,
    DAMAGED,
    Decoder,
    decoder_for,
    gzip_decoder,
    zstd_decoder,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CONTENT = b"a.test\n" * 10_000
MEMBERS = {"gzip": gzip.compress(CONTENT), "zstd": zstd.compress(CONTENT)}
NEW = {"gzip": gzip_decoder, "zstd": zstd_decoder}
BLOCK = 1 << 15
"""Bytes of a block that Brotli makes whole."""
RAW = zlib.compressobj(wbits=-15)
CODED = {
    **MEMBERS,
    "x-gzip": MEMBERS["gzip"],
    "deflate": zlib.compress(CONTENT),
    "br": brotli.compress(CONTENT),
    "dcb": brotli.compress(CONTENT),
}


def all_of(decoder: Decoder, data: bytes, size: int, more: int = 0) -> bytes:
    found = [decoder.decompress(data, size)]
    while not decoder.eof and not decoder.needs_input:
        found.append(decoder.decompress(b"", size))
    assert all(len(piece) <= size + more for piece in found)
    return b"".join(found)


@each_row("kind", MEMBERS)
@each_row("size", [1000, 1 << 20])
def test_one_and_what_is_behind_it(kind: str, size: int) -> None:
    decoder = NEW[kind]()
    assert all_of(decoder, MEMBERS[kind] + b"more", size) == CONTENT
    assert decoder.eof
    assert decoder.unused_data == b"more"


@pytest.mark.parametrize("kind", MEMBERS)
def test_a_part_wants_more(kind: str) -> None:
    decoder = NEW[kind]()
    assert CONTENT.startswith(all_of(decoder, MEMBERS[kind][:-3], 1000))
    assert decoder.needs_input
    assert not decoder.eof


@pytest.mark.parametrize("kind", MEMBERS)
def test_damaged(kind: str) -> None:
    with pytest.raises(DAMAGED):
        NEW[kind]().decompress(b"no such magic", 1000)


@each_row(
    ("head", "new"),
    [
        (MEMBERS["gzip"], gzip_decoder),
        (MEMBERS["zstd"], zstd_decoder),
        (b"\x50\x2a\x4d\x18", zstd_decoder),
        (b"\x5f\x2a\x4d\x18", zstd_decoder),
        (b"\x60\x2a\x4d\x18", None),
        (b"\x1f", None),
        (b"", None),
        (b"a.test\n", None),
    ],
)
def test_what_needs_which(head: bytes, new: object) -> None:
    assert decoder_for(head) is new


@each_row("coding", CONTENT_CODINGS)
@each_row("size", [1, 1000])
def test_content_codings(coding: str, size: int) -> None:
    """Byte by byte as in one piece, and never more at a time than is asked for."""
    decoder = CONTENT_CODINGS[coding].new()
    data, found = CODED[coding], b""
    for at in range(0, len(data), size):
        assert not decoder.eof
        found += all_of(decoder, data[at : at + size], 999, more=BLOCK if coding in ("br", "dcb") else 0)
    assert found == CONTENT
    assert decoder.eof


@pytest.mark.parametrize("size", [1, 1000])
def test_deflate_without_the_format_around_it(size: int) -> None:
    packed = RAW.copy()
    data, decoder = packed.compress(CONTENT) + packed.flush(), CONTENT_CODINGS["deflate"].new()
    pieces = [all_of(decoder, data[at : at + size], 1 << 20) for at in range(0, len(data), size)]
    assert b"".join(pieces) == CONTENT


@each_row("coding", CONTENT_CODINGS)
def test_a_damaged_content_coding(coding: str) -> None:
    decoder = CONTENT_CODINGS[coding].new()
    if coding != "zstd":
        assert decoder.decompress(b"\xff" * 640, 1 << 16) == b""
        assert not decoder.needs_input
    with pytest.raises(DAMAGED):
        decoder.decompress(b"\xff" * 640, 1 << 16)


NOISE = Random(1).randbytes(50_000)


@each_row("coding", ["gzip", "deflate", "br"])
@each_row("content", [CONTENT, NOISE], ids=["text", "noise"])
@each_row("size", [1 << 10, 1 << 20])
@each_row("more", [b"\xff" * 9, b";", b""])
def test_what_comes_before_a_fault_is_given(coding: str, content: bytes, size: int, more: bytes) -> None:
    """A wrong checksum, or what is behind the end, is none to Chromium."""
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[coding]
    data = pack(content)
    checksum = {"gzip": 8, "deflate": 4, "br": 0}[coding]
    decoder, data, found = CONTENT_CODINGS[coding].new(), data[: len(data) - checksum] + more, b""
    for at in range(0, len(data), size):
        found += decoder.decompress(data[at : at + size], 1 << 17)
    assert found == content
    if not more:
        assert decoder.eof is (coding == "br")
    elif coding == "br":
        assert decoder.eof
        assert more.endswith(decoder.unused_data)
    elif len(more) >= checksum:
        with pytest.raises(DAMAGED):
            decoder.decompress(b"", 1 << 17)


@each_row("size", [1, 7, 1 << 20])
def test_a_head_of_gzip_is_read_as_by_browsers(size: int) -> None:
    """A checksum of it that is wrong, or flags that there are none of, are nothing to Chromium."""
    plain = gzip.compress(CONTENT)
    for flags in (*range(32), 0xE2):
        extra = [b"\3\0abc", b"\0\0"][size % 2] * bool(flags & 4)
        more = extra + b"name\0" * bool(flags & 8) + b"\0" * bool(flags & 16) + b"\0?" * bool(flags & 2)
        data = plain[:3] + bytes([flags]) + plain[4:10] + more + plain[10:] + b"next"
        decoder, found = CONTENT_CODINGS["gzip"].new(), b""
        for at in range(0, len(data), size):
            if not decoder.eof:
                found += decoder.decompress(data[at : at + size], 1 << 17)
        assert (found, decoder.eof) == (CONTENT, True), flags
        assert b"next".startswith(decoder.unused_data), flags


@each_row("coding", ["gzip", "deflate", "br"])
def test_what_comes_before_a_fault_in_the_midst_is_given(coding: str) -> None:
    data = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[coding](CONTENT + NOISE)
    decoder, found = CONTENT_CODINGS[coding].new(), b""
    data = data[:-20_000] + b"\xff" * 20_000
    whole = CONTENT_CODINGS[coding].new().decompress(data[:-20_000], 1 << 20)
    for at in range(0, len(data), 5_000):
        try:
            found += decoder.decompress(data[at : at + 5_000], 1 << 17)
        except DAMAGED:
            break
    else:
        pytest.fail("it is damaged")
    assert found.startswith(whole)


def test_a_content_coding_with_a_window_that_no_browser_takes() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    large = packer.compress(CONTENT) + packer.flush()
    assert all_of(zstd_decoder(), large, 1 << 20) == CONTENT
    with pytest.raises(DAMAGED):
        CONTENT_CODINGS["zstd"].new().decompress(large, 1 << 20)
