import gzip
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.feeds.body import BodyLimits, content
from urlward.feeds.source import FetchError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LINES = b"".join(b"%x.test\n" % number for number in random.Random(1).sample(range(1 << 40), 20_000))
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
SKIPPABLE = b"\x50\x2a\x4d\x18\4\0\0\0abcd"


def guard(max_bytes: int = 1 << 30, check: Callable[[], object] = lambda: None) -> BodyLimits:
    return BodyLimits("https://feed.test", max_bytes, check)


def pieces(data: bytes, size: int = 10_000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def unpacked(data: bytes, encoding: str = "", size: int = 10_000) -> bytes:
    return b"".join(content(pieces(data, size), encoding, guard()))


def reason(data: bytes, encoding: str = "", **more: int) -> str:
    with pytest.raises(FetchError) as caught:
        for _ in content(pieces(data), encoding, guard(**more)):
            pass
    assert str(caught.value).startswith("https://feed.test: ")
    return caught.value.reason


@each_row("data", [b"", b"a", b"a.test\n", LINES, b"PK.test\n", b"\x1f", b"(\xb5/"])
@each_row("size", [1, 3, 10_000])
def test_plain(data: bytes, size: int) -> None:
    assert unpacked(data[: 1000 * size], size=size) == data[: 1000 * size]
    assert unpacked(data[: 1000 * size], "identity", size) == data[: 1000 * size]


@pytest.mark.parametrize("kind", COMPRESS)
class TestCompressed:
    @pytest.mark.parametrize("size", [7, 10_000, 10_000_000])
    def test_file(self, kind: str, size: int) -> None:
        assert unpacked(COMPRESS[kind](LINES), size=size) == LINES

    @pytest.mark.parametrize("inner", COMPRESS)
    def test_encoded(self, kind: str, inner: str) -> None:
        assert unpacked(COMPRESS[kind](LINES), kind) == LINES
        assert unpacked(COMPRESS[kind](COMPRESS[inner](LINES)), kind.upper()) == LINES

    def test_two_layers_of_file_are_one_too_many(self, kind: str) -> None:
        once = COMPRESS[kind](LINES)
        assert unpacked(COMPRESS[kind](once)) == once

    def test_of_nothing(self, kind: str) -> None:
        assert unpacked(COMPRESS[kind](b"")) == b""
        assert unpacked(COMPRESS[kind](b""), kind) == b""

    def test_many_behind_each_other(self, kind: str) -> None:
        parts = [COMPRESS[kind](LINES[start : start + 5000]) for start in range(0, len(LINES), 5000)]
        parts.insert(3, COMPRESS[kind](b""))
        assert unpacked(b"".join(parts) + b"\0" * 600) == LINES

    @pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
    def test_cut(self, kind: str, share: float) -> None:
        whole = COMPRESS[kind](LINES)
        assert reason(whole[: max(5, int(share * len(whole)))]) == "truncated"
        assert reason(whole[:-1]) == "truncated"
        assert reason(whole[:-1], kind) == "truncated"
        assert reason(b"", kind) == "truncated"

    def test_damaged(self, kind: str) -> None:
        whole = bytearray(COMPRESS[kind](LINES))
        for at in (len(whole) // 2, len(whole) // 3):
            whole[at : at + 64] = bytes(64)
        assert reason(bytes(whole)) == "corrupt"

    def test_with_more_behind_it(self, kind: str) -> None:
        assert reason(COMPRESS[kind](LINES) + b"a.test\n") == "corrupt"

    def test_bomb(self, kind: str) -> None:
        bomb = COMPRESS[kind](bytes(40_000_000))
        assert reason(bomb) == "bomb"
        assert reason(bomb, kind) == "bomb"
        # The outer layer's own content is counted, and how little comes of it in the end is not.
        assert reason(COMPRESS["gzip"](bomb), "gzip") == "bomb"

    def test_small_may_be_uniform(self, kind: str) -> None:
        assert unpacked(COMPRESS[kind](bytes(9_000_000))) == bytes(9_000_000)

    def test_too_large(self, kind: str) -> None:
        whole = COMPRESS[kind](LINES)
        assert reason(whole, max_bytes=len(LINES) - 1) == "too-large"
        assert reason(whole, max_bytes=len(whole) - 1) == "too-large"

    @pytest.mark.ours
    def test_needs_little_memory(self, kind: str) -> None:
        whole = COMPRESS[kind](LINES * 15)
        tracemalloc.start()
        for _ in content(pieces(whole), "", guard()):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 2_000_000

    def test_without_content_ends_too(self, kind: str) -> None:
        """Members of nothing, without end: time is what bounds them."""
        asked = iter(range(1000))

        def check() -> None:
            if next(asked, None) is None:
                raise FetchError("time is up", "timeout")

        empty = COMPRESS[kind](b"")
        with pytest.raises(FetchError, match="time is up"):
            for _ in content(iter(lambda: empty, b""), "", guard(check=check)):
                pass


def test_zstd_with_what_is_skipped() -> None:
    assert unpacked(SKIPPABLE + zstd.compress(LINES)) == LINES
    assert unpacked(zstd.compress(LINES) + SKIPPABLE) == LINES


def test_zstd_of_a_large_window() -> None:
    options = {
        zstd.CompressionParameter.window_log: 28,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(LINES) + compressor.flush()
    assert reason(data) == "corrupt"


def test_gzip_with_a_wrong_checksum() -> None:
    whole = bytearray(gzip.compress(LINES))
    whole[-5] ^= 1
    assert reason(bytes(whole)) == "corrupt"


@each_row("encoding", ["br", "deflate", "compress", "gzip, gzip", "gzip, br", "731337", "gzip;q=1"])
def test_encoding_that_was_not_asked_for(encoding: str) -> None:
    assert reason(zlib.compress(LINES), encoding) == "unsupported"


@given(
    st.binary(max_size=300),
    st.sampled_from(["", "gzip", "zstd"]),
    st.sampled_from([b"", b"\x1f\x8b", b"PK\3\4"]),
)
def test_anything_is_text_or_an_error(data: bytes, encoding: str, magic: bytes) -> None:
    found = ""
    try:
        unpacked(magic + data, encoding)
    except FetchError as e:
        found = e.reason
    assert found in ("", "truncated", "corrupt", "unsupported")
