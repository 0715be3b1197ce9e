"""The sandbox, and the confinement of what decodes in it: real processes, real decoders."""

import base64
import io
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, features

from conftest import wait_for
from files.pictures import FRAGMENTED, picture, tracks, video, written
from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.files.confine import ALLOWED, NOT_EXECUTABLE, filter_of
from urlward.files.media import HEAD, MediaFormat, format_of
from urlward.files.pdq import CONFIDENT, QUALITY, digests_of
from urlward.files.sandbox import MEMORY, Sandbox
from urlward.files.seen import DIGEST, DONE, FAILED, FAULT, LATE, MOST_FRAMES, PDQ, SCORE, FrameSeen, seen_in
from urlward.lists import memfd
from urlward.process import module_command

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


class Box:
    """A sandbox."""

    def __init__(self, channel: socket.socket, said: dict[str, object], process: int) -> None:
        self.channel = channel
        self.said = said
        self.process = process

    def look(
        self, media: MediaFormat, data: bytes, beginnings: Sequence[bytes] = ()
    ) -> tuple[str, list[FrameSeen]]:
        fds = []
        for each in (data, *beginnings):
            fds.append(memfd.new())
            memfd.write(fds[-1], each)
        socket.send_fds(self.channel, [json.dumps({"format": media}).encode()], fds)
        for fd in fds:
            os.close(fd)
        how, _, records = self.channel.recv(1 << 20).partition(b"\n")
        return how.decode(), list(seen_in(records))


@contextmanager
def box(
    classifier: str = "",
    *,
    deadline: float = 20.0,
    memory: int = 768 << 20,
    folder: Path | None = None,
    strictly: bool = True,
    prefix: Sequence[str] = (),
) -> Iterator[Box]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(folder or "")]))
    with theirs:
        process = subprocess.Popen(
            [*prefix, *module_command("urlward.files.sandbox")],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
        asked = {
            "parent": os.getpid(),
            "channel": theirs.fileno(),
            "deadline": deadline,
            "memory": memory,
            "video": True,
            "classifier": classifier,
            "strictly": strictly,
        }
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(json.dumps(asked).encode())
    try:
        with ours:
            yield Box(ours, json.loads(ours.recv(1 << 16)), process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Box]:
    with box() as made:
        assert made.said == {"ready": True}
        yield made


@pytest.fixture(scope="module")
def hasty() -> Iterator[Box]:
    """One in which what takes long is soon over."""
    with box(deadline=5.0) as made:
        yield made


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one[:DIGEST]) ^ int.from_bytes(other[:DIGEST])).bit_count()


def digest(image: Image.Image) -> bytes:
    found, quality = digests_of(np.asarray(image))
    assert quality >= QUALITY
    return found


@each_row("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_picture_is_decoded_and_hashed(sandbox: Box, name: str) -> None:
    image = picture(3)
    data = written(image, name)
    media = format_of(data[:HEAD])
    assert media is MediaFormat(name.lower())
    how, [seen] = sandbox.look(media, data)
    assert (how, seen.kind, seen.at) == (DONE, PDQ, 0)
    assert distance(seen.digests, digest(image)) <= CONFIDENT


def test_a_picture_that_is_turned_has_the_digest_of_what_it_was(sandbox: Box) -> None:
    image = picture(3)
    _, [seen] = sandbox.look(MediaFormat.PNG, written(image.transpose(Image.Transpose.ROTATE_90), "PNG"))
    turns = [seen.digests[at : at + DIGEST] for at in range(0, len(seen.digests), DIGEST)]
    assert distance(turns[0], digest(image)) > 60
    assert min(distance(each, digest(image)) for each in turns) <= 31


@each_row("mode", ["L", "LA", "P", "RGBA", "I;16", "1", "CMYK"])
def test_pictures_of_all_modes_are_looked_at(sandbox: Box, mode: str) -> None:
    image = picture(3)
    if mode == "I;16":
        changed = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8)
    else:
        changed = image.convert(mode)
    name = "JPEG" if mode == "CMYK" else "PNG"
    how, [seen] = sandbox.look(MediaFormat(name.lower()), written(changed, name))
    assert how == DONE
    assert distance(seen.digests, digest(image)) <= 40


