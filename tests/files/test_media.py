"""Formats by their bytes, and where video is cut."""

from contextlib import suppress
from unittest.mock import patch

import numpy as np
import pytest

from files.pictures import FRAGMENTED, picture, video, written
from rows import each_row
from urlward.files import media as media_module
from urlward.files.decode import frames
from urlward.files.media import HEAD, MediaFormat, Splitter, format_of, is_told


@each_row(
    ("name", "media"),
    [
        ("JPEG", MediaFormat.JPEG),
        ("PNG", MediaFormat.PNG),
        ("GIF", MediaFormat.GIF),
        ("WEBP", MediaFormat.WEBP),
    ],
)
def test_pictures_are_told_by_their_first_bytes(name: str, media: MediaFormat) -> None:
    assert format_of(written(picture(1), name)[:HEAD]) is media


@each_row(
    ("muxer", "codec", "media"),
    [
        ("mp4", "mpeg4", MediaFormat.MP4),
        ("webm", "libvpx", MediaFormat.WEBM),
        ("mpegts", "mpeg2video", MediaFormat.TS),
    ],
)
def test_video_is_told_by_its_first_bytes(muxer: str, codec: str, media: MediaFormat) -> None:
    assert format_of(video([picture(1, (64, 48))], muxer, codec)[:HEAD]) is media


@each_row("brand", [b"avif", b"heic", b"mif1", b"none"])
def test_a_video_is_one_whatever_brand_it_is_of(brand: bytes) -> None:
    """Players do not heed it."""
    data = video([picture(1)]).replace(b"isom", brand, 1)
    media = format_of(data[:HEAD])
    assert media is MediaFormat.MP4
    assert any(frames(data, media, []))


@each_row("size", [24, 1_000, 70_000])
@each_row("kind", [b"uuid", b"junk", b"pdin", b"\xa9xyz", b"2 of"])
def test_players_pass_over_a_box_in_front_of_a_video(kind: bytes, size: int) -> None:
    data = size.to_bytes(4) + kind + bytes(size - 8) + video([picture(1)], options=FRAGMENTED)
    media = format_of(data[:HEAD])
    assert media is MediaFormat.MP4
    splitter = Splitter(media)
    assert b"".join([*splitter.take(data), splitter.rest()]) == data
    assert b"moov" in splitter.boxes
    assert any(frames(data, media, []))


@each_row(
    "head",
    [
        b"\0asm\1\0\0\0",  # WebAssembly
        b"\0\1\0\0\0\x0f\0\x80",  # a font
        b"\0\0\1\0\1\0\x10\x10",  # an icon
        b"\0\0\1\xb3text",
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\0\0\0\x07text of no box",
        b"\0\0\0\0grpc text",
        b"\0<\0h\0t\0m\0l\0>",
        b"\tsome text that is indented",
        b"some text",
        b"\0\0\0\x20",
    ],
)
def test_what_begins_with_no_box_is_no_video(head: bytes) -> None:
    assert format_of(head) is None


@each_row(
    "head",
    [
        b"",
        b"\xff",
        b"<html>",
        b"RIFF\0\0\0\0WAVE",
        b"G" + bytes(300),
        b"BM" + bytes(60),
    ],
)
def test_what_is_not_decoded_is_told_too(head: bytes) -> None:
    assert format_of(head) is None


def test_what_follows_the_head_of_a_bitmap_tells_it() -> None:
    head = written(picture(1), "BMP")[:18]
    assert [is_told(head[:size]) for size in (12, 17, 18)] == [False, False, True]
    assert format_of(head) is MediaFormat.BMP


def _split(media: MediaFormat, data: bytes, sizes: list[int]) -> tuple[list[bytes], Splitter]:
    """The pieces into which data falls that comes in parts of these sizes, in turn."""
    splitter, pieces, at, turn = Splitter(media), [b""], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        first, *others = splitter.take(data[at : at + size])
        pieces[-1] += first
        pieces += others
        at, turn = at + size, turn + 1
    pieces[-1] += splitter.rest()
    return pieces, splitter


SHOWN = [picture(n, (64, 48)) for n in range(4)]
STREAMS = [
    ("mp4", "mpeg4", MediaFormat.MP4, FRAGMENTED),
    ("webm", "libvpx", MediaFormat.WEBM, {"cluster_time_limit": "1000"}),
    ("webm", "libvpx", MediaFormat.WEBM, {"live": "1"}),
    ("mpegts", "mpeg2video", MediaFormat.TS, {}),
    ("mpegts", "libx264", MediaFormat.TS, {}),
]


@each_row("sizes", [[1 << 20], [1], [7, 3, 5], [1_000]], ids=str)
@each_row(("muxer", "codec", "media", "options"), STREAMS)
def test_each_piece_of_a_stream_has_whole_frames_that_are_decoded_by_themselves(
    muxer: str, codec: str, media: MediaFormat, options: dict[str, str], sizes: list[int]
) -> None:
    data = video(SHOWN, muxer, codec, options=options)
    splitter, piece, at, seen, turn, ended = Splitter(media), b"", 0, 0, 0, 0
    went: list[bytes] = []

    def end() -> None:
        nonlocal piece, seen, ended
        ended += 1
        with suppress(Exception):
            seen += sum(1 for _ in frames(piece, media, []))
        piece = b""

    while at < len(data):
        size = sizes[turn % len(sizes)]
        first, *others = splitter.take(data[at : at + size])
        for n, part in enumerate([first, *others]):
            if n:
                end()
            went.append(part)
            if part and not piece and ended:
                piece = splitter.resumed(part)
            piece += part
        at, turn = at + size, turn + 1
    went.append(splitter.rest())
    piece += went[-1]
    end()
    assert b"".join(went) == data
    assert seen == len(SHOWN), "no key frame is cut in two"
    assert ended > len(SHOWN) or sizes == [1 << 20]


