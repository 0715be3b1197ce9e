import gzip

import pytest

from urlward.feeds.body import DAMAGED, Decoder, decoder_for, gzip_decoder, zstd, zstd_decoder

CONTENT = b"a.test\n" * 10_000
MEMBERS = {"gzip": gzip.compress(CONTENT), "zstd": zstd.compress(CONTENT)}
NEW = {"gzip": gzip_decoder, "zstd": zstd_decoder}


def all_of(decoder: Decoder, data: bytes, size: int) -> bytes:
    found = [decoder.decompress(data, size)]
    while not decoder.eof and not decoder.needs_input:
        found.append(decoder.decompress(b"", size))
    assert all(len(piece) <= size for piece in found)
    return b"".join(found)


@pytest.mark.parametrize("kind", MEMBERS)
@pytest.mark.parametrize("size", [1000, 1 << 20])
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


@pytest.mark.parametrize(
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
