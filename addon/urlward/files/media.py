"""Formats of pictures and video by their bytes, and where a stream of video can be cut in pieces.

Nothing is decoded here, and nothing is taken from a Content-Type. A video that never ends is looked at piece
by piece. Each has whole frames, so that a key frame is seen as soon as it has come, and begins with what a
decoder needs. In an MPEG transport stream (ISO/IEC 13818-1) a piece ends where a packet of the video begins,
and begins with its newest tables. In a fragmented MP4 file (ISO/IEC 14496-12, 8.8) it ends behind an
``mdat``, and begins with what comes before the first ``moof``. In WebM (RFC 9559, 5.1) it ends behind a
block, and begins with what comes before the first Cluster.
"""

from enum import StrEnum

HEAD = 400
"""Bytes of a body by which its format is told; fewer where it ends before."""

_TELLING, _OF_BITMAP = 12, 18
"""Bytes by which each format is told but a bitmap, and a transport stream, which has a byte in each packet;
and those by which a bitmap is."""

MOST_BEGINNING = 1 << 20
"""Bytes of what each piece of a stream begins with; where there are more it is one piece."""

_MOST_PARTS = 16
"""Parts into which what comes at once is split at most: more would be work without end, and no video."""
_SOME_BOXES, _LEAST_BOX = 256, 128
"""Boxes in what comes at once, and bytes of it for each further one; where there are more it is one piece."""

_PACKET, _SYNC = 188, 0x47
"""Size of a packet of an MPEG transport stream, and its first byte (ISO/IEC 13818-1, 2.4.3.2)."""
_MOST_FRAME = 2 << 20
"""Bytes after which a transport stream is cut in which no frame begins."""
_STARTS = bytes(byte >> 6 & 1 for byte in range(256))
"""Whether something begins in a packet, by its second byte."""
_VIDEO = range(0xE0, 0xF0)
"""Ids of a stream of video (ISO/IEC 13818-1, 2.4.3.7)."""

_EBML, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x1f\x43\xb6\x75"
_SEGMENT, _TRACKS = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b"
_TIME, _BLOCKS = b"\xe7", (b"\xa3", b"\xa0")
_ELEMENT = 12
"""Bytes of an element's id and size at most."""
_ENDLESS = b"\x01" + b"\xff" * 7
"""Size of an element that nobody knows."""
_BOX, _LARGE_BOX = 8, 16
BOXES = frozenset(
    {b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"emsg", b"prft", b"mdat", b"free", b"skip", b"wide"}
)
"""Types of a box that a file of the ISO base media format, or a segment of one, begins with."""
_LETTERS = frozenset(range(0x20, 0x7F)) | {0xA9}
"""Bytes of a box's type."""
_LARGE_HEAD = 0x09
"""First byte of a box of 150 MB, and of a text, from here on."""
_BITMAPS = frozenset(size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124))
"""Sizes of what tells of a bitmap's pixels, behind the head of its file."""
_OF_OTHERS = frozenset({b"JXL ", b"jP  "})
"""Types of the box that files of other formats begin with."""
_OF_SEGMENTS = frozenset({b"styp", b"moof", b"sidx", b"emsg", b"prft"})
"""Types of the box that a segment of a stream begins with, and no file."""


class MediaFormat(StrEnum):
    """MediaFormat that is decoded."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    GIF = "gif"
    BMP = "bmp"
    MP4 = "mp4"
    WEBM = "webm"
    TS = "ts"

    @property
    def is_video(self) -> bool:
        """Whether it has key frames rather than pictures."""
        return self in (MediaFormat.MP4, MediaFormat.WEBM, MediaFormat.TS)


def format_of(head: bytes, *, certainly: bool = False) -> MediaFormat | None:
    """MediaFormat of a body that begins so; None where it is not decoded.

    Args:
        head: its first `HEAD` bytes, or all.
        certainly: whether nothing else may begin so, such as what is compressed.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return MediaFormat.JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return MediaFormat.PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return MediaFormat.GIF
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return MediaFormat.WEBP
    if head.startswith(b"BM") and head[14:_OF_BITMAP] in _BITMAPS:
        return MediaFormat.BMP
    if head.startswith((_EBML, _CLUSTER)):
        return MediaFormat.WEBM
    kind = head[4:_BOX]
    if len(kind) == 4 and may_be_boxes(head, certainly=certainly):
        return MediaFormat.MP4
    if len(head) > _PACKET and all(head[at] == _SYNC for at in range(0, min(len(head), HEAD), _PACKET)):
        return MediaFormat.TS
    return None


