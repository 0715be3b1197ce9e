"""Formats of pictures and video by their bytes, and where a stream of video can be cut in pieces.

Nothing is decoded here, and nothing is taken from a Content-Type. A video that never ends is looked at piece
by piece, each of which has to begin where a decoder can: an MPEG transport stream anywhere, a fragmented MP4
file (ISO/IEC 14496-12, 8.8) at a ``moof`` behind what comes before the first one, WebM (RFC 9559, 5.1) at a
Cluster behind what comes before the first one.
"""

from enum import StrEnum

HEAD = 400
"""Bytes of a body by which its format is told; fewer where it ends before."""

_TELLING = 12
"""Bytes by which each format is told but a transport stream, which has a byte in each packet."""

MOST_BEGINNING = 1 << 20
"""Bytes of what each piece of a stream begins with; where there are more it is one piece."""

_MOST_PARTS = 16
"""Parts into which what comes at once is split at most: more would be work without end, and no video."""
_SOME_BOXES, _LEAST_BOX = 256, 128
"""Boxes in what comes at once, and bytes of it for each further one; where there are more it is one piece."""

_PACKET, _SYNC = 188, 0x47
"""Size of a packet of an MPEG transport stream, and its first byte (ISO/IEC 13818-1, 2.4.3.2)."""
_EBML, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x1f\x43\xb6\x75"
_BOX, _LARGE_BOX = 8, 16
BOXES = frozenset(
    {b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"emsg", b"prft", b"mdat", b"free", b"skip", b"wide"}
)
"""Types of a box that a file of the ISO base media format, or a segment of one, begins with."""
_STILL = frozenset({b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1"})
"""Brands of pictures in that format, which are not decoded."""


class MediaFormat(StrEnum):
    """MediaFormat that is decoded."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    GIF = "gif"
    MP4 = "mp4"
    WEBM = "webm"
    TS = "ts"

    @property
    def is_video(self) -> bool:
        """Whether it has key frames rather than pictures."""
        return self in (MediaFormat.MP4, MediaFormat.WEBM, MediaFormat.TS)


def format_of(head: bytes) -> MediaFormat | None:
    """MediaFormat of a body that begins so; None where it is not decoded.

    Args:
        head: its first `HEAD` bytes, or all.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return MediaFormat.JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return MediaFormat.PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return MediaFormat.GIF
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return MediaFormat.WEBP
    if head.startswith(_EBML):
        return MediaFormat.WEBM
    if head[4:8] in BOXES and not (head[4:8] == b"ftyp" and head[8:12] in _STILL):
        return MediaFormat.MP4
    if len(head) > _PACKET and all(head[at] == _SYNC for at in range(0, min(len(head), HEAD), _PACKET)):
        return MediaFormat.TS
    return None


def is_told(head: bytes) -> bool:
    """Whether the format of a body that begins so is told by that, however it goes on.

    Args:
        head: its first bytes.
    """
    if len(head) < _TELLING:
        return False
    return len(head) >= HEAD or head[0] != _SYNC or format_of(head) is not None


class Splitter:
    """Splits a video, as its bytes come, where another piece of it may begin.

    Args:
        media: its format.

    Attributes:
        boxes: types of the boxes of an MP4 file so far, of those that one may begin with.
    """

    def __init__(self, media: MediaFormat) -> None:
        self.boxes: set[bytes] = set()
        self._media = media
        self._held = b""
        """Bytes of which it is not known yet whether a piece begins there."""
        self._left = 0
        """Bytes of the box that are still to come; -1 where it has no end."""

    def take(self, content: bytes) -> list[bytes]:
        """Split what follows.

        Returns:
            What goes on with what came before, perhaps nothing; then parts at the beginning of each of which
            a piece may begin.
        """
        match self._media:
            case MediaFormat.TS:
                return [b"", content]
            case MediaFormat.WEBM:
                return self._clusters(self._held + content)
            case MediaFormat.MP4:
                return self._boxed(self._held + content)
        return [content]

    def rest(self) -> bytes:
        """What was held back, at the end."""
        held, self._held = self._held, b""
        return held

    def _clusters(self, data: bytes) -> list[bytes]:
        keep = next((n for n in (3, 2, 1) if data.endswith(_CLUSTER[:n])), 0)
        self._held = data[len(data) - keep :]
        first, *others = data[: len(data) - keep].split(_CLUSTER, _MOST_PARTS)
        return [first, *(_CLUSTER + each for each in others)]

    def _boxed(self, data: bytes) -> list[bytes]:
        parts, begin, at = list[bytes](), 0, 0
        most = _SOME_BOXES + len(data) // _LEAST_BOX
        self._held = b""
        while at < len(data):
            if self._left < 0:
                break
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + _BOX]
            length = _LARGE_BOX if size == 1 else _BOX
            if len(data) - at < length:
                self._held, data = data[at:], data[:at]
                break
            if size == 1:
                size = int.from_bytes(data[at + _BOX : at + _LARGE_BOX])
            if kind == b"moof" and len(parts) < _MOST_PARTS:
                parts.append(data[begin:at])
                begin = at
            if kind in BOXES:
                self.boxes.add(kind)
            most -= 1
            # One of no size goes on to the end, and so does whatever is none.
            self._left = size if size >= length and most > 0 else -1
        return [*parts, data[begin:]]
