"""Pictures, and key frames of video, as arrays of a size that is enough to compare them.

It runs in a process that is confined (`urlward.files.confine`) and ends at a deadline: what it is given may
be made to break it.
"""

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from urlward.files.media import MediaFormat
from urlward.files.seen import MOST_FRAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 512
"""Pixels of an array's longer side at most: PDQ takes an eighth of that."""

LEAST_SIDE = 32
"""Pixels of a picture's shorter side, below which it is not looked at, as an icon is not."""

MOST_PIXELS = 64_000_000
"""Pixels of what is decoded whole; a JPEG picture is scaled as it is decoded."""

MOST_PICTURES = 8
"""Pictures of an animation that are looked at; of a video, or of a piece of one, `MOST_FRAMES`."""

_MOST_DECODED = 256
"""Pictures of an animation whose last one is looked at: those before it have to be decoded for it."""

MOST_TRACKS = 4
"""Tracks of a video that are looked at."""

GAP = 1.0
"""Seconds between two key frames that are looked at, at least."""

_PICTURES = {
    MediaFormat.JPEG: "JPEG",
    MediaFormat.PNG: "PNG",
    MediaFormat.WEBP: "WEBP",
    MediaFormat.GIF: "GIF",
    MediaFormat.BMP: "BMP",
}
_RIFF, _CHUNK = 12, 8
"""Bytes of what a WebP file begins with, and of what each of its chunks does."""
_SPARE = 1 << 16
_SEGMENT = re.compile(rb"\xff([^\0\x01\xd0-\xd9\xff])", re.DOTALL).search
"""Marker of a segment in a JPEG file, but of one without anything behind it. Any number of 0xFF may be in
front, which a pattern that has them all would go through again from each one on."""
_APART = frozenset({b"\xfe", *(bytes([n]) for n in range(0xE0, 0xF0))})
"""Markers of segments that are an application's, or a comment."""
_COLOURS = {b"\xe0JFIF\0": 16, b"\xeeAdobe": 14}
"""Of these, those that say how its colours are to be read, and bytes that each has at least (libjpeg,
``jdmarker.c``)."""
_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
"""Chunks of a PNG file without which nothing of it is shown."""
_SEEN_WITH_THEM = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT"})
"""Those that change how it is shown."""
_DEMUXERS = {MediaFormat.MP4: "mp4", MediaFormat.WEBM: "matroska", MediaFormat.TS: "mpegts"}
_AVIF = re.compile(rb"\0\0.{2}ftyp(?:.{4}){0,1000}?avi[fs]", re.DOTALL).match
"""Whether one of a file's brands is a picture's, or an animation's, in AVIF (ISO/IEC 23000-22, 6). A demuxer
of video gives the parts of it: tiles, the transparency apart, and of an animation the first picture alone."""
_ALL_FRAMES = {"mp4": {"ignore_editlist": "1"}}
"""Options with which no key frame is passed over because a file is shown from a later frame on, which needs
it (ISO/IEC 14496-12, 8.6.6)."""


class Frame(NamedTuple):
    """One picture.

    Attributes:
        at: seconds from the beginning of a video; 0 in a picture.
        pixels: height, width and three colours, a byte each.
    """

    at: float
    pixels: "NDArray[np.uint8]"


def prepare(*, video: bool) -> "list[tuple[bytes, MediaFormat]]":
    """Load all that decodes, before the process can open no file any more.

    Returns:
        A sample of each format that is decoded.

    Raises:
        ImportError: it is not installed.
    """
    from PIL import (  # noqa: F401
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        WebPImagePlugin,
    )

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = None  # `MOST_PIXELS`
    # What has come of a picture is shown, and so looked at.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    samples = []
    for media, name in _PICTURES.items():
        made = io.BytesIO()
        Image.new("RGB", (LEAST_SIDE, LEAST_SIDE)).save(made, name)
        samples.append((made.getvalue(), media))
    if video:
        samples += [(_sample(name), media) for media, name in _DEMUXERS.items()]
    for data, media in samples:
        # Libraries import some of their modules as they are first used.
        if not any(frames(data, media, [])):
            raise ImportError(f"{media} is not decoded")
    return samples


