"""Inspection of one body: its content, hashed as it passes, and copied where somebody looks at pictures.

Sans-IO: content comes in piece by piece, with its transfer coding undone. Content codings are undone here,
in steps of which each takes 6 ms at most, whatever its bytes are, and as many at once as the client has
time for; what takes longer (Brotli with a large window) is undone in a thread. So neither a body that grows
a thousandfold holds anybody up, nor one that is hard to read. What a client has in the end depends on it:
curl and wget undo no coding unasked, Firefox passes over one that it does not know, where Chromium undoes
none then, and Chromium stops behind the first gzip member. So a body is compared as it is sent, too, and as
far as its first member goes. The first bytes say what a body is, beside its Content-Type: neither a wrong
name nor a missing one hides a picture.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from urlward.compression import CONTENT_CODINGS, DAMAGED, ContentCoding, Decoder
from urlward.config import FilesTable
from urlward.files.inspection import BodyCopy, Inspector, PictureFound
from urlward.files.media import MediaFormat, format_of, is_segment, is_told, may_be_boxes

_PIECE: Final = 1 << 15
"""Bytes that one step decompresses to, but for what Brotli has made beyond it."""

_ASIDE: Final = 1 << 14
"""Bytes that go to a thread at a time."""

_MOST_CODINGS: Final = 16
"""Content codings of a body, one in another, as in Firefox; servers use one."""

_FEW_CODINGS: Final = 3
"""Of these, those that take no room (`Room`)."""

UNKNOWN: Final = "application/octet-stream"
"""Media type of a body that has no Content-Type."""

_DECODED: Final = {
    MediaFormat.JPEG: "image/jpeg",
    MediaFormat.PNG: "image/png",
    MediaFormat.WEBP: "image/webp",
    MediaFormat.GIF: "image/gif",
    MediaFormat.BMP: "image/bmp",
    MediaFormat.MP4: "video/mp4",
    MediaFormat.WEBM: "video/webm",
    MediaFormat.TS: "video/mp2t",
}
_OTHERS: Final = (
    (re.compile(rb".{4}ftyp(?:avif|avis)", re.DOTALL).match, "image/avif"),
    (re.compile(rb".{4}ftyp(?:hei[cx]|hev[cx]|mif1|msf1)", re.DOTALL).match, "image/heic"),
    (re.compile(rb"II[*+]\0|MM\0[*+]").match, "image/tiff"),
    (re.compile(rb"\xff\n|\0{3}\x0cJXL ").match, "image/jxl"),
    (re.compile(rb"\0{3}\x0cjP {2}|\xff\x4f\xff\x51").match, "image/jp2"),
    (re.compile(rb"RIFF.{4}AVI ", re.DOTALL).match, "video/x-msvideo"),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11").match, "video/x-ms-asf"),
    (re.compile(rb"FLV\x01").match, "video/x-flv"),
    (re.compile(rb"\0\0\x01[\xb3\xba]").match, "video/mpeg"),
    (re.compile(rb"OggS\0").match, "video/ogg"),
    (re.compile(rb"RIFF.{4}WAVE", re.DOTALL).match, "audio/wav"),
    (re.compile(rb"ID3|\xff[\xf1-\xf3\xf9-\xfb]").match, "audio/mpeg"),
    (re.compile(rb"fLaC").match, "audio/flac"),
    (re.compile(rb"%PDF-").match, "application/pdf"),
    (re.compile(rb"PK\x03\x04").match, "application/zip"),
    (re.compile(rb"Rar!\x1a\x07").match, "application/vnd.rar"),
    (re.compile(rb"7z\xbc\xaf\x27\x1c").match, "application/x-7z-compressed"),
)
"""What bodies begin with that nobody decodes, or that are pictures in the format of a video."""

_FIRST_BYTES: Final = (
    b"\xff", b"\x89PNG", b"GIF8", b"RIFF", b"\x1a\x45\xdf\xa3", b"\x1f\x43\xb6\x75", b"BM", b"II", b"MM\0",
    b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ", b"\x30\x26\xb2\x75", b"FLV\x01", b"\0\0\x01\xb3", b"\0\0\x01\xba",
    b"OggS", b"ID3", b"fLaC", b"%PDF-", b"PK\x03\x04", b"Rar!", b"7z\xbc\xaf",
)  # fmt: skip
"""First bytes of all these, but of boxes and of packets."""

_SEGMENT: Final = "video/iso.segment"
SEGMENTS: Final = frozenset({_SEGMENT, "video/mp2t"})
"""Media types of the pieces in which streams come (DASH, HLS)."""

_LARGE: Final = {"br": 2, "dcb": 2, "zstd": 1}
"""Decoders, by their codings, that remember up to 16 MiB of what has passed, of which a few bytes may make
all."""

_MOST_EARLY: Final = 1 << 16
"""Bytes of a body in some coding that are kept until its content says what it is."""

_SOME_EARLY: Final = 64
"""Pieces in which these are."""

MOST_LARGE: Final = 32
"""Such decoders that a worker has at a time, but for the first step, by which nearly all bodies are told."""

_IN_PARTS: Final = frozenset({"text/event-stream", "multipart/x-mixed-replace", "multipart/byteranges"})
"""Types whose parts are for themselves: their receiver does not wait for an end, and must not for ours. Of
others, a browser takes a picture that is called so for what it is."""

_GRPC: Final = "application/grpc"

_RANGE: Final = re.compile(rb"\s*bytes\s+0-(\d{1,19})/(\d{1,19})\s*", re.IGNORECASE).fullmatch


class BodyFacts(NamedTuple):
    """Facts of a body that its response's head tells.

    Attributes:
        media: its media type, in small letters.
        codings: its content codings and those of its transfer, in the order in which they are undone.
        size: bytes of content; None where nothing says how many.
        part: whether it is only a part of a file.
        large: how many decoders of the codings take much memory.
        in_parts: whether its type is one whose parts are for themselves.
    """

    media: str
    codings: tuple[ContentCoding, ...]
    size: int | None
    part: bool
    large: int = 0
    in_parts: bool = False


def facts_of(status: int, fields: Iterable[tuple[bytes, bytes]], length: int | None) -> BodyFacts:
    """What a response's head says of its body.

    Args:
        status: its code.
        fields: of its head.
        length: of the body as it is sent; None or below 0 where that is not known.
    """
    media = coding = transfer = b""
    whole = status != 206
    for name, value in fields:
        match name.lower():
            case b"content-type":
                media = media or value
            case b"content-encoding":
                coding += b"," + value
            case b"transfer-encoding":
                transfer += b"," + value  # outside of the former; `chunked` is undone already
            case b"content-range" if not whole:
                found = _RANGE(value)
                whole = found is not None and int(found[1]) + 1 == int(found[2])
    kind = media.partition(b";")[0].strip(b" \t").lower().decode("latin-1") or UNKNOWN
    names = re.split("[ \t,]+", (coding + transfer).lower().decode("latin-1"))
    names = [name for name in names if name in CONTENT_CODINGS]
    if len(names) > _MOST_CODINGS:
        names = []
    size = length if length is not None and length >= 0 and not names else None
    undone = tuple(CONTENT_CODINGS[name] for name in reversed(names))
    large = sum(_LARGE.get(name, n >= _FEW_CODINGS) for n, name in enumerate(names))
    return BodyFacts(kind, undone, size, not whole, large, kind in _IN_PARTS or kind.startswith(_GRPC))


def media_of(head: bytes, *, certainly: bool = False) -> str:
    """Media type of what begins with these bytes, `HEAD` or all that there are; empty where none knows.

    Args:
        head: the bytes.
        certainly: as of `format_of`.
    """
    found = format_of(head, certainly=certainly)
    if found in (None, MediaFormat.MP4) and (other := next((m for begins, m in _OTHERS if begins(head)), "")):
        return other
    if found in (MediaFormat.MP4, MediaFormat.WEBM) and is_segment(head):
        return _SEGMENT
    return _DECODED[found] if found is not None else ""


def _may_begin(head: bytes, *, certainly: bool) -> bool:
    """Whether what begins so may become what `media_of` knows by its first bytes alone."""
    return any(each.startswith(head[: len(each)]) for each in _FIRST_BYTES) or may_be_boxes(
        head, certainly=certainly
    )


type Aside = Callable[[Callable[[], bytes], Callable[[], None]], Future[bytes]]
"""Makes a call in a thread, behind those before it; the second one is then made in the event loop."""


class _Layer:
    """One content coding, undone.

    Args:
        coding: which.
        begin: has a step that takes long made in a thread; None where all are made here.
    """

    __slots__ = (
        "_aside", "_begin", "_begun", "_coding", "_decoder", "_full", "_members", "_waiting", "begins_again",
    )  # fmt: skip

    def __init__(
        self, coding: ContentCoding, begin: Callable[[Callable[[], bytes]], Future[bytes]] | None
    ) -> None:
        self._coding = coding
        self._begin = begin
        self._aside: bool | None = None
        """Whether its steps are made there, which the first byte of a stream says."""
        self._begun: Future[bytes] | None = None
        """Step that is made in a thread."""
        self._decoder: Decoder | None = coding.new()
        """None behind the last member."""
        self._members = 0
        self._waiting: deque[memoryview] = deque()
        self._full = False
        """Whether more comes out before more goes in."""
        self.begins_again = False
        """Whether the first member is undone, and the next is about to be."""

    @property
    def behind(self) -> bool:
        """Whether something is yet to be undone."""
        return self._full or bool(self._waiting) or self._begun is not None

    @property
    def waits(self) -> bool:
        """Whether a step is under way."""
        return self._begun is not None and not self._begun.done()

    def put(self, data: bytes) -> None:
        """Add what follows."""
        if self._decoder is not None:
            self._waiting.append(memoryview(data))

    def step(self) -> bytes:
        """Decompress a little; what comes out, perhaps nothing.

        Raises:
            Exception: one of `DAMAGED`.
        """
        decoder, begun = self._decoder, self._begun
        assert decoder is not None
        self._begun = None
        try:
            if begun is not None:
                found = begun.result()
            else:
                if decoder.eof:
                    if self._members == 1 and not self.begins_again:
                        self.begins_again = True
                        return b""
                    decoder, self._aside = self._coding.new(), None
                    self._decoder = decoder
                data = b"" if self._full else self._next()
                if self._aside and self._begin is not None:
                    self._begun = self._begin(partial(decoder.decompress, data, _PIECE))
                    return b""
                found = decoder.decompress(data, _PIECE)
        except DAMAGED:
            if not self._members:
                raise
            self._decoder, self._full = None, False  # what browsers pass over
            self._waiting.clear()
            return b""
        if decoder.eof:
            self._members += 1
            self._full = False
            if rest := decoder.unused_data:
                self._waiting.appendleft(memoryview(rest))
        else:
            self._full = len(found) >= _PIECE or not decoder.needs_input
        return found

    def leave(self) -> None:
        """Have a step not made that has not begun."""
        if self._begun is not None:
            self._begun.cancel()

    def _next(self) -> bytes:
        waiting, coding = self._waiting, self._coding
        first = waiting[0]
        if self._aside is None:
            self._aside = bool(self._begin and coding.takes_long and coding.takes_long(first[0]))
        size = _ASIDE if self._aside else coding.step
        if len(first) <= size:
            return bytes(waiting.popleft())
        waiting[0] = first[size:]
        return bytes(first[:size])


class _Unpacker:
    """Content of a body, its content codings undone in steps."""

    __slots__ = ("_layers",)

    def __init__(
        self,
        codings: Iterable[ContentCoding] = (),
        begin: Callable[[Callable[[], bytes]], Future[bytes]] | None = None,
    ) -> None:
        self._layers = [_Layer(coding, begin) for coding in codings]

    def put(self, data: bytes) -> None:
        """Add what follows, to one coding at least."""
        self._layers[0].put(data)

    @property
    def behind(self) -> bool:
        """Whether something is yet to be undone."""
        return any(layer.behind for layer in self._layers)

    @property
    def waits(self) -> bool:
        """Whether that is under way in a thread, and no step can be made meanwhile."""
        return any(layer.waits for layer in self._layers)

    @property
    def begins_again(self) -> int:
        """How many of the codings have come to a second member so far."""
        return sum(layer.begins_again for layer in self._layers)

    def step(self) -> bytes:
        """Make one step, where it is `behind`; what comes out of it, perhaps nothing.

        Raises:
            Exception: one of `DAMAGED`.
        """
        following: _Layer | None = None
        for layer in reversed(self._layers):
            if layer.behind:
                found = layer.step()
                if following is None:
                    return found
                if found:
                    following.put(found)
                return b""
            following = layer
        return b""

    def leave(self) -> None:
        """Have nothing more undone, so that others in the thread do not wait for it."""
        for layer in self._layers:
            layer.leave()


class Room:
    """Room for codings that take much memory, of all bodies of a worker.

    Args:
        most: how many are undone at a time.
    """

    def __init__(self, most: int = MOST_LARGE) -> None:
        self.left = most

    def take(self, count: int) -> "_Taken | None":
        """Take some, until what is returned is freed; None where there is too little."""
        return _Taken(self, count) if count <= self.left else None


class _Taken:
    """Part of a room, which whoever has it gives back by being freed, however that comes about."""

    __slots__ = ("_count", "_room")

    def __init__(self, room: Room, count: int) -> None:
        self._room, self._count = room, count
        room.left -= count

    def __del__(self) -> None:
        self._room.left += self._count


class _Digests:
    """Digests of what one client takes for the file.

    Args:
        algorithms: as hashlib calls them.
        most: bytes up to which it is hashed.

    Attributes:
        size: bytes that have come.
    """

    __slots__ = ("_hashes", "_most", "size")

    def __init__(self, algorithms: Iterable[str], most: int) -> None:
        self._hashes: dict[str, Any] = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        self._most = most
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def update(self, piece: bytes) -> None:
        """Take what follows."""
        self.size += len(piece)
        if self.size > self._most:
            self._hashes.clear()
        for each in self._hashes.values():
            each.update(piece)

    def so_far(self) -> Mapping[str, bytes]:
        """Digests of what has come."""
        return {name: each.copy().digest() for name, each in self._hashes.items()}

    def clear(self) -> None:
        """Hash no more."""
        self._hashes.clear()


class BodySeen(NamedTuple):
    """Description of a body that has passed.

    Attributes:
        media: its media type, by its first bytes or by what its head says.
        size: bytes of its content that have come.
        part: whether it is only a part of a file.
        gone: whether all of it has gone on.
    """

    media: str
    size: int
    part: bool
    gone: bool = False


class BodyJudge[Answer](Protocol):
    """Decides on what was found; None where the body may go on. No method raises."""

    def exact(self, digests: Mapping[str, bytes], seen: BodySeen) -> Answer | None:
        """Decide on a body's digests, by algorithm."""

    def so_far(self, digests: Mapping[str, bytes], seen: BodySeen) -> Answer | None:
        """Decide on the digests of what has come of a body, which may be all of it."""

    def alike(self, found: PictureFound, seen: BodySeen) -> Answer | None:
        """Decide on what the inspector has found."""

    def unseen(self) -> None:
        """Count a body that there is no room for."""