def may_be_boxes(head: bytes, *, certainly: bool = False) -> bool:
    """Whether what begins so may be a file of the ISO base media format. Players pass over boxes of which
    they do not know the type (ISO/IEC 14496-12, 4.2), also over the first one.

    Args:
        head: its first bytes, one or more.
        certainly: as of `format_of`.
    """
    kind = head[4:_BOX]
    if kind in BOXES:
        return True
    is_small = head[0] < _LARGE_HEAD
    if certainly:
        return is_small and any(each.startswith(kind) for each in BOXES)
    size = int.from_bytes(head[:4])
    return (
        is_small
        and (len(head) < 4 or size == 1 or size >= _BOX)
        and not head.startswith(b"\0\0\1")  # of MPEG
        and kind not in _OF_OTHERS
        and _LETTERS.issuperset(kind)
    )


def is_segment(head: bytes) -> bool:
    """Whether what begins so is a segment of a stream in MP4 or WebM, which lacks its beginning."""
    return head[4:8] in _OF_SEGMENTS or head.startswith(_CLUSTER)


def is_told(head: bytes) -> bool:
    """Whether the format of a body that begins so is told by that, however it goes on.

    Args:
        head: its first bytes.
    """
    if len(head) < (_OF_BITMAP if head.startswith(b"BM") else _TELLING):
        return False
    return len(head) >= HEAD or head[0] != _SYNC or format_of(head) is not None