def as_cameras_have_it() -> Image.Exif:
    """Fields of a picture: how it lies, where it was made, and a comment."""
    fields = Image.Exif()
    fields[ExifTags.Base.Orientation] = 6
    fields[ExifTags.Base.XResolution] = 72.0
    fields[ExifTags.Base.ResolutionUnit] = 2
    fields[ExifTags.Base.UserComment] = b"UNICODE\0" + "made".encode("utf-16")
    fields.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return fields


def without_jfif(data: bytes) -> bytes:
    """A JPEG file as cameras write it, whose resolution its fields alone say."""
    at = data.index(b"\xff\xe0")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def in_front(image: Image.Image, part: bytes, name: str = "JPEG") -> bytes:
    """A file with another part behind its first one."""
    data = written(image, name)
    at = 33 if name == "PNG" else 20
    return data[:at] + part + data[at:]


ARITHMETIC = base64.b64decode(
    b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACAWGBwYFCAcGhwkIiAmMFA0MCwsMGJGSjpQdGZ6eHJmcG6AkLicgIiuim5woNqirr7E"
    b"ztDOfJri8uDI8LjKzsb/yQALCAAwAEABAREA/8wABgAQEAX/2gAIAQEAAD8A0K8rBw66b3Cz8x8vRkZLjs3foAUaRby4o3yoTFNv"
    b"lqtbpy8vrJxHRjiKcW/F7LBDNDcODWjmiFtJBkWdH19OE++kEnXadkLVgOh9bq1aOOVV+gF351S0hcEhPz70ktvw4wREmVRLER+O"
    b"/XjLfrdum5DCzCHsARKpFNxcV2YKdnwMZrrrG0iHA1VIuu76EmjVcJorxD7ob3m9XGxVDDWdMasGD0wtEGF0N/8AsvXK+qE8Jvmb"
    b"iUby6gExQZD7qAJIpAhiVaakJs3m/qPKrH8J3b3po/8ATIK52dzSwkYwuWAD1ogTctNaxiViJIy8GVf4D2os23jHa+sCraEyPXTt"
    b"MED/2Q=="
)
"""`picture` 3 in JPEG, small, gray and in arithmetic coding, as ``cjpeg -arithmetic`` writes it."""


def _long_arithmetic(_: Image.Image) -> bytes:
    """One that is longer than what a decoder is given at a time by itself."""
    table = b"\xff\xdb\0\x43\0" + bytes([16] * 64)
    tables = ((1 << 16) - len(ARITHMETIC)) // len(table) + 1
    return ARITHMETIC[:2] + table * tables + ARITHMETIC[2:]