def _nobody() -> None:
    """Is told for whoever is not there any more."""


def _at_once() -> bool:
    """A turn is over once one thing is done."""
    return True


class Inspection[Answer]:
    """Inspection of one body.

    Args:
        facts: what its head says.
        table: the configuration.
        algorithms: of the digests of a whole file, as hashlib calls them.
        judge: decides on them.
        inspector: looks at pictures; None where nobody does.
        place: where the body is from, for the inspector (`Inspector.offer`).
        room: for its codings; None where that has no bound.
        aside: has what takes long undone in a thread; None where it is done at once.

    Attributes:
        answer: what the response is answered with in its place; None while it may go on.
        over: whether all is known: the body may go on unseen, or must not.
        behind: whether `work` has to be called before more is fed: at once, or when `changed` says so.
        changed: called when `answer` or `over` has changed and nobody has called, or `waits` has.
        turn_is_over: says whether what is yet to be undone should wait for another call of `work`.
    """

    __slots__ = (
        "_again", "_awaits", "_begun", "_copy", "_copy_is_sent", "_early", "_ended", "_facts", "_first",
        "_hashes", "_head", "_inspector", "_judge", "_media", "_place", "_room", "_sent", "_sent_media",
        "_table", "_taken", "_undoes", "_unpacker", "_written", "answer", "behind", "changed", "over",
        "turn_is_over",
    )  # fmt: skip

    def __init__(
        self,
        facts: BodyFacts,
        table: FilesTable,
        algorithms: Collection[str],
        judge: BodyJudge[Answer],
        inspector: Inspector | None = None,
        place: str = "",
        room: Room | None = None,
        aside: Aside | None = None,
    ) -> None:
        self.answer: Answer | None = None
        self.over = self.behind = False
        self.changed: Callable[[], None] = _nobody
        self.turn_is_over: Callable[[], bool] = _at_once
        self._facts = facts
        self._table = table
        self._judge = judge
        self._inspector = inspector
        self._place = place
        self._room = room
        self._taken: _Taken | None = None
        begin = (lambda work: aside(work, self._undone)) if aside is not None else None
        self._unpacker = _Unpacker(facts.codings, begin)
        self._undoes = True
        """Whether what follows is content, too."""
        self._again = 0
        """Codings whose first member has been judged."""
        self._hashes = _Digests(algorithms, table.max_size)
        self._sent = _Digests(algorithms if facts.codings else (), table.max_size)
        """Of the body as it is sent, where that is not its content."""
        self._first: bytes | None = b"" if facts.codings else None
        """First bytes of that, until what it is has been told by them."""
        self._sent_media = ""
        """Media type that these have said."""
        self._early: list[bytes] = []
        """What has come of it before the content has said whether it is looked at."""
        self._head: bytes | None = b""
        """First bytes of the content, likewise."""
        self._media = facts.media
        self._copy: BodyCopy | None = None
        self._copy_is_sent = False
        """Whether the inspector gets the body as it is sent."""
        self._written = 0
        """Bytes that it has got."""
        self._awaits = False
        """Whether the inspector's answer decides whether the body may go on."""
        self._begun = self._ended = False

    @property
    def holds(self) -> bool:
        """Whether the last bytes of the body must not go on before it is `over`."""
        if self.over or (self._facts.in_parts and not self._begun):
            return False
        return bool(self._head is not None or self._hashes or self._sent or self._awaits)

    @property
    def waits(self) -> bool:
        """Whether `work` need not be called before `changed` says so."""
        return self._unpacker.waits

    @property
    def _certainly(self) -> bool:
        """Whether the first bytes have to be those of nothing else: a message of gRPC has its size there."""
        return self._facts.media.startswith(_GRPC)

    @property
    def _seen(self) -> BodySeen:
        return BodySeen(self._media, self._hashes.size, self._facts.part, self.over)

    def feed(self, content: bytes) -> None:
        """Take content that follows."""
        if not content or self.over or self._ended:
            return
        self._begun = True
        if not self._facts.codings:
            self._take(content)
            return
        if self._first is None:
            self._put(content)
        else:
            self._first += content
            if not self._is_told(self._first):
                return
            self._begin_sent(self._first)
        self.work()

    def work(self) -> None:
        """Look at some of what has come."""
        try:
            while self._unpacker.behind and not (self.over or self._unpacker.waits):
                if piece := self._unpacker.step():
                    self._take(piece)
                elif self._unpacker.begins_again > self._again:
                    self._again += 1
                    self._judge_so_far(self._hashes)  # to Chromium that is all
                # One that is not told at once may never be, however much its decoders remember meanwhile.
                if self._head is not None and not self._has_room():
                    break
                if self.turn_is_over():
                    break
            self.behind = not self.over and self._unpacker.behind
        except DAMAGED:
            self.behind = False
            self._end_content()
        if self._ended and not (self.over or self.behind):
            self._finish()

    def end(self) -> None:
        """That was all."""
        if not self._ended:
            if self._first is not None:
                self._begin_sent(self._first)
            self._ended = True
            self.work()

    def rest(self) -> None:
        """Nothing follows for now: what has come may be all, and its receiver may take it for that."""
        if self.over or self.behind:
            return
        if self._head is None:
            self._judge_so_far(self._hashes)
            self._judge_so_far(self._sent)
        elif self._facts.in_parts:
            self._begin_content(self._head)

    def drop(self) -> None:
        """Nobody waits for the body any more."""
        self.changed, self.turn_is_over = _nobody, _at_once
        if self.behind or not self._ended:
            self._give_up()
        self._free()  # it may be over since before its end

    def _undone(self) -> None:
        """A step in a thread is made."""
        self.changed()

    def _begin_sent(self, first: bytes) -> None:
        """Tell by the first bytes whether the body is a picture as it is sent, and begin to undo it."""
        self._first = None
        self._sent_media = media_of(first, certainly=True)
        self._copy_is_sent = format_of(first, certainly=True) is not None
        if self._copy_is_sent:
            self._begin(first)
        if not self.over:
            self._put(first)

    def _put(self, content: bytes) -> None:
        if not content:
            return
        if self._sent:
            self._early.append(content)
            is_full = len(self._early) >= _SOME_EARLY or sum(map(len, self._early)) >= _MOST_EARLY
            if self._head is None or is_full:
                self._look_at_early()
        if self._copy_is_sent:
            self._write(content)
        if self._undoes and not self.over:
            self._unpacker.put(content)

    def _look_at_early(self) -> None:
        for content in self._early:
            self._sent.update(content)
        self._early.clear()
        self._note_whether_over()

    def _take(self, piece: bytes) -> None:
        if self._head is None:
            self._look_at(piece)
            return
        self._head += piece
        if self._is_told(self._head):
            self._begin_content(self._head)

    def _is_told(self, head: bytes) -> bool:
        """Whether these first bytes say whether the body is looked at, of parts as soon as they are none."""
        return is_told(head) or (self._facts.in_parts and not _may_begin(head, certainly=self._certainly))

    def _begin_content(self, head: bytes) -> None:
        self._begin(head)
        if not self.over:
            self._look_at(head)

    def _has_room(self) -> bool:
        """Take the room that the codings need, or give the body up where there is none."""
        large = self._facts.large
        if self._room is None or not large or self._taken is not None:
            return True
        self._taken = self._room.take(large)
        if self._taken is not None:
            return True
        self._judge.unseen()
        self._give_up()
        return False

    def _begin(self, head: bytes) -> None:
        """Tell by the first bytes whether, and by whom, the body is looked at."""
        self._head = None
        table, facts = self._table, self._facts
        media = media_of(head, certainly=self._certainly) or self._sent_media
        self._media = media or facts.media
        is_named = not facts.in_parts and looked_at(facts.media, table)
        if not (is_named or (media and looked_at(media, table))):
            self._give_up()
            return
        if not self._has_room():
            return
        found = format_of(head, certainly=self._certainly)
        if self._inspector is not None and found is not None:
            wanted = table.video if found.is_video else (facts.size or 0) <= table.max_picture
            kind = "video" if found.is_video else "image"
            self._copy = self._inspector.offer(kind, facts.size, self._heard, self._place) if wanted else None
            if self._copy is not None and table.pictures == "cut":
                self._awaits = not self._inspector.is_behind
                self._copy.waited = self._waited
        self._look_at_early()

    def _look_at(self, piece: bytes) -> None:
        self._hashes.update(piece)
        if not self._copy_is_sent:
            self._write(piece)
        self._note_whether_over()

    def _note_whether_over(self) -> None:
        if self._head is None:
            self.over = not (self._hashes or self._sent or self._copy is not None)

    def _write(self, piece: bytes) -> None:
        """Give the inspector what follows."""
        if self._copy is None:
            return
        self._written += len(piece)
        if self._written > self._table.max_picture and self._media.startswith("image/"):
            self._copy.drop()
            self._leave_copy()
        else:
            self._copy.write(piece)

    def _end_content(self) -> None:
        """Judge what can be undone of a damaged body, which may be all that there is, and browsers show it.
        Whoever undoes no coding gets what follows, too."""
        self._unpacker, self._undoes = _Unpacker(), False
        if self._head is not None:
            self._begin_content(self._head)
        self._judge_whole(self._hashes)
        self._ended = self._ended or not self._sent

    def _finish(self) -> None:
        """All has come, and has been looked at."""
        if self._head is not None:
            self._begin_content(self._head)
        self._judge_whole(self._hashes)
        self._judge_so_far(self._sent)
        self._sent.clear()
        if self._copy is not None:
            self._copy.end()
        self.over = not self._awaits
        self._free()

    def _judge_whole(self, digests: _Digests) -> None:
        if digests.size and (found := digests.so_far()):
            digests.clear()
            self._conclude(self._judge.exact(found, self._seen))

    def _judge_so_far(self, digests: _Digests) -> None:
        if digests.size and (found := digests.so_far()):
            self._conclude(self._judge.so_far(found, self._seen))

    def _conclude(self, answer: Answer | None) -> None:
        """Note an answer, if there is one."""
        if answer is not None:
            self.answer = answer
            self._give_up()

    def _give_up(self) -> None:
        self.over, self.behind = True, False
        self._hashes.clear()
        self._sent.clear()
        self._free()
        if self._copy is not None:
            self._copy.drop()
            self._leave_copy()

    def _free(self) -> None:
        """Let go of what nothing more is undone with."""
        self._unpacker.leave()
        self._unpacker, self._taken = _Unpacker(), None
        self._early.clear()

    def _leave_copy(self) -> None:
        self._copy, self._awaits = None, False

    def _waited(self) -> None:
        """Have the end of the body go on: what is found in it later is learned alone."""
        self._awaits = False
        if self._ended and not self.over:
            self.over = True
            self.changed()

    def _heard(self, found: PictureFound | None) -> None:
        """Take what the inspector says."""
        over = self.over
        if found is None:
            self._leave_copy()
            self.over = over or not (self._hashes or self._sent)
        else:
            answer = self._judge.alike(found, self._seen)
            if not over:
                self._conclude(answer)
        if self.over and not over:
            self.changed()


def looked_at(media: str, table: FilesTable) -> bool:
    """Whether bodies of a media type are looked at."""
    return any(
        each in ("*", media) or (each.endswith("/*") and media.startswith(each[:-1])) for each in table.types
    )
