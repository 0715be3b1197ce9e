"""Inspection of a body: whatever its pieces and codings are, one digest; and what says nothing is let go."""

import gzip
import hashlib
import sys
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from random import Random
from typing import Any, cast

import brotli
import pytest

from rows import each_row
from urlward.compression import Decoder
from urlward.config import FilesTable
from urlward.files.body import BodySeen, Inspection, Room, facts_of, media_of
from urlward.files.inspection import Hear, PictureFound
from urlward.files.media import HEAD, format_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 300
VIDEO = b"\0\0\0\x18ftypisom" + b"\0" * 500
FOUND = PictureFound("known", 3, 12)

CODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "dcb": brotli.compress,
    "zstd": zstd.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


class Judge:
    """Blocks one digest, and what the inspector finds in one list."""

    def __init__(self, listed: bytes = b"\0none") -> None:
        self.listed = hashlib.sha256(listed).digest()
        self.digests: list[Mapping[str, bytes]] = []
        self.found: list[PictureFound] = []
        self.seen: list[BodySeen] = []
        self.without_room = False

    def exact(self, digests: Mapping[str, bytes], seen: BodySeen) -> str | None:
        self.digests.append(digests)
        self.seen.append(seen)
        return "listed" if digests["sha256"] == self.listed else None

    def so_far(self, digests: Mapping[str, bytes], seen: BodySeen) -> str | None:
        return "listed" if digests["sha256"] == self.listed else None

    def unseen(self) -> None:
        self.without_room = True

    def alike(self, found: PictureFound, seen: BodySeen) -> str | None:
        self.found.append(found)
        self.seen.append(seen)
        return "alike" if found.list == "known" else None


class BodyCopy:
    waited: Callable[[], None]

    def __init__(self, media: str, size: int | None, hear: Hear) -> None:
        self.offered = media, size
        self.hear = hear
        self.content = b""
        self.state = ""

    def write(self, content: bytes) -> None:
        assert not self.state
        self.content += content

    def end(self) -> None:
        assert not self.state
        self.state = "ended"

    def drop(self) -> None:
        self.state = "dropped"


class Inspector:
    def __init__(self) -> None:
        self.is_behind = False
        self.copies: list[BodyCopy] = []

    def offer(self, media: str, size: int | None, found: Hear, place: str) -> BodyCopy:
        self.copies.append(BodyCopy(media, size, found))
        return self.copies[-1]

    def close(self) -> None:
        """Nothing is open."""


def inspection(
    judge: Judge,
    fields: Mapping[str, str] | None = None,
    *,
    status: int = 200,
    length: int | None = None,
    inspector: Inspector | None = None,
    algorithms: tuple[str, ...] = ("sha256",),
    room: Room | None = None,
    **table: Any,
) -> Inspection[str]:
    said = [
        (name.encode(), value.encode()) for name, value in (fields or {"Content-Type": "image/png"}).items()
    ]
    facts = facts_of(status, said, length)
    assert facts is not None
    return Inspection(facts, FilesTable(**table), algorithms, judge, inspector, room=room)


def fed(one: Inspection[str], data: bytes, size: int = 1 << 16) -> Inspection[str]:
    for at in range(0, len(data), size):
        one.feed(data[at : at + size])
        while one.behind:
            one.work()
    return one


def ended(one: Inspection[str]) -> Inspection[str]:
    one.end()
    while one.behind:
        one.work()
    return one


@each_row("coding", CODINGS)
@each_row("size", [1, 100, 1 << 20])
def test_a_listed_body_is_found_in_any_coding_and_pieces(coding: str, size: int) -> None:
    judge = Judge(PICTURE)
    fields = {"Content-Type": "image/png", "Content-Encoding": coding}
    one = fed(inspection(judge, fields), CODINGS[coding](PICTURE), size)
    assert one.holds
    assert not one.over
    assert ended(one).answer == "listed"
    assert one.over
    assert not one.holds
    assert judge.seen == [BodySeen("image/png", len(PICTURE), part=False)]


def test_digests_of_all_algorithms_that_are_asked_for() -> None:
    judge = Judge()
    algorithms = ("sha256", "sha1", "md5")
    assert ended(fed(inspection(judge, algorithms=algorithms), PICTURE)).answer is None
    assert judge.digests == [{name: hashlib.new(name, PICTURE).digest() for name in algorithms}]


@each_row("size", [0, 1, 399, 400, 401])
def test_a_short_body(size: int) -> None:
    judge = Judge(PICTURE[:size])
    one = ended(fed(inspection(judge), PICTURE[:size], 7))
    assert (one.answer, one.over) == ("listed" if size else None, True)  # nothing is no file


def test_a_body_that_grows_a_thousandfold_is_looked_at_in_steps() -> None:
    content = b"\x89PNG\r\n\x1a\n" + b"\0" * (48 << 20)
    judge = Judge(content)
    one = inspection(judge, {"Content-Type": "image/png", "Content-Encoding": "gzip"})
    one.feed(gzip.compress(content))
    steps = 0
    while one.behind:
        one.work()
        steps += 1
    assert steps >= 40
    assert one.holds
    assert ended(one).answer == "listed"