FIELDS: Mapping[str, Callable[[Image.Image], bytes]] = {
    "exif": lambda image: without_jfif(written(image, exif=as_cameras_have_it())),
    "exif-cut-short": lambda image: without_jfif(written(image, exif=as_cameras_have_it().tobytes()[:30])),
    "exif-of-nothing": lambda image: written(image, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "mpo": lambda image: written(image, "MPO", save_all=True, append_images=[picture(4)]),
    "mpo-of-nothing": lambda image: written(image, extra=b"\xff\xe2\0\x10MPF\0II*\0\xff\xff\xff\xff\0\0"),
    "icc": lambda image: written(image, icc_profile=b"icc" * 99),
    "xmp": lambda image: written(image, xmp=b"<x/>", comment=b"made", dpi=(72, 72)),
    "photoshop": lambda image: written(image, extra=b"\xff\xed\0\x1aPhotoshop 3.0\0008BIM\x03\xed\0\0\0\0"),
    "progressive": lambda image: written(image, progressive=True, exif=as_cameras_have_it()),
    "cmyk": lambda image: written(image.convert("CMYK"), exif=as_cameras_have_it()),
    "arithmetic": _long_arithmetic,
    "png": lambda image: written(
        image, "PNG", exif=as_cameras_have_it(), icc_profile=b"icc" * 99, dpi=(72, 72)
    ),
    "webp": lambda image: written(
        image, "WEBP", exif=as_cameras_have_it().tobytes(), icc_profile=b"icc" * 99, xmp=b"<x/>"
    ),
    "gif": lambda image: written(image, "GIF", comment=b"made" * 200),
    "jpeg-jfif-cut-short": lambda image: in_front(image, b"\xff\xe0\0\x06JFIF"),
    "jpeg-adobe-cut-short": lambda image: in_front(image, b"\xff\xee\0\x08Adobe\0"),
    "jpeg-profile-cut-short": lambda image: in_front(image, b"\xff\xe2\0\x0eICC_PROFILE\0"),
    "jpeg-no-segment": lambda image: in_front(image, b"of no kind\xff\x01\xff\0\xff\xff\xff\xd0"),
    "jpeg-fields-again": lambda image: in_front(image, b"\xff\xe1\xea\x60" + bytes(59_998)) * 2,
    "jpeg-long-filling": lambda image: in_front(image, b"\xff" * 1_000_000 + b"\0"),
    "jpeg-no-size": lambda image: in_front(
        image, b"\xff\xfe\0\0\xff\xef\0\1\xff\xe1\0\x1aExif\0\0II*\0" + bytes(14)
    ),
    "png-profile-of-nothing": lambda image: in_front(image, chunk(b"iCCP", b""), "PNG"),
    "png-profile-of-another-kind": lambda image: in_front(image, chunk(b"iCCP", b"a\0\5x"), "PNG"),
    "png-text-of-another-kind": lambda image: in_front(image, chunk(b"zTXt", b"a\0\5x"), "PNG"),
    "png-long-texts": lambda image: in_front(
        image,
        b"".join(chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(1_000_000))) for n in range(70)),
        "PNG",
    ),
}


def assert_is_seen(sandbox: Box, data: bytes) -> None:
    """`picture` 3 is found in a file."""
    media = format_of(data)
    assert media is not None
    how, [seen] = sandbox.look(media, data)
    assert how == DONE
    assert distance(seen.digests, digest(picture(3))) <= CONFIDENT


@each_row("what", FIELDS)
def test_a_picture_is_looked_at_whatever_else_its_file_says(sandbox: Box, what: str) -> None:
    """What a library reads of it is not wrong to it, and needs no module that it would have to open a file
    for."""
    assert_is_seen(sandbox, FIELDS[what](picture(3)))


def wrong_at_its_end(image: Image.Image, **options: object) -> bytes:
    """A WebP file in which a few bits are wrong, so that its pixels seem to end before the last one."""
    data = bytearray(written(image, "WEBP", **options))
    for at in range(len(data) - 100, len(data) - 2_000, -1):
        changed = data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :]
        try:
            Image.open(io.BytesIO(changed)).load()
        except OSError:
            return bytes(changed)
    raise AssertionError("it is decoded whatever is wrong")


DAMAGED: Mapping[str, Callable[[Image.Image], bytes]] = {
    "png-behind-its-pixels": lambda image: written(image, "PNG")[:-12] + b"\x7f\xff\xff\xffjunk",
    "png-with-frames-of-nothing": lambda image: (
        written(image, "PNG")[:-12] + chunk(b"fdAT", b"\0\0\0\1xx") + chunk(b"IEND", b"")
    ),
    "png-without-its-end": lambda image: written(image, "PNG")[:-12],
    "png-frame-out-of-turn": lambda image: in_front(image, chunk(b"fcTL", b"\0\0\0\5" + bytes(22)), "PNG"),
    "png-frame-too-large": lambda image: in_front(
        image,
        chunk(b"acTL", b"\0\0\0\1\0\0\0\0") + chunk(b"fcTL", bytes(4) + b"\xff" * 8 + bytes(14)),
        "PNG",
    ),
    "png-without-its-frames": lambda image: in_front(image, chunk(b"acTL", b"\0\0\0\x40" * 2), "PNG"),
    "webp": wrong_at_its_end,
    "webp-with-fields": lambda image: wrong_at_its_end(image, icc_profile=b"icc" * 99),
    "jpeg-without-its-end": lambda image: written(image)[:-2],
    "gif-without-its-end": lambda image: written(image, "GIF")[:-2],
    **{
        f"gif-and-{part.hex()}": lambda image, part=part: written(image, "GIF")[:-1] + part  # type: ignore[misc]
        for part in (b"!", b"!\xf9\1", b"!\xf9\4\0\0", b"!\xf9\1\1\0;", b",", b",\0\0", b"," + bytes(9))
    },
}