@each_row("sizes", [[1 << 20], [1], [7, 3, 5], [4096]])
def test_fragmented_mp4_is_cut_behind_each_fragment(sizes: list[int]) -> None:
    data = video(SHOWN, options=FRAGMENTED)
    pieces, splitter = _split(MediaFormat.MP4, data, sizes)
    assert b"".join(pieces) == data
    assert len(pieces) == 1 + data.count(b"moof") == 5
    assert all(piece[4:8] == b"moof" for piece in pieces[1:4])
    assert {b"ftyp", b"moov", b"moof", b"mdat"} <= splitter.boxes
    assert not splitter.shows, "what is behind the last one has no frame"
    assert splitter.resumed(b"") == data[: data.index(b"moof") - 4]


@each_row("sizes", [[1 << 20], [1], [7, 3, 5]])
def test_webm_that_is_none_is_cut_at_each_cluster(sizes: list[int]) -> None:
    cluster = b"\x1f\x43\xb6\x75"
    data = b"\x1a\x45\xdf\xa3\0begins" + bytes(30)
    data += cluster + b"\0one\x1f\x43" + bytes(30) + cluster + b"two\x1f\x43\xb6" + cluster + b"three"
    pieces, _ = _split(MediaFormat.WEBM, data, sizes)
    assert b"".join(pieces) == data
    assert pieces[-1] == cluster + b"three"
    assert len(pieces) == 3


def test_a_transport_stream_is_cut_where_a_frame_begins_and_has_its_tables() -> None:
    data = video(SHOWN, "mpegts", "mpeg2video")
    pieces, splitter = _split(MediaFormat.TS, data, [1 << 20])
    assert len(pieces) == 2, "at the last one of what comes at once"
    tables = splitter.resumed(b"")
    assert len(tables) == 2 * 188
    assert tables[1:3] == b"\x40\0"
    # One in which no frame begins, and one that nobody finds the packets of.
    for packet in (b"\x47\x1f\xff\x10" + bytes(184), b"\x47\x1f\xff\x10" + bytes(185)):
        pieces, _ = _split(MediaFormat.TS, packet * 25_000, [100_000])
        assert len(pieces) > 1
        assert b"".join(pieces) == packet * 25_000


@each_row(
    "data",
    [
        b"\0\0\0\x08free" + b"\0\0\0\0mdat" + b"\0\0\0\x10moof" + bytes(8),  # one that goes on to the end
        b"\0\0\0\x04free" + b"\0\0\0\x10moof" + bytes(8),  # shorter than its own head
        b"\0\0\0\x01free" + bytes(8) + b"\0\0\0\x10moof" + bytes(8),
        b"\0\0\0\x01mdat" + (1 << 62).to_bytes(8) + b"\0\0\0\x10moof" + bytes(8),
    ],
)
def test_boxes_that_lie_of_their_size_end_the_cutting_and_lose_nothing(data: bytes) -> None:
    for sizes in ([1], [1 << 10], [3, 8]):
        assert _split(MediaFormat.MP4, data, sizes)[0] == [data]


@pytest.mark.parametrize(
    ("media", "unit"), [(MediaFormat.WEBM, b"\x1f\x43\xb6\x75"), (MediaFormat.MP4, b"\0\0\0\x08moof")]
)
def test_what_could_be_cut_without_end_is_a_few_pieces(media: MediaFormat, unit: bytes) -> None:
    data = unit * 5_000
    splitter = Splitter(media)
    parts = splitter.take(data)
    assert len(parts) <= 17
    assert b"".join(parts) + splitter.rest() == data


def test_boxes_without_end_take_no_memory() -> None:
    splitter = Splitter(MediaFormat.MP4)
    for number in range(1_000):
        splitter.take(b"\0\0\0\x08" + number.to_bytes(4))
    assert not splitter.boxes


def test_more_boxes_than_a_video_has_are_one_piece() -> None:
    splitter = Splitter(MediaFormat.MP4)
    assert splitter.take(b"\0\0\0\x08free" * 5_000 + b"\0\0\0\x08moof")[1:] == []
    assert not splitter.boxes - {b"free"}


@each_row("unit", [b"\x1f\x43\xb6\x75\x80", b"\x18\x53\x80\x67\xff", b"\xec\x80"])
def test_more_elements_than_a_video_has_are_not_looked_at(unit: bytes) -> None:
    with patch.object(media_module, "_element", wraps=media_module._element) as looked:
        Splitter(MediaFormat.WEBM).take(b"\x1a\x45\xdf\xa3\x80" + unit * 5_000)
    assert looked.call_count < 500


def test_any_bytes_are_split_without_loss() -> None:
    rng = np.random.default_rng(7)
    for media in (MediaFormat.MP4, MediaFormat.WEBM, MediaFormat.TS):
        for _ in range(50):
            data = rng.integers(0, 256, 500, dtype=np.uint8).tobytes()
            assert b"".join(_split(media, data, [int(rng.integers(1, 60))])[0]) == data