class Splitter:
    """Splits a video, as its bytes come, where a piece of it may end.

    Args:
        media: its format.

    Attributes:
        boxes: types of the boxes of an MP4 file so far, of those that one may begin with.
        shows: whether something of a frame has come since the last cut, as far as is known.
    """

    def __init__(self, media: MediaFormat) -> None:
        self.boxes: set[bytes] = set()
        self.shows = False
        self._media = media
        self._held = b""
        """Bytes of which it is not known yet what they are."""
        self._left = 0
        """Bytes of the box or element that are still to come; -1 where what follows is none."""
        self._beginning: bytearray | None = bytearray()
        """What each piece begins with; None where that is too much, so that there is one piece."""
        self._begins = media is not MediaFormat.TS
        """Whether that may go on."""
        self._in_mdat = False
        self._time = b""
        """The time of a Cluster, as an element."""
        self._tables: dict[int, bytes] = {}
        """Packets of a transport stream's tables, by their kind: the first one, and the program's."""
        self._program = 0
        self._since = 0

    @property
    def kept(self) -> int:
        """Bytes that are kept for what each piece begins with."""
        return len(self._beginning or b"")

    @property
    def lacks(self) -> bool:
        """Whether it is part of a stream whose beginning came otherwise."""
        if self._media is MediaFormat.MP4:
            return b"moov" not in self.boxes
        return self._media is MediaFormat.WEBM and not (self._beginning or b"").startswith(_EBML)

    @property
    def is_beginning(self) -> bool:
        """Whether that is all that has come: what the segments of a stream lack, and nothing else."""
        if self._media is MediaFormat.MP4:
            return b"moov" in self.boxes and not {b"moof", b"mdat"} & self.boxes
        return self._media is MediaFormat.WEBM and self._begins and _TRACKS in (self._beginning or b"")

    def take(self, content: bytes) -> list[bytes]:
        """Split what follows.

        Returns:
            What goes on with what came before; then parts, the last one perhaps nothing, before each of which
            a piece may end.
        """
        if self._beginning is None:
            return [content]
        data, self._held = self._held + content, b""
        began = not self._begins
        cuts, end = self._cuts_in(data)
        data = data[:end]
        if not began:
            self._beginning += data[: cuts.pop(0)] if not self._begins else data
            if len(self._beginning) > MOST_BEGINNING:
                self._beginning, self.shows = None, True
                return [data + self.rest()]
        cuts = cuts[-_MOST_PARTS:]
        return [data[at:to] for at, to in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def rest(self) -> bytes:
        """What was held back, at the end."""
        held, self._held = self._held, b""
        return held

    def resumed(self, content: bytes) -> bytes:
        """What a piece needs in front that goes on with this after a cut."""
        if self._media is MediaFormat.TS:
            return b"".join(self._tables.values())
        is_inside = self._media is MediaFormat.WEBM and not content.startswith(_CLUSTER)
        return bytes(self._beginning or b"") + (_CLUSTER + _ENDLESS + self._time) * is_inside

    def _cuts_in(self, data: bytes) -> tuple[list[int], int]:
        """The cuts, and where what has come ends that is known. The first cut is the beginning's end, where
        that has come."""
        match self._media:
            case MediaFormat.TS:
                return self._frames(data)
            case MediaFormat.MP4:
                return self._fragments(data)
        return self._elements(data)

    def _frames(self, data: bytes) -> tuple[list[int], int]:
        end = len(data) // _PACKET * _PACKET
        if self._left < 0 or data[:end:_PACKET].strip(b"\x47"):
            self._left, self.shows = -1, True  # somebody else has to find the packets
            return [0], len(data)
        self._held = data[end:]
        cut, at = None, -1
        starts = data[1:end:_PACKET].translate(_STARTS)
        while (at := starts.find(1, at + 1)) >= 0:
            packet = data[at * _PACKET : (at + 1) * _PACKET]
            pid = int.from_bytes(packet[1:3]) & 0x1FFF
            payload = packet[5 + packet[4] if packet[3] & 0x20 else 4 :]
            if not pid:
                self._tables[0] = packet
                # Behind its pointer, in a section's head, the first program that is none of the network.
                programs = payload[9:29]
                pids = (int.from_bytes(programs[n : n + 4]) for n in range(0, len(programs) - 3, 4))
                self._program = next((each & 0x1FFF for each in pids if each >> 16), 0)
            elif pid == self._program:
                self._tables[1] = packet
            elif payload[:3] == b"\0\0\1" and payload[3:4] and payload[3] in _VIDEO:
                cut = at * _PACKET if self.shows else None
                self.shows = True
        self._since += end
        if cut is None and self._since > _MOST_FRAME:
            cut = end
        if cut is None:
            return [], end
        self._since = end - cut
        return [cut], end

    def _fragments(self, data: bytes) -> tuple[list[int], int]:
        cuts, at = list[int](), 0
        most = _SOME_BOXES + len(data) // _LEAST_BOX
        while at < len(data):
            if self._left < 0:
                self.shows = True
                break
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                if self._in_mdat and not (self._left or self._begins):
                    cuts.append(at)
                    self._in_mdat = self.shows = False
                continue
            size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + _BOX]
            length = _LARGE_BOX if size == 1 else _BOX
            if len(data) - at < length:
                self._held = data[at:]
                return cuts, at
            if size == 1:
                size = int.from_bytes(data[at + _BOX : at + _LARGE_BOX])
            if kind == b"moof" and self._begins:
                self._begins = False
                cuts.append(at)
            if kind in BOXES:
                self.boxes.add(kind)
            self._in_mdat = kind == b"mdat"
            self.shows |= self._in_mdat
            most -= 1
            # One of no size goes on to the end, and so does whatever is none.
            self._left = size if size >= length and most > 0 else -1
        return cuts, len(data)

    def _elements(self, data: bytes) -> tuple[list[int], int]:
        cuts, at, whole = list[int](), 0, 0
        most = _SOME_BOXES + len(data) // _LEAST_BOX
        while at < len(data) and self._left >= 0:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            if self.shows:
                whole = at
            kind, length, size = _element(data, at)
            if not length or (kind == _TIME and len(data) - at < length + size):
                if len(data) - at >= 2 * _ELEMENT:
                    self._left = -1
                    break
                self._held = data[at:]
                break
            most -= 1
            if kind == _CLUSTER:
                if self._begins or self.shows:
                    self._begins = False
                    cuts.append(at)
                    self.shows = False
            elif kind == _TIME:
                self._time = data[at : at + length + size]
            elif kind in _BLOCKS:
                self.shows = not self._begins
            self._left = -1 if most <= 0 else 0 if kind in (_CLUSTER, _SEGMENT) else size
            at += length
        if self._left < 0:
            return self._clusters(data, at, cuts)
        if self.shows and not (self._left or self._held):
            whole = at
        if whole > (cuts[-1] if cuts else 0):
            cuts.append(whole)
            self.shows = whole < len(data) - len(self._held)
        return cuts, len(data) - len(self._held)

    def _clusters(self, data: bytes, at: int, cuts: list[int]) -> tuple[list[int], int]:
        """Cuts behind what is no element, by what Clusters begin with."""
        keep = next((n for n in (3, 2, 1) if data.endswith(_CLUSTER[:n])), 0)
        self._held, self.shows = data[len(data) - keep :], True
        while len(cuts) <= _MOST_PARTS and (at := data.find(_CLUSTER, at)) >= 0:
            self._begins = False
            cuts.append(at)
            at += len(_CLUSTER)
        return cuts, len(data) - keep


def _element(data: bytes, at: int) -> tuple[bytes, int, int]:
    """An element's id, the bytes of that and its size, 0 where they are not all there or are none, and the
    size; -1 where it has none."""
    head = data[at : at + _ELEMENT]
    of_id = 9 - head[0].bit_length()
    if of_id > 4 or len(head) <= of_id:
        return b"", 0, 0
    of_size = 9 - head[of_id].bit_length()
    length = of_id + of_size
    if of_size > 8 or len(head) < length:
        return b"", 0, 0
    most = (1 << 7 * of_size) - 1
    size = int.from_bytes(head[of_id:length]) & most
    return head[:of_id], length, -1 if size == most else size