@each_row("what", DAMAGED)
def test_a_picture_is_looked_at_where_browsers_show_it_though_something_is_wrong(
    sandbox: Box, what: str
) -> None:
    assert_is_seen(sandbox, DAMAGED[what](picture(3)))


@each_row("part", [b"!", b",\0\0", b"," + bytes(9)])
def test_of_an_animation_all_pictures_are_looked_at_before_what_is_wrong(sandbox: Box, part: bytes) -> None:
    shown = [picture(n, (160, 120)) for n in range(4)]
    data = written(shown[0], "GIF", save_all=True, append_images=shown[1:])
    _, seen = sandbox.look(MediaFormat.GIF, data[:-1] + part)
    assert [min(range(4), key=lambda n: distance(each.digests, digest(shown[n]))) for each in seen] == [
        0,
        1,
        2,
        3,
    ]


def test_of_an_animation_some_pictures_are_looked_at(sandbox: Box) -> None:
    shown = [picture(n, (160, 120)) for n in range(20)]
    data = written(shown[0], "GIF", save_all=True, append_images=shown[1:])
    _, seen = sandbox.look(MediaFormat.GIF, data)
    assert [min(range(20), key=lambda n: distance(each.digests, digest(shown[n]))) for each in seen] == [
        0,
        1,
        3,
        7,
        15,
        19,
    ]


avif = pytest.mark.skipif(not features.check("avif"), reason="needs Pillow with libavif")


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", pytest.param("AVIF", marks=avif)])
@pytest.mark.parametrize("count", [3, 8])
def test_of_a_short_animation_all_pictures_are_looked_at(sandbox: Box, name: str, count: int) -> None:
    """Any of them may be shown for longest."""
    shown = [picture(n, (160, 120)) for n in range(count)]
    data = written(
        shown[0], name, save_all=True, append_images=shown[1:], duration=[10] * (count - 1) + [60_000]
    )
    media = format_of(data)
    assert media is not None
    _, seen = sandbox.look(media, data)
    # What is a picture and a video is looked at as both.
    assert media.is_video or len(seen) == count
    assert [
        min(range(count), key=lambda n: distance(each.digests, digest(shown[n]))) for each in seen[:count]
    ] == list(range(count))


@pytest.mark.parametrize("ground", ["white", "black"])
@pytest.mark.parametrize("name", ["PNG", "WEBP", pytest.param("AVIF", marks=avif)])
def test_what_is_seen_of_a_picture_that_is_transparent(sandbox: Box, name: str, ground: str) -> None:
    """It may be in what the colours are mixed with, on a page that is white or black."""
    image = picture(3)
    shade = image.convert("L").point([255 - n for n in range(256)] if ground == "white" else list(range(256)))
    colour = Image.new("L", image.size, 0 if ground == "white" else 255)
    hidden = Image.merge("RGBA", (colour, colour, colour, shade))
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    data = written(hidden, name, **options)
    media = format_of(data)
    assert media is not None
    how, seen = sandbox.look(media, data)
    assert how == DONE
    assert min(distance(each.digests, digest(image)) for each in seen) <= 31
    # A digest that was made of the colours alone is met as before.
    image.putalpha(shade)
    _, seen = sandbox.look(media, written(image, name, **options))
    assert distance(seen[0].digests, digest(picture(3))) <= 31


def test_transparency_that_is_not_used_costs_nothing(sandbox: Box) -> None:
    image = picture(3)
    image.putalpha(255)
    _, seen = sandbox.look(MediaFormat.PNG, written(image, "PNG"))
    assert len(seen) == 1


def test_of_an_animation_that_is_transparent_no_more_is_looked_at_than_of_video(sandbox: Box) -> None:
    shown = [picture(n, (160, 120)) for n in range(20)]
    for image in shown:
        image.putalpha(120)
    _, seen = sandbox.look(
        MediaFormat.WEBP, written(shown[0], "WEBP", save_all=True, append_images=shown[1:])
    )
    assert len(seen) == MOST_FRAMES