def test_a_body_that_has_come_as_a_whole_is_judged_once_all_of_it_was_looked_at() -> None:
    content = b"\x89PNG\r\n\x1a\n" + b"\0" * (8 << 20)
    one = inspection(Judge(content), {"Content-Type": "image/png", "Content-Encoding": "gzip"})
    one.feed(gzip.compress(content))
    one.end()
    assert (one.behind, one.over, one.answer) == (True, False, None)
    assert ended(one).answer == "listed"


def test_too_large_a_body_passes() -> None:
    judge = Judge(PICTURE)
    one = inspection(judge, max_size=1 << 10)
    one.feed(PICTURE[: 1 << 10])
    assert one.holds
    one.feed(PICTURE[1 << 10 : (1 << 10) + 1])
    assert one.over
    assert not one.holds
    assert ended(one).answer is None
    assert not judge.digests


@each_row("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_damaged_body_passes(coding: str) -> None:
    data = CODINGS[coding](PICTURE)
    one = inspection(Judge(PICTURE), {"Content-Type": "image/png", "Content-Encoding": coding})
    fed(one, data[: len(data) // 2] + b"\xff" * 200 + data[len(data) // 2 :])
    assert ended(one).answer is None
    assert one.over


def test_a_body_cut_short_behind_its_content_is_found() -> None:
    fields = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    one = fed(inspection(Judge(PICTURE), fields), gzip.compress(PICTURE)[:-8])
    assert ended(one).answer == "listed"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_whose_checksum_alone_is_wrong_is_found(coding: str) -> None:
    data = CODINGS[coding](PICTURE)
    last = 8 if coding == "gzip" else 4
    one = inspection(Judge(PICTURE), {"Content-Type": "image/png", "Content-Encoding": coding})
    fed(fed(one, data[:-last]), b"\xff" * last)
    assert ended(one).answer == "listed"


@each_row("more", [b"\0" * 512, b"what browsers pass over", gzip.compress(b"", mtime=0)])
@each_row("coding", ["gzip", "br", "zstd", "deflate"])
def test_what_stands_behind_compressed_content(more: bytes, coding: str) -> None:
    fields = {"Content-Type": "image/png", "Content-Encoding": coding}
    one = fed(inspection(Judge(PICTURE), fields), CODINGS[coding](PICTURE) + more)
    assert ended(one).answer == "listed"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_checksum_that_comes_with_its_content_may_be_wrong(coding: str) -> None:
    data = CODINGS[coding](PICTURE)
    one = inspection(Judge(PICTURE), {"Content-Type": "image/png", "Content-Encoding": coding})
    assert ended(fed(one, data[:-4] + b"\xff" * 4)).answer == "listed"


@each_row("ends", [True, False])
@each_row(("coding", "count"), [("br", 2), ("zstd", 1), ("zstd, br", 3), ("gzip", 0)])
def test_decoders_that_take_much_memory_are_few(coding: str, count: int, ends: bool) -> None:
    data = PICTURE[:8] + Random(1).randbytes(400_000)
    for each in coding.split(", "):
        data = CODINGS[each](data)
    room, judges = Room(4), [Judge() for _ in range(5)]
    fields = {"Content-Type": "image/png", "Content-Encoding": coding}
    begun = [inspection(judge, fields, room=room) for judge in judges]
    assert room.left == 4, "what has not begun takes none"
    for one in begun:
        fed(one, data[:-10])
    fits = min(4 // count, 5) if count else 5
    assert [judge.without_room for judge in judges] == [False] * fits + [True] * (5 - fits)
    assert [one.over for one in begun] == [judge.without_room for judge in judges]
    assert room.left == 4 - count * fits
    if ends:
        for one in begun:
            one.feed(data[-10:])
            one.end()
    del one
    begun *= ends
    assert room.left == 4


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_a_body_that_is_too_large_behind_its_end_gives_its_room_back(coding: str) -> None:
    """A few bytes that come at once, and unfold to more than is hashed: no collector runs in a worker."""
    content = PICTURE + bytes(1 << 20)
    for size, answer in ((len(content), "listed"), (1 << 19, None)):
        room = Room(2)
        facts = facts_of(200, [(b"Content-Type", b"image/png"), (b"Content-Encoding", coding.encode())], None)
        assert facts is not None
        later = Later()
        one = Inspection(
            facts, FilesTable(max_size=size), ("sha256",), Judge(content), room=room, aside=later
        )
        one.feed(CODINGS[coding](content))
        one.end()
        assert not one.over
        while one.behind:
            if one.waits:
                later.do()
            one.work()
        assert (one.over, one.answer) == (True, answer)
        one.drop()
        assert room.left == 2
        alone = object()
        assert sys.getrefcount(one) == sys.getrefcount(alone), "nothing is left for the collector"


def test_what_is_not_looked_at_takes_no_room() -> None:
    room, judge = Room(0), Judge()
    one = inspection(judge, {"Content-Type": "text/html", "Content-Encoding": "br"}, room=room)
    assert fed(one, brotli.compress(b"<html>" * 1_000)).over
    assert not judge.without_room, "nothing was missed"


@pytest.mark.parametrize("outer", ["br", "zstd"])
def test_decoders_that_nothing_comes_out_of_are_few_too(outer: str) -> None:
    # The name of a file in a gzip member's head (RFC 1952 section 2.3.1), which does not end.
    data = CODINGS[outer](b"\x1f\x8b\x08\x08\0\0\0\0\0\3" + b"a" * 3_000_000)
    most = 4 if outer == "br" else 2
    room, judges = Room(most), [Judge() for _ in range(4)]
    fields = {"Content-Type": "text/html", "Content-Encoding": f"gzip, {outer}"}
    begun = [fed(inspection(judge, fields, room=room), data) for judge in judges]
    assert room.left == 0
    assert [judge.without_room for judge in judges] == [False, False, True, True]
    assert [one.over for one in begun] == [False, False, True, True]
    begun.clear()
    assert room.left == most


@each_row("coding", CODINGS)
def test_what_rests_behind_its_content_is_found(coding: str) -> None:
    judge = Judge(PICTURE)
    one = inspection(judge, {"Content-Type": "image/png", "Content-Encoding": coding})
    fed(one, CODINGS[coding](PICTURE))
    one.rest()
    assert (one.answer, one.over) == ("listed", True)
    one = inspection(judge)
    fed(one, PICTURE[:-1]).rest()
    assert not one.over
    assert ended(fed(one, PICTURE[-1:])).answer == "listed"


@each_row("coding", ["gzip", "zstd", "gzip, br", "br, gzip"])
@each_row("size", [333, 1 << 20])
def test_whoever_stops_behind_the_first_member_gets_no_known_file(coding: str, size: int) -> None:
    *inner, outer = coding.split(", ")
    content = PICTURE
    for each in inner:
        content = CODINGS[each](content)
    fields = {"Content-Type": "image/png", "Content-Encoding": coding}
    whole = PICTURE + b"more"
    more = CODINGS[outer](b"more") if not inner else CODINGS[outer](b"")
    data = CODINGS[outer](content) + more + CODINGS[outer](b"")
    assert ended(fed(inspection(Judge(PICTURE), fields), data, size)).answer == "listed"
    if not inner:
        assert ended(fed(inspection(Judge(whole), fields), data, size)).answer == "listed"
    assert ended(fed(inspection(Judge(), fields), data, size)).answer is None


@each_row("coding", ["gzip", "br", "zstd", "deflate", "gzip, br", "x, gzip"])
@each_row("size", [1, 1 << 10, 1 << 20])
@each_row(
    "content",
    [b"a program " * 9_000, gzip.compress(b"another " * 9_000, mtime=0), PICTURE],
    ids=["raw", "gzip", "png"],
)
def test_whoever_undoes_no_coding_gets_no_known_file(coding: str, size: int, content: bytes) -> None:
    """curl and wget keep what they are sent, such as an archive that its server says is compressed."""
    content = content[: 3_000 if size == 1 else len(content)]
    fields = {"Content-Type": "application/octet-stream", "Content-Encoding": coding}
    assert ended(fed(inspection(Judge(content), fields), content, size)).answer == "listed"
    one = fed(inspection(Judge(content), fields), content, size)
    one.rest()
    assert one.answer == "listed"
    assert ended(fed(inspection(Judge(), fields), content, size)).answer is None
    known = CODINGS[coding.removeprefix("x, ")](content)
    for listed in (content, known):
        assert ended(fed(inspection(Judge(listed), fields), known, size)).answer == "listed"


@pytest.mark.parametrize("size", [1, 1 << 16])
def test_little_is_kept_of_what_says_nothing(size: int) -> None:
    # The name of a file in a gzip member's head (RFC 1952 section 2.3.1), which does not end.
    data = b"\x1f\x8b\x08\x08\0\0\0\0\0\3" + b"a" * (3_000_000 if size > 1 else 3_000)
    fields = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
    one = inspection(Judge(), fields)
    for at in range(0, len(data), size):
        one.feed(data[at : at + size])
        assert sum(map(len, one._early)) < 1 << 17
        assert len(one._early) <= 64
    fields["Content-Type"] = "image/png"
    assert ended(fed(inspection(Judge(data), fields), data, size)).answer == "listed"


def test_what_is_too_large_once_undone_is_compared_as_it_is_sent() -> None:
    data = gzip.compress(bytes(5_000_000))
    fields = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    for listed in (data, None):
        one = fed(inspection(Judge(listed or b"?"), fields, max_size="1MB"), data + b"x" * 1_000_000)
        assert ended(one).over
    assert ended(fed(inspection(Judge(data), fields, max_size="1MB"), data)).answer == "listed"


def test_a_picture_whose_coding_is_none_is_looked_at_as_it_is_sent() -> None:
    """As Chromium shows it where it does not know one of the codings."""
    inspector = Inspector()
    fields = {"Content-Type": "text/html", "Content-Encoding": "x, gzip"}
    ended(fed(inspection(Judge(), fields, inspector=inspector, pictures="alert"), PICTURE, 100))
    assert [(copy.content, copy.state) for copy in inspector.copies] == [(PICTURE, "ended")]


def test_what_is_in_a_damaged_body_is_looked_at_once() -> None:
    inspector = Inspector()
    fields = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    data = gzip.compress(PICTURE)[:-8]
    one = fed(inspection(Judge(), fields, inspector=inspector, pictures="alert"), data + bytes(99))
    ended(one)
    assert [(copy.content, copy.state) for copy in inspector.copies] == [(PICTURE, "ended")]


def test_the_content_of_a_zlib_stream_that_begins_like_one() -> None:
    head = b"\x78\x01\x07"  # of a stored block of 0x701 bytes, whose header has bits that mean nothing
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = head + b"\xfe\xf8" + PICTURE[:0x701] + packed.compress(PICTURE[0x701:]) + packed.flush()
    assert zlib.decompress(data, -15) == PICTURE
    fields = {"Content-Type": "image/png", "Content-Encoding": "deflate"}
    for size in (1, 1 << 20):
        assert ended(fed(inspection(Judge(PICTURE), fields), data, size)).answer == "listed"


@pytest.mark.parametrize("count", [4, 16])
def test_more_codings_than_anybody_needs(count: int) -> None:
    data = PICTURE
    for _ in range(count):
        data = gzip.compress(data)
    fields = {"Content-Type": "image/png", "Content-Encoding": ", ".join(["gzip"] * count)}
    room = Room(count)
    assert ended(fed(inspection(Judge(PICTURE), fields, room=room), data)).answer == "listed"
    judge = Judge(PICTURE)
    assert fed(inspection(judge, fields, room=Room(count - 4)), data).over
    assert judge.without_room, "they take memory"


HARD_BROTLI = (
    b"\x0c"  # a window of 64 KiB, and a block of nothing
    + bytes.fromhex(f"0000f0ff0810190000{'0' * 130}20c42228820291000c") * 1200
    + b"\3"
)
"""Blocks of one byte each, of which each brings a map of 16,384 contexts that are moved to the front."""


class Counted:
    """A decoder, of which is noted how much goes in and comes out at a time."""

    def __init__(self, decoder: Decoder, calls: list[tuple[int, int]]) -> None:
        self.decoder, self.calls = decoder, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)

    def decompress(self, data: bytes, most: int) -> bytes:
        found = self.decoder.decompress(data, most)
        self.calls.append((len(data), len(found)))
        return found


@each_row(
    ("coding", "data", "least"),
    [
        ("gzip", gzip.compress(Random(1).randbytes(1 << 20)), 64),
        ("zstd", zstd.compress(Random(1).randbytes(1 << 20)), 256),
        ("br", brotli.compress(Random(1).randbytes(1 << 20), quality=1), 1024),
        ("br", HARD_BROTLI, 96),
        ("br, br", brotli.compress(HARD_BROTLI), 96),
        ("zstd, br, gzip", gzip.compress(brotli.compress(zstd.compress(bytes(8 << 20)))), 256),
    ],
    ids=["gzip", "zstd", "br", "hard br", "br in br", "three"],
)
def test_a_step_takes_few_bytes_and_makes_few(coding: str, data: bytes, least: int) -> None:
    """However hard they are to read: of what one coding makes, the next gets a few at a time as well."""
    calls: list[tuple[int, int]] = []
    facts = facts_of(200, [(b"Content-Encoding", coding.encode())], None)
    assert facts is not None
    counted = tuple(each._replace(new=lambda new=each.new: Counted(new(), calls)) for each in facts.codings)
    one = Inspection(facts._replace(codings=counted), FilesTable(types=("*",)), ("sha256",), Judge())
    done = looks = 0
    one.feed(data)
    while one.behind:
        assert len(calls) == done + 1, "one step, where there is no time for more"
        done, looks = len(calls), looks + 1
        one.work()
    one.end()
    assert one.over
    assert len(calls) >= least
    for put_in, made in calls:
        assert put_in <= max(each.step for each in facts.codings)
        assert made <= 3 << 15


class Later:
    """What is to be done in a thread, done when a test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Callable[[], bytes], Callable[[], None], Future[bytes]]] = []

    def __call__(self, work: Callable[[], bytes], then: Callable[[], None]) -> Future[bytes]:
        self.asked.append((work, then, Future()))
        return self.asked[-1][2]

    def do(self) -> None:
        """Do the one that waits."""
        ((work, then, done),) = self.asked
        self.asked.clear()
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(work())
        except Exception as e:
            done.set_exception(e)
        then()


def aside(
    judge: Judge, coding: str, room: Room | None = None
) -> tuple[Inspection[str], Later, Callable[[], bool]]:
    """An inspection; what it has to be done; and whether it has asked for a call since the last question."""
    later, called = Later(), list[bool]()
    facts = facts_of(200, [(b"Content-Type", b"image/png"), (b"Content-Encoding", coding.encode())], None)
    assert facts is not None
    one = Inspection(facts, FilesTable(), ("sha256",), judge, room=room, aside=later)
    one.turn_is_over = lambda: False
    one.changed = lambda: called.append(True)
    return one, later, lambda: bool(called) and called.pop()


@each_row("coding", ["br", "gzip, br", "br, gzip", "br, zstd, br"])
def test_what_takes_long_is_undone_in_a_thread(coding: str) -> None:
    data = PICTURE
    for each in coding.split(", "):
        data = CODINGS[each](data)
    one, later, called = aside(Judge(PICTURE), coding)
    one.feed(data[:-50])
    done, fed = 0, False
    while one.behind or not fed:
        if not one.behind:
            one.feed(data[-50:])
            one.end()
            fed = True
            continue
        assert one.waits
        before = len(later.asked)
        one.work()  # for whatever reason: one step at a time
        assert len(later.asked) == before == 1
        assert not called()
        later.do()
        assert called()
        assert not one.waits
        done += 1
        one.work()
    assert done >= 2
    assert (one.answer, one.over, later.asked) == ("listed", True, [])


@each_row("bits", range(10, 25))
def test_brotli_with_a_small_window_takes_no_thread(bits: int) -> None:
    """It is the window that may be full before anything comes out."""
    one, later, _ = aside(Judge(PICTURE), "br")
    one.feed(brotli.compress(PICTURE, lgwin=bits))
    one.end()
    assert bool(later.asked) is (bits > 19)
    while one.behind:
        later.do()
        one.work()
    assert one.answer == "listed"


def test_what_a_thread_finds_damaged_ends_there() -> None:
    data = bytearray(brotli.compress(PICTURE + Random(1).randbytes(100_000), quality=1))
    data[60_000:] = b"\xff" * 50_000
    one, later, _ = aside(judge := Judge(), "br")
    one.feed(bytes(data))
    while one.behind:
        later.do()
        one.work()
    assert len(judge.digests) == 1
    assert not one.waits
    one.end()
    assert one.over
    assert len(judge.digests) == 1


@pytest.mark.parametrize("ended", [True, False])
def test_nobody_waits_for_what_a_thread_undoes(ended: bool) -> None:
    room = Room(2)
    one, later, called = aside(judge := Judge(PICTURE), "br", room)
    one.feed(brotli.compress(PICTURE))
    if ended:
        one.end()
    assert room.left == 0
    one.drop()
    later.do()
    assert (called(), one.over, one.behind, room.left, judge.digests) == (False, True, False, 2, [])
    alone = object()
    assert sys.getrefcount(one) == sys.getrefcount(alone), "nothing is left for the collector"


@pytest.mark.parametrize("leaves", [True, False])
def test_what_nobody_waits_for_is_not_undone(leaves: bool) -> None:
    """A client that leaves a thousand bodies, or as many that there is no room for, keep the thread from
    nobody: 14 bytes of each would take a tenth of a second there."""
    room = Room(2 if leaves else 0)
    one, later, _ = aside(Judge(), "br", room)
    one.feed(brotli.compress(PICTURE))
    ((_, _, step),) = later.asked
    if leaves:
        assert not step.cancelled(), "somebody waits"
        one.drop()
    assert (step.cancelled(), one.over, one.answer) == (True, True, None)
    one, later, _ = aside(Judge(PICTURE), "br", room := Room(2))
    one.feed(brotli.compress(PICTURE))
    one.end()
    ((_, _, step),) = later.asked
    while one.behind:
        later.do()
        one.work()
    assert (step.cancelled(), one.answer, room.left) == (False, "listed", 2)


def test_a_thread_that_cannot_do_it_leaves_nothing_undecided() -> None:
    one, later, _ = aside(Judge(), "br")
    one.feed(brotli.compress(PICTURE))
    later.asked[0] = (lambda: cast("bytes", None.missing), *later.asked[0][1:])  # type: ignore[attr-defined]
    later.do()
    with pytest.raises(AttributeError):
        one.work()
    assert one.holds


def test_as_many_steps_are_made_as_there_is_time_for() -> None:
    content = b"\x89PNG\r\n\x1a\n" + bytes(8 << 20)
    one = inspection(Judge(content), {"Content-Type": "image/png", "Content-Encoding": "gzip"})
    turns: list[bool] = [False] * 9 + [True]
    one.turn_is_over = lambda: turns.pop(0)
    one.feed(gzip.compress(content))
    assert (turns, one.behind, one._hashes.size) == ([], True, 10 << 15)
    one.turn_is_over = lambda: False
    one.work()
    assert not one.behind
    one.end()
    assert one.answer == "listed"


def test_several_members() -> None:
    fields = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    data = gzip.compress(PICTURE[:5000]) + gzip.compress(PICTURE[5000:])
    assert ended(fed(inspection(Judge(PICTURE), fields), data, 333)).answer == "listed"


def test_members_without_content_do_not_hold_anybody_up() -> None:
    one = inspection(Judge(PICTURE), {"Content-Type": "image/png", "Content-Encoding": "gzip"})
    one.feed(gzip.compress(b"") * 1000 + gzip.compress(PICTURE))
    assert one.behind
    assert ended(one).answer == "listed"


@each_row(
    ("media", "content", "looked"),
    [
        ("image/png", b"what is none " * 20, True),
        ("IMAGE/PNG; q=1", b"what is none " * 20, True),
        ("text/html", PICTURE, True),  # browsers show what it is, not what it is called
        ("text/html", b"<p>" * 200, False),
        ("", b"anything" * 30, True),
        ("text/plain", VIDEO, True),
        ("text/plain", b"%PDF-1.7\n" * 30, True),
        ("application/json", b"{}", False),
    ],
)
def test_what_is_looked_at_by_its_name_or_its_first_bytes(media: str, content: bytes, looked: bool) -> None:
    fields = {"Content-Type": media} if media else {"Content-Length": "1"}
    one = fed(inspection(Judge(content), fields), content)
    assert one.over is (not looked and len(content) >= HEAD)
    assert ended(one).answer == ("listed" if looked else None)


def test_all_types() -> None:
    one = fed(inspection(Judge(b"{}"), {"Content-Type": "application/json"}, types=("*",)), b"{}")
    assert ended(one).answer == "listed"


IN_PARTS = (
    "text/event-stream",
    "multipart/x-mixed-replace; boundary=x",
    "Multipart/ByteRanges; boundary=x",
    "application/grpc+proto",
)


@each_row("media", IN_PARTS)
@each_row("size", [1, 5, 1 << 16])
@each_row("coding", ["identity", "gzip"])
def test_a_picture_by_the_name_of_what_has_no_end(media: str, size: int, coding: str) -> None:
    """As such a browser shows it, in a page that has it for a picture."""
    fields = {"Content-Type": media, "Content-Encoding": coding}
    for content in (PICTURE, VIDEO):
        one = fed(inspection(Judge(content), fields), CODINGS[coding](content), size)
        assert one.holds
        assert ended(one).answer == "listed"


@each_row("media", IN_PARTS)
@each_row("types", [("image/*",), ("*",)])
@each_row(
    "message",
    [
        b":ok\n\n", b"data: 1\n\n", b"\r\n--x\r\n", b"--x\r\n", b"\0\0\0\0\5\x0a\3abc", b"\0\0\0\0\0",
        b"\1\0\0\0\7gzipped",
    ],
)  # fmt: skip
def test_what_is_said_piece_by_piece_does_not_wait(
    media: str, types: tuple[str, ...], message: bytes
) -> None:
    one = inspection(Judge(), {"Content-Type": media}, types=types)
    assert not one.holds, "its head does not either"
    one.feed(message)
    assert one.over


@each_row("first", [b"\0\0\0", b"\0\0\0\x18ft", b"\xff", b"R"])
def test_what_could_be_a_picture_waits_until_more_comes_or_nothing(first: bytes) -> None:
    one = inspection(Judge(), {"Content-Type": "text/event-stream"})
    one.feed(first)
    assert one.holds
    one.rest()
    assert one.over


def _zlib_flushed(data: bytes) -> bytes:
    one = zlib.compressobj()
    return one.compress(data) + one.flush(zlib.Z_SYNC_FLUSH)


def _brotli_flushed(data: bytes) -> bytes:
    one = brotli.Compressor()
    return one.process(data) + one.flush()  # type: ignore[no-any-return]


FLUSHED: Mapping[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "deflate": _zlib_flushed,
    "br": _brotli_flushed,
}


@each_row("coding", FLUSHED)
@each_row("first", [b":", b":\n\n", b"data", b"\0\0\0\0\0"])
def test_the_first_of_what_is_said_in_parts_waits_for_nothing(first: bytes, coding: str) -> None:
    """Such as the comment that opens a stream of events."""
    one = inspection(Judge(), {"Content-Type": "text/event-stream", "Content-Encoding": coding})
    one.feed(FLUSHED[coding](first))
    assert (one.over, one.holds) == (True, False)


@each_row("coding", ["none", "utf-8", "compress", "gzip, dcz"])
def test_of_a_coding_that_browsers_do_not_know_what_they_show_is_compared(coding: str) -> None:
    fields = {"Content-Type": "image/png", "Content-Encoding": coding}
    assert ended(fed(inspection(Judge(PICTURE), fields), PICTURE)).answer == "listed"


def test_a_transfer_coding_that_a_client_has_asked_for() -> None:
    """As curl does with --tr-encoding; it stands around the content codings, whichever field is first."""
    fields = {"Content-Type": "image/png", "Transfer-Encoding": "gzip, chunked", "Content-Encoding": "zstd"}
    body = gzip.compress(zstd.compress(PICTURE))
    assert ended(fed(inspection(Judge(PICTURE), fields), body)).answer == "listed"


@each_row(
    ("content_range", "part"),
    [
        ("bytes 0-99/100", False),
        ("BYTES 0-99/100", False),
        ("bytes 0-98/100", True),
        ("bytes 1-99/100", True),
        ("bytes 0-99/*", True),
        ("nonsense", True),
        ("", True),
    ],
)
def test_what_is_called_a_part_may_be_the_whole(content_range: str, part: bool) -> None:
    """A browser that has asked for no range takes it for that."""
    fields = {"Content-Type": "image/png", "Content-Range": content_range}
    if not content_range:
        del fields["Content-Range"]
    judge = Judge(PICTURE)
    assert ended(fed(inspection(judge, fields, status=206), PICTURE)).answer == "listed"
    assert judge.seen[0].part is part


def test_a_range_that_nobody_asked_for_says_nothing() -> None:
    fields = {"Content-Type": "image/png", "Content-Range": "bytes 5-9/10"}
    assert ended(fed(inspection(Judge(PICTURE), fields), PICTURE)).answer == "listed"


@each_row(
    ("head", "media"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\n\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\n\0\0\0WAVEfmt ", "audio/wav"),
        (b"RIFF\n\0\0\0AVI LIST", "video/x-msvideo"),
        (b"RIFF\n\0\0\0CDDAfmt ", ""),
        (b"\xff\n\xfa\x1f", "image/jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
        (b"ID3\4", "audio/mpeg"),
        (b"\xff\xfe<\0h\0", ""),  # UTF-16
        (b"OggS\0", "video/ogg"),
        (b"FLV\1\5", "video/x-flv"),
        (b"\0\0\1\xba", "video/mpeg"),
        (b"\0\0\0\x1cftypavif", "image/avif"),
        (b"\0\0\0\x1cftypheic", "image/heic"),
        (b"\0\0\0\x1cftypiso5", "video/mp4"),
        (b"\0\0\0\x1cjunkftyp", "video/mp4"),
        (b"\0\0\1\xb3junk", "video/mpeg"),
        (b"\0\0\0\x1cstypmsdh", "video/iso.segment"),
        (b"\0\n\0\x1cmoof", "video/iso.segment"),
        (b"\x1f\x43\xb6\x75\x84", "video/iso.segment"),
        (b"\xff\xd8\xff\xe0styp", "image/jpeg"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "video/mp4"),
        (b"\x1a\x45\xdf\xa3", "video/webm"),
        ((b"G" + b"\n" * 187) * 3, "video/mp2t"),
        (b"G" + b"\n" * 400, ""),
        (b"PK\x03\x04", "application/zip"),
        (b"Rar!\x1a\x07\0", "application/vnd.rar"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "application/x-7z-compressed"),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "image/bmp"),
        (b"", ""),
    ],
)
def test_first_bytes(head: bytes, media: str) -> None:
    assert media_of(head) == media


@pytest.mark.parametrize("content", [b"{'n': 1234567}\n", b"data of no kind"])
def test_a_few_bytes_say_that_a_body_is_not_looked_at(content: bytes) -> None:
    one = inspection(Judge(), {"Content-Type": "application/json"})
    one.feed(content)
    assert one.over, "what it is told live arrives at once"


def test_a_stream_of_packets_is_told_by_several() -> None:
    one = inspection(Judge(), {"Content-Type": "text/plain"})
    one.feed((b"G" + bytes(187)) * 2)
    assert not one.over
    one.feed((b"G" + bytes(187)) * 2)
    assert not one.over
    assert ended(one).over
    assert one._media == "video/mp2t"


def test_a_picture_goes_to_the_inspector_as_it_is() -> None:
    inspector = Inspector()
    fields = {"Content-Type": "text/html", "Content-Encoding": "br"}
    one = inspection(Judge(), fields, length=7, inspector=inspector, pictures="alert")
    ended(fed(one, brotli.compress(PICTURE), 50))
    (copy,) = inspector.copies
    assert copy.offered == ("image", None)
    assert (copy.content, copy.state) == (PICTURE, "ended")
    assert one.over, "nobody waits for what is only told"


@each_row("size", [1, 5, 12, 3_000])
def test_a_message_of_grpc_that_begins_like_a_box_does_not_wait(size: int) -> None:
    """One of 2,113 bytes, whose fields are texts."""
    message = b"\0\0\0\x08A" + b'"0text' * 352 + b"t"
    assert format_of(message) is not None
    one = inspection(Judge(), {"Content-Type": "application/grpc+proto"})
    fed(one, message, size)
    assert one.over
    assert not one.holds


def test_a_picture_whose_coding_begins_like_a_box_is_undone() -> None:
    """Brotli with content that is not compressed, whose head is three bytes."""
    content = b"GIF89a" + bytes(40_027)
    size = (len(content) - 1) >> 4
    coded = bytes([0, size & 0xFF, size >> 8 | 0x10]) + content + b"\3"
    assert brotli.decompress(coded) == content
    assert format_of(coded) is not None
    for fields in ({"Content-Encoding": "br"}, {"Content-Encoding": "br", "Content-Type": "text/plain"}):
        inspector, judge = Inspector(), Judge(content)
        one = inspection(judge, fields, inspector=inspector, pictures="alert")
        assert ended(fed(one, coded, 50)).answer == "listed"
        assert [copy.offered for copy in inspector.copies] == [("image", None)]
        assert judge.seen[0].media == "image/gif"


def test_what_is_found_when_the_body_has_gone_on_is_told_all_the_same() -> None:
    inspector, judge, called = Inspector(), Judge(), list[str]()
    one = inspection(judge, length=len(PICTURE), inspector=inspector, pictures="learn")
    ended(fed(one, PICTURE))
    one.changed = lambda: called.append("changed")
    assert inspector.copies[0].offered == ("image", len(PICTURE))
    one.drop()
    inspector.copies[0].hear(FOUND)
    inspector.copies[0].hear(None)
    assert judge.found == [FOUND]
    assert one.answer is None
    assert not called


@pytest.mark.parametrize("found", [FOUND, FOUND._replace(list="")])
def test_a_picture_that_may_be_cut_waits_for_what_is_found(found: PictureFound) -> None:
    inspector, called = Inspector(), list[str]()
    one = inspection(Judge(), inspector=inspector, pictures="cut")
    one.changed = lambda: called.append("changed")
    ended(fed(one, PICTURE))
    assert not one.over
    assert one.holds
    (copy,) = inspector.copies
    copy.hear(found)
    if found is FOUND:
        assert (one.answer, copy.state) == ("alike", "dropped")
    else:
        assert not one.over
        copy.hear(None)
        assert one.answer is None
    assert one.over
    assert called == ["changed"]


def test_a_picture_whose_answer_takes_long_goes_on_and_what_is_found_later_is_told() -> None:
    inspector, called, judge = Inspector(), list[str](), Judge()
    one = inspection(judge, inspector=inspector, pictures="cut")
    one.changed = lambda: called.append("changed")
    ended(fed(one, PICTURE))
    (copy,) = inspector.copies
    assert (one.over, one.holds) == (False, True)
    copy.waited()
    assert (one.over, one.holds, one.answer, called) == (True, False, None, ["changed"])
    one.drop()
    copy.hear(FOUND)
    copy.hear(None)
    assert [(each.gone, one.answer) for each in judge.seen[1:]] == [(True, None)]
    assert (copy.state, called) == ("ended", ["changed"])


def test_where_answers_take_long_no_picture_waits_but_is_looked_at_and_hashed() -> None:
    inspector, judge = Inspector(), Judge()
    inspector.is_behind = True
    one = ended(fed(inspection(judge, inspector=inspector, pictures="cut"), PICTURE))
    (copy,) = inspector.copies
    assert (one.over, copy.content, copy.state) == (True, PICTURE, "ended")
    assert ended(fed(inspection(Judge(PICTURE), inspector=inspector, pictures="cut"), PICTURE)).answer
    # One that is found while the body is under way ends it nevertheless.
    one = fed(inspection(judge, inspector=inspector, pictures="cut"), VIDEO + b"x" * 5000)
    inspector.copies[-1].hear(FOUND)
    assert (one.answer, one.over, judge.seen[-1].gone) == ("alike", True, False)


def test_a_picture_whose_first_bytes_have_yet_to_come_may_be_one() -> None:
    one = inspection(Judge(), algorithms=(), inspector=Inspector(), pictures="cut")
    fed(one, PICTURE[:10])
    assert one.holds
    assert not ended(one).over, "its copy is looked at"


def test_video_is_cut_while_it_is_under_way() -> None:
    inspector, called = Inspector(), list[str]()
    one = inspection(Judge(), inspector=inspector, pictures="cut", max_size=1 << 10)
    one.changed = lambda: called.append("changed")
    fed(one, VIDEO + b"x" * 5000)
    assert not one.over, "it may be larger than what is hashed"
    (copy,) = inspector.copies
    assert copy.offered == ("video", None)
    copy.hear(FOUND)
    assert (one.answer, one.over, copy.state, called) == ("alike", True, "dropped", ["changed"])


def test_what_the_inspector_gives_up_is_hashed_to_its_end() -> None:
    inspector = Inspector()
    one = inspection(Judge(PICTURE), inspector=inspector, pictures="cut")
    fed(one, PICTURE[:1000])
    inspector.copies[0].hear(None)
    assert not one.over
    assert ended(fed(one, PICTURE[1000:])).answer == "listed"


@pytest.mark.parametrize("length", [None, 5000])
def test_too_large_a_picture_is_not_decoded(length: int | None) -> None:
    inspector = Inspector()
    one = inspection(Judge(PICTURE), length=length, inspector=inspector, pictures="cut", max_picture=1 << 10)
    assert ended(fed(one, PICTURE, 500)).answer == "listed", "but hashed"
    assert [copy.state for copy in inspector.copies] == ["dropped"] * (length is None)


def test_video_is_left_alone_where_it_is_not_wanted() -> None:
    inspector = Inspector()
    ended(fed(inspection(Judge(), inspector=inspector, pictures="cut", video=False), VIDEO))
    assert not inspector.copies


def test_nobody_waits_for_a_body_any_more() -> None:
    inspector = Inspector()
    one = fed(inspection(Judge(), inspector=inspector, pictures="cut"), PICTURE)
    one.drop()
    assert inspector.copies[0].state == "dropped"
    assert one.over