def _sample(muxer: str) -> bytes:
    """A video of one black frame."""
    import av
    import av.logging

    av.logging.set_level(None)
    made = io.BytesIO()
    with av.open(made, "w", format=muxer) as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width = stream.height = LEAST_SIDE
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # a process with threads is not forked
        black = np.zeros((LEAST_SIDE * 3 // 2, LEAST_SIDE), np.uint8)
        frame = av.VideoFrame.from_ndarray(black, format="yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return made.getvalue()


def frames(data: bytes, media: MediaFormat, beginnings: "list[bytes]") -> Iterator[Frame]:
    """Decode what is to be looked at, one after another.

    Args:
        data: the content.
        media: its format.
        beginnings: of a segment of a stream, which lacks its own: those that it may have. Each is tried, and
            none at last.

    Raises:
        ValueError: too many pixels.
        Exception: whatever a decoder raises that makes nothing of it.
    """
    if not media.is_video:
        yield from _first_shown(_readings(data, media), _PICTURES[media])
        return
    left = MOST_FRAMES
    if _AVIF(data):
        moves = b"moov" in data
        picture = data[:8] + (b"avis" if moves else b"avif") + data[12:]  # the only brand that Pillow heeds
        with suppress(Exception):
            for frame in islice(_pictures(io.BytesIO(picture), "AVIF"), left // 2 if moves else left):
                left -= 1
                yield frame
        if left < MOST_FRAMES and not moves:
            return  # else what is shown may be a video, or a picture apart
    for beginning in (*beginnings, b""):
        found = False
        with suppress(*([Exception] if beginning else [])):
            for frame in islice(_key_frames(io.BytesIO(beginning + data), _DEMUXERS[media]), left):
                found = True
                yield frame
        if found:
            return


def _readings(data: bytes, media: MediaFormat) -> Iterator[bytes]:
    """A picture's file as decoders get it: the second one where they make nothing of the first."""
    match media:
        case MediaFormat.JPEG:
            yield _bare_jpeg(data)
        case MediaFormat.PNG:
            yield _bare_png(data, _PIXELS | _SEEN_WITH_THEM)
            yield _bare_png(data, _PIXELS)  # browsers show it without what is wrong
        case MediaFormat.WEBP:
            yield data
            yield _lengthened(data)
        case _:
            yield data


def _first_shown(readings: Iterator[bytes], name: str) -> Iterator[Frame]:
    """Pictures of the first one of which a decoder makes something."""
    found, failed = False, None
    for data in readings:
        try:
            for frame in _pictures(io.BytesIO(data), name):
                found = True
                yield frame
        except Exception as e:
            if found:
                raise
            failed = e
        else:
            return
    if failed is not None:
        raise failed


def _bare_jpeg(data: bytes) -> bytes:
    """A JPEG file without all that says nothing of its pixels (ITU-T T.81, annex B): EXIF, profiles, further
    pictures, comments, and what is no segment. Browsers pass over these, whatever is wrong with them; Pillow
    reads them, and gives a picture up for it, or needs modules that cannot be loaded any more."""
    kept, at = [data[:2]], 2
    while (found := _SEGMENT(data, at)) is not None:
        start, at = found.end() - 2, found.end()
        if found[1] == b"\xda":
            return b"".join((*kept, data[start:]))
        size = max(int.from_bytes(data[at : at + 2]), 2)
        begins = found[1] + data[at + 2 : at + 7]
        if found[1] not in _APART or size >= _COLOURS.get(begins, size + 1):
            kept.append(data[start : at + size])
        at += size
    return data


def _bare_png(data: bytes, kinds: frozenset[bytes]) -> bytes:
    """A PNG file with chunks of these kinds alone (PNG, 5.3 and 11), for the same reason."""
    kept, at = [data[:8]], 8
    while len(data) - at >= 8:
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] in kinds:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _lengthened(data: bytes) -> bytes:
    """A WebP file with zeros behind its pixels (RFC 9649, 2.3 to 2.6), as the last chunk: these may end a
    little too early, where a bit is wrong, which browsers show, and of which libwebp makes nothing here
    unless something follows."""
    at = _RIFF
    while len(data) - at > _CHUNK:
        end = at + _CHUNK + int.from_bytes(data[at + 4 : at + _CHUNK], "little")
        if data[at : at + 4] in (b"VP8 ", b"VP8L"):
            pixels = data[at + _CHUNK : end] + bytes(_SPARE)
            pixels += bytes(len(pixels) % 2)
            chunk = data[at : at + 4] + len(pixels).to_bytes(4, "little") + pixels
            size = at - _CHUNK + len(chunk)
            return data[:4] + size.to_bytes(4, "little") + data[_CHUNK:at] + chunk
        at = end + end % 2
    return data


def _pictures(file: io.BytesIO, name: str) -> Iterator[Frame]:
    """The first picture, and of an animation the others: all of a few, else some, ever further apart, and the
    last one, which may be shown for longest."""
    with Image.open(file, formats=[name]) as image:
        # All at once: libjpeg does not go on in the middle of arithmetic coding (jdarith.c).
        image.decodermaxblock = file.getbuffer().nbytes
        image.draft("RGB", (SIDE, SIDE))
        _check(*image.size)
        if min(image.size) < LEAST_SIDE:
            return
        yield from islice(_shown(image), MOST_FRAMES)


def _shown(image: Image.Image) -> Iterator[Frame]:
    for number in _numbers(_count(image)):
        try:
            image.seek(number)
        except EOFError:
            return
        with suppress(Exception):
            image.load()  # what is wrong behind its pixels leaves these as they are; all else is raised again
        yield Frame(0.0, _pixels(image))
        if image.has_transparency_data:
            # A digest is made of the colours alone; what is shown may be in what they are mixed with.
            seen = _small(image.convert("RGBA"))
            if seen.getchannel("A").getextrema() != (255, 255):
                for ground in ("white", "black"):
                    mixed = Image.alpha_composite(Image.new("RGBA", seen.size, ground), seen)
                    yield Frame(0.0, _pixels(mixed))


def _count(image: Image.Image) -> int:
    """How many pictures there are before something is wrong."""
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # noqa: BLE001 - whatever is behind them
        count = image.tell() + 1
        image.seek(0)  # it has gone on without taking pixels
        return count


def _numbers(count: int) -> list[int]:
    """Which pictures of an animation are looked at."""
    if count <= MOST_PICTURES:
        return list(range(count))
    numbers = [2**n - 1 for n in range(MOST_PICTURES) if 2**n <= count]
    if count <= _MOST_DECODED:
        numbers[MOST_PICTURES - 1 :] = [count - 1]
    return list(dict.fromkeys(numbers))


def _pixels(image: Image.Image) -> "NDArray[np.uint8]":
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(_small(image if image.mode == "RGB" else image.convert("RGB")))


def _small(image: Image.Image) -> Image.Image:
    scale = SIDE / max(image.size)
    if scale >= 1:
        return image
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)


def _check(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError("too many pixels")


def _key_frames(file: io.BytesIO, demuxer: str) -> Iterator[Frame]:
    import av

    with av.open(file, format=demuxer, options=_ALL_FRAMES.get(demuxer)) as container:
        # Browsers show the first track that they can decode, which may be any.
        tracks = [one for one in container.streams.video[:MOST_TRACKS] if _fits(one.codec_context)]
        if not tracks:
            raise ValueError("too many pixels, or none")
        share = MOST_FRAMES // len(tracks)
        for track in tracks:
            context: Any = track.codec_context
            context.thread_count = 1
            context.skip_frame = "NONKEY"
        for decoded in _decoded(container, tracks, share):
            if not _fits(decoded) or min(decoded.width, decoded.height) < LEAST_SIDE:
                continue
            scale = min(SIDE / max(decoded.width, decoded.height), 1.0)
            small = decoded.reformat(
                width=max(round(decoded.width * scale), 1),
                height=max(round(decoded.height * scale), 1),
                format="rgb24",
                threads=1,
            )
            yield Frame(max(float(decoded.time or 0.0), 0.0), small.to_ndarray())


def _fits(sized: Any) -> bool:
    return bool(sized.width * sized.height <= MOST_PIXELS)


def _decoded(container: Any, tracks: "list[Any]", share: int) -> Iterator[Any]:
    """Key frames that are at least so many seconds apart, a share of each track; what lies between is not
    decoded."""
    import av

    last = dict.fromkeys((track.index for track in tracks), float("-inf"))
    left = dict.fromkeys(last, share)
    gaps = {track.index: max(GAP, _length(track) / share) for track in tracks}
    for packet in container.demux(*tracks):
        track = packet.stream.index
        if not left[track] or (packet.size and not packet.is_keyframe):
            continue
        if packet.size and packet.pts is not None:
            at = float(packet.pts * packet.time_base)
            if 0 <= at - last[track] < gaps[track]:
                continue
            last[track] = at
        # One that is damaged costs itself alone. The last packet is empty, and brings what is held back.
        with suppress(av.error.FFmpegError):
            for decoded in islice(packet.decode(), left[track]):
                left[track] -= 1
                yield decoded
        if not any(left.values()):
            return


def _length(track: Any) -> float:
    """Seconds of a track; 0 where it does not say."""
    return float(track.duration * track.time_base) if track.duration and track.time_base else 0.0