@each_row(
    ("media", "muxer", "codec"),
    [
        (MediaFormat.MP4, "mp4", "mpeg4"),
        (MediaFormat.WEBM, "matroska", "mpeg4"),
        (MediaFormat.TS, "mpegts", "mpeg2video"),
    ],
)
def test_all_tracks_of_a_video_are_looked_at(
    sandbox: Box, media: MediaFormat, muxer: str, codec: str
) -> None:
    """Browsers show the first that they can decode, and pass over one that is too large or too small."""
    shown = [picture(1, (16, 16)), picture(2, (160, 120)), picture(3, (320, 240))]
    _, seen = sandbox.look(media, tracks(shown, muxer, codec))
    for image in shown[1:]:
        assert min(distance(each.digests, digest(image)) for each in seen) <= 31
    assert len(seen) <= MOST_FRAMES


@each_row(
    ("media", "muxer", "codec", "options"),
    [
        (MediaFormat.MP4, "mp4", "mpeg4", {}),
        (MediaFormat.MP4, "mp4", "libx264", FRAGMENTED),
        (MediaFormat.WEBM, "webm", "libvpx", {}),
        (MediaFormat.TS, "mpegts", "libx264", {}),
    ],
)
def test_key_frames_of_video_are_looked_at(
    sandbox: Box, media: MediaFormat, muxer: str, codec: str, options: dict[str, str]
) -> None:
    shown = [picture(n, (320, 240)) for n in range(3)]
    how, seen = sandbox.look(media, video(shown, muxer, codec, options=options))
    assert how == DONE
    for number, image in enumerate(shown):
        best = min(seen, key=lambda each: distance(each.digests, digest(image)))
        assert distance(best.digests, digest(image)) <= 31
        assert abs(best.at - 2 * number) <= 1


def test_what_a_video_is_shown_from_on_needs_the_key_frame_before(sandbox: Box) -> None:
    """As where somebody has cut its beginning off on a telephone."""
    shown = [picture(n, (320, 240)) for n in range(2)]
    data = bytearray(video(shown))
    assert data.count(b"elst") == 1
    at = data.index(b"elst") + 8
    seconds = data.index(b"mdhd") + 16
    data[at + 8 : at + 12] = (int.from_bytes(data[seconds : seconds + 4]) * 5 // 2).to_bytes(4)
    how, seen = sandbox.look(MediaFormat.MP4, bytes(data))
    assert how == DONE
    for image in shown:
        assert min(distance(each.digests, digest(image)) for each in seen) <= 31


@avif
@each_row("beginnings", [0, 1, 2])
def test_a_picture_in_avif_is_looked_at_as_a_video_is(sandbox: Box, beginnings: int) -> None:
    """It lacks nothing, whatever segments there are beside it."""
    other = video([picture(9, (64, 48))], "mp4", "mpeg4", options=FRAGMENTED)
    data = written(picture(3), "AVIF")
    media = format_of(data)
    assert media is MediaFormat.MP4
    how, [seen] = sandbox.look(media, data, [other[: other.index(b"moof") - 4]] * beginnings)
    assert how == DONE
    assert distance(seen.digests, digest(picture(3))) <= CONFIDENT


def test_a_segment_is_looked_at_with_the_beginning_that_it_lacks(sandbox: Box) -> None:
    shown = [picture(n, (320, 240)) for n in range(3)]
    data = video(shown, "mp4", "libx264", options=FRAGMENTED)
    other = video([picture(9, (64, 48))], "mp4", "mpeg4", options=FRAGMENTED)
    first = data.index(b"moof") - 4
    segment = data[data.index(b"moof", first + 8) - 4 :]
    assert sandbox.look(MediaFormat.MP4, segment)[0] == FAILED
    how, seen = sandbox.look(MediaFormat.MP4, segment, [other[: other.index(b"moof") - 4], data[:first]])
    assert how == DONE
    assert any(distance(each.digests, digest(shown[1])) <= 31 for each in seen)


def _bomb(side: int) -> bytes:
    return written(Image.new("1", (side, side)), "PNG")


def _long_gif() -> bytes:
    """A GIF of thousands of large frames, each some bytes long."""
    made = io.BytesIO()
    frames = [Image.new("P", (4_000, 4_000), n % 2) for n in range(2)]
    frames[0].save(made, "GIF", save_all=True, append_images=frames[1:], loop=0)
    data = made.getvalue()
    second = data.rindex(b"\x21\xf9")
    return data[:-1] + data[second:-1] * 200 + b";"


MALICIOUS: dict[str, Callable[[], tuple[MediaFormat, bytes]]] = {
    "bomb": lambda: (MediaFormat.PNG, _bomb(10_000)),
    "bomb that fits": lambda: (MediaFormat.PNG, _bomb(7_900)),
    "animation without an end": lambda: (MediaFormat.GIF, _long_gif()),
    "nothing": lambda: (MediaFormat.JPEG, b""),
    "garbage": lambda: (MediaFormat.WEBM, np.random.default_rng(1).bytes(300_000)),
    "another format": lambda: (MediaFormat.JPEG, written(picture(1), "PNG")),
    "a picture for a video": lambda: (MediaFormat.MP4, written(picture(1), "JPEG")),
    "a video for a picture": lambda: (MediaFormat.GIF, video([picture(1, (64, 48))])),
}


@each_row("kind", MALICIOUS)
@pytest.mark.ours
def test_malicious_files_cost_themselves_alone(hasty: Box, kind: str) -> None:
    how, seen = hasty.look(*MALICIOUS[kind]())
    assert how in (DONE, FAILED, LATE)
    assert all(each.kind == PDQ for each in seen)
    assert hasty.look(MediaFormat.JPEG, written(picture(3)))[0] == DONE


def test_files_of_all_formats_that_are_cut_and_changed_stop_nothing(sandbox: Box) -> None:
    rng = np.random.default_rng(5)
    files = [
        *(
            (MediaFormat(name.lower()), written(picture(2, (160, 120)), name))
            for name in ("JPEG", "PNG", "WEBP", "GIF")
        ),
        (MediaFormat.MP4, video([picture(2, (64, 48))])),
        (MediaFormat.MP4, video([picture(2, (64, 48))], "mp4", "libx264", options=FRAGMENTED)),
        (MediaFormat.WEBM, video([picture(2, (64, 48))], "webm", "libvpx")),
        (MediaFormat.TS, video([picture(2, (64, 48))], "mpegts", "mpeg2video")),
    ]
    ends = set()
    for turn in range(104):
        media, data = files[turn % len(files)]
        if turn % 3 == 0:
            media = [*MediaFormat][turn // 3 % len(MediaFormat)]  # it lies about what it is
        changed = bytearray(data[: int(rng.integers(1, len(data)))] if turn % 2 else data)
        for at in rng.integers(0, len(changed), 1 + turn % 20):
            changed[at] = int(rng.integers(0, 256))
        ends.add(sandbox.look(media, bytes(changed))[0])
    assert ends <= {DONE, FAILED}
    assert sandbox.look(MediaFormat.JPEG, written(picture(3)))[0] == DONE


# -- confinement

TRIES = """
    import ctypes, mmap, os, socket, threading, time

    SECRET = open(__file__).read()
    libc = ctypes.CDLL(None, use_errno=True)

    def tried(work):
        try:
            work()
        except (OSError, RuntimeError) as e:
            return 1
        return 0

    def called(name, *given):
        if getattr(libc, name)(*given) < 0:
            raise OSError(ctypes.get_errno(), name)

    TRIES = [
        lambda: open("/etc/passwd"),
        lambda: open("/tmp/left", "w"),
        lambda: os.listdir("/"),
        lambda: os.stat("/etc"),
        lambda: socket.socket(),
        lambda: socket.socketpair(),
        lambda: os.fork(),
        lambda: threading.Thread(target=print).start(),
        lambda: os.execv("/bin/true", ["true"]),
        lambda: os.kill(os.getppid(), 0),
        lambda: os.memfd_create("x"),
        lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        lambda: called("ptrace", 16, os.getppid(), 0, 0),
        lambda: called("unshare", 0x10000000),
        lambda: called("prctl", 4, 1, 0, 0, 0),
        lambda: os.setuid(0),
        lambda: os.ioctl(0, 0) if hasattr(os, "ioctl") else called("ioctl", 0, 0x5401, 0),
    ]

    def score(pixels):
        return sum(map(tried, TRIES)) / len(TRIES)

    def shape(pixels):
        return pixels[..., 0].mean() / 255 if pixels.dtype == "uint8" and pixels.shape == (384, 512, 3) else 9

    def raising(pixels):
        raise ValueError("no")

    def endless(pixels):
        time.sleep(3600)

    def greedy(pixels):
        return len(bytearray(4 << 30))

    def quitting(pixels):
        os._exit(0)

    def crashing(pixels):
        ctypes.string_at(0)
"""


@pytest.fixture
def tries(tmp_path: Path) -> Path:
    (tmp_path / "toy.py").write_text(textwrap.dedent(TRIES))
    return tmp_path


def test_what_decodes_reaches_no_file_no_network_and_no_other_program(tries: Path) -> None:
    with box("toy:score", folder=tries) as made:
        how, seen = made.look(MediaFormat.JPEG, written(picture(3)))
    assert how == DONE
    assert [each.value for each in seen if each.kind == SCORE] == [1.0]


def test_without_confinement_it_would(tries: Path) -> None:
    """That the test above can fail."""
    code = "import toy; print(toy.tried(toy.TRIES[0]), toy.tried(toy.TRIES[4]), toy.tried(toy.TRIES[10]))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tries, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["0", "0", "0"]


def test_who_decodes_has_no_rights(tries: Path) -> None:
    with box("toy:endless", folder=tries, deadline=60) as made:
        fd = memfd.new()
        memfd.write(fd, written(picture(3)))
        socket.send_fds(made.channel, [json.dumps({"format": "jpeg"}).encode()], [fd])
        os.close(fd)
        children = Path(f"/proc/{made.process}/task/{made.process}/children")
        wait_for(children.read_text, "the process that decodes")
        status = Path(f"/proc/{children.read_text().strip()}/status")

        def facts() -> dict[str, list[str]]:
            lines = (line.partition(":\t") for line in status.read_text().splitlines())
            return {name: value.split() for name, _, value in lines}

        wait_for(lambda: facts()["Seccomp"] == ["2"], "its filter of system calls")
        found = facts()
    assert found["NoNewPrivs"] == ["1"]
    assert {int(found[each][0], 16) for each in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    if os.geteuid() == 0:
        assert "0" not in found["Uid"] + found["Gid"] + found["Groups"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_service_of_a_user_with_a_capability_is_confined_too() -> None:
    """As the unit starts a gateway's."""
    # With the second one it finds this checkout, wherever that is.
    caps = [f"--{kind}-caps=+net_admin,+dac_read_search" for kind in ("inh", "ambient")]
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *caps]
    with box(prefix=user) as made:
        assert made.said == {"ready": True}
        assert made.look(MediaFormat.JPEG, written(picture(3)))[0] == DONE


@pytest.mark.ours
def test_a_classifier_gets_pixels_and_gives_a_score(tries: Path) -> None:
    image = picture(3)
    with box("toy:shape", folder=tries) as made:
        _, seen = made.look(MediaFormat.PNG, written(image, "PNG"))
    [score] = [each.value for each in seen if each.kind == SCORE]
    assert abs(score - np.asarray(image)[..., 0].mean() / 255) < 0.02


@pytest.mark.parametrize(
    ("name", "how", "kinds"),
    [
        ("raising", DONE, [PDQ, FAULT]),
        ("endless", LATE, [PDQ]),
        ("greedy", DONE, [PDQ, FAULT]),
        ("quitting", DONE, [PDQ]),
        ("crashing", FAILED, [PDQ]),
    ],
)
@pytest.mark.ours
def test_a_classifier_that_fails_costs_its_own_score_alone(
    tries: Path, name: str, how: str, kinds: list[bytes]
) -> None:
    with box(f"toy:{name}", folder=tries, deadline=3.0 if how == LATE else 20.0) as made:
        found, seen = made.look(MediaFormat.JPEG, written(picture(3)))
        assert (found, [each.kind for each in seen]) == (how, kinds)
        assert made.look(MediaFormat.JPEG, written(picture(3)))[0] == how


@pytest.mark.parametrize("name", ["toy:missing", "nowhere:score", "toy:SECRET"])
@pytest.mark.ours
def test_a_classifier_that_is_not_there_is_said(tries: Path, name: str) -> None:
    with box(name, folder=tries) as made:
        why = "ModuleNotFoundError as it is imported" if "nowhere" in name else "there is no such function"
        assert made.said["refused"] == f"files.classifier: {name}: {why}"


def test_nothing_is_left_of_a_job(sandbox: Box) -> None:
    for _ in range(3):
        sandbox.look(MediaFormat.JPEG, written(picture(3)))
    assert not Path(f"/proc/{sandbox.process}/task/{sandbox.process}/children").read_text()
    assert len([*Path(f"/proc/{sandbox.process}/task").iterdir()]) == 1
    assert len([*Path(f"/proc/{sandbox.process}/fd").iterdir()]) == 4


def test_the_numbers_of_system_calls_are_those_of_the_kernel() -> None:
    seen = 0
    for machine, header in HEADERS.items():
        if header.exists():
            seen += 1
            text = header.read_text()
            for name, number in {**ALLOWED[machine], **NOT_EXECUTABLE[machine]}.items():
                real = re.search(rf"#define __NR(?:3264)?_{name}\s+(?:__NR3264_\w+|{number})\b", text)
                assert real, (machine, name)
                if "3264_" in real[0].split()[-1]:
                    assert re.search(rf"#define __NR3264_{name} {number}\b", text), (machine, name)
    assert seen or platform.system() != "Linux"


def test_a_machine_that_has_too_much_to_do_is_none_without_sandboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        made = Sandbox(theirs, 1.0, MEMORY)
        monkeypatch.setattr(made, "_run", lambda *_: (FAILED, b""))
        with pytest.raises(UrlwardError):
            made.check([])
        # Whoever has started it hears that it ends, and starts another; a refusal would be for good.
        monkeypatch.setattr(made, "_run", lambda *_: (LATE, b""))
        with pytest.raises(TimeoutError):
            made.check([])


def test_what_the_kernel_kills_says_nothing_of_the_decoders() -> None:
    """As where memory is short: a refusal would last beyond that."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        made = Sandbox(theirs, 1.0, MEMORY)
        assert made._run(lambda _: os.kill(os.getpid(), signal.SIGKILL), 60.0)[0] == LATE
        assert made._run(lambda _: sys.exit(1), 60.0)[0] == FAILED


def test_a_short_deadline_is_for_content_and_not_for_what_is_tried() -> None:
    with box(deadline=0.001) as made:
        assert made.said == {"ready": True}
        assert made.look(MediaFormat.JPEG, written(picture(1)))[0] == LATE


def test_a_sandbox_in_which_decoders_do_not_work_is_refused() -> None:
    """Each picture would be one that cannot be read, and nobody would know."""
    with box(memory=1 << 12) as made:
        assert "a confined process decodes nothing" in str(made.said.get("refused"))


def test_a_machine_of_which_nothing_is_known_is_refused() -> None:
    with pytest.raises(UrlwardError, match="riscv64"):
        filter_of("riscv64")
    code = """if True:
        from urlward.engine.errors import UrlwardError
        from urlward.files import confine
        confine.platform.machine = lambda: "riscv64"
        try:
            confine.confine(confine.Limits(1 << 30, 5))
        except UrlwardError as e:
            print(e)
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "riscv64" in found.stdout


def test_records_that_are_forged_are_passed_over() -> None:
    good = FrameSeen(SCORE, 1.0, 0.5)
    bad = [
        FrameSeen(SCORE, float("nan"), 0.5),
        FrameSeen(SCORE, 1.0, float("inf")),
        FrameSeen(SCORE, -1.0, 0.5),
    ]
    records = b"".join(each.written() for each in (good, *bad, good)) + b"half"
    assert [each[:3] for each in seen_in(records)] == [good[:3], good[:3]]


def test_more_records_than_there_can_be_are_passed_over() -> None:
    """Each costs a search in all lists, while others wait."""
    record = FrameSeen(PDQ, 1.0, 100.0, bytes(8 * DIGEST)).written()
    assert len(list(seen_in(record * 200))) == 2 * MOST_FRAMES
