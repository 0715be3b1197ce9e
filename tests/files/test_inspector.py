"""The inspector: real processes, from a worker's copy of a body to what it hears."""

import asyncio
import gc
import io
import itertools
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, features

from conftest import in_turns, until
from files.pictures import FRAGMENTED, av, picture, video, written
from urlward.config import FilesTable
from urlward.engine.digest import Key
from urlward.engine.loaded import LoadedList, load
from urlward.files import inspection, inspector
from urlward.files.body import Inspection, facts_of
from urlward.files.inspection import BodyCopy, Inspector, PictureFound
from urlward.files.inspector import Job
from urlward.files.media import MediaFormat
from urlward.files.pdq import digests_of
from urlward.files.seen import DIGEST
from urlward.lists import memfd
from urlward.lists.build import compile_sources

KEY = Key(b"k" * 32)


def pdq(image: Image.Image) -> str:
    return digests_of(np.asarray(image))[0][:DIGEST].hex()


_numbers = itertools.count()


def listed(folder: Path, *images: Image.Image, name: str = "pictures", serial: int = 1) -> LoadedList:
    """A list of pictures like no other, with its artifact in a folder as a run folder has it."""
    source = folder / f"{name}.txt"
    lines = [f"pdq:{pdq(image)}  id=p{n}" for n, image in enumerate(images)]
    source.write_text("\n".join([*lines, f"http://listed{next(_numbers)}.example/"]) + "\n")
    data, _ = compile_sources([source], KEY, name=name, now=float(serial))
    (folder / f"{name}.ward").write_bytes(data)
    return load(data, KEY)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked at before its end because the machine is slow."""
    monkeypatch.setattr(inspection, "UNENDED", 600.0)


INSPECTOR = "from urlward.files import inspector; inspector.LIST_AGAIN = 0.2; inspector.main()"


@contextmanager
def inspecting(folder: Path, **wanted: object) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", INSPECTOR],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(folder)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(
            json.dumps({"parent": os.getpid(), "folder": str(folder), "deadline": 20.0} | wanted)
        )
        process.stdin.close()
        yield process
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def said(process: "subprocess.Popen[str]", text: str) -> str:
    """Read what it says up to a line with a text."""
    assert process.stdout is not None
    while line := await asyncio.to_thread(process.stdout.readline):
        if text in line:
            return line
    raise AssertionError(f"it has ended, and has not said {text!r}")


class Worker:
    """A worker, as far as the inspector knows it."""

    def __init__(self, folder: Path, lists: Callable[[], list[LoadedList]], **given: float) -> None:
        self.lists = lists
        self.counted: Counter[str] = Counter()
        self.troubles: list[str] = []
        given = {"most": 64, "max_size": 16 << 20, "deadline": 20.0} | given
        self.inspector = Inspector(
            folder,
            lists,
            count=lambda what: self.counted.update([what]),
            trouble=self.troubles.append,
            **given,  # type: ignore[arg-type]
        )
        self.inspector._health.said = None  # type: ignore[assignment]

    async def served(self) -> None:
        """Wait until the inspector says how it is: it does when it has heard of all sandboxes."""
        await until(lambda: self.inspector._health.said == "", "the sandboxes")

    async def look(
        self, data: bytes, media: str = "image", *, size: int = 50_000, place: str = ""
    ) -> list[PictureFound]:
        """What is found in a body that comes in parts of this size."""
        found, over = self.begin()
        copy = self.inspector.offer(media, len(data), found, place)
        assert copy is not None
        for at in range(0, len(data), size):
            copy.write(data[at : at + size])
            await asyncio.sleep(0)
        copy.end()
        await until(over.done, "what becomes of it")
        return over.result()

    async def look_for(self, channel: socket.socket, number: int) -> None:
        """A picture that is answered at once by whoever has the other end."""
        looking = asyncio.ensure_future(self.look(written(picture(1))))
        await until(lambda: number in self.inspector._asked)
        channel.sendall(json.dumps({"done": number, "how": "done"}).encode())
        await looking

    def begin(self) -> "tuple[inspection.Hear, asyncio.Future[list[PictureFound]]]":
        said: list[PictureFound] = []
        over: asyncio.Future[list[PictureFound]] = asyncio.get_running_loop().create_future()
        return (lambda each: over.set_result(said) if each is None else said.append(each)), over


@asynccontextmanager
async def working(
    folder: Path, lists: Callable[[], list[LoadedList]] | None = None, **given: float
) -> AsyncIterator[Worker]:
    made = Worker(folder, lists or list, **given)
    task = asyncio.ensure_future(made.inspector.run())
    try:
        await until(lambda: made.inspector._channel)
        yield made
    finally:
        task.cancel()
        made.inspector.close()


class Serving(NamedTuple):
    """An inspector that serves, and the folder that it serves."""

    folder: Path
    process: "subprocess.Popen[str]"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One for all tests that leave it as it was; what it says is read by `comparing` alone."""
    folder = tmp_path_factory.mktemp("serving")
    with inspecting(folder) as process:
        yield Serving(folder, process)


@asynccontextmanager
async def comparing(serving: Serving, *images: Image.Image, times: int = 1) -> AsyncIterator[Worker]:
    """A worker with a list of such pictures, so many times, which the inspector compares."""
    lists = [listed(serving.folder, *images)] * times
    async with working(serving.folder, lambda: lists) as worker:
        line = await said(serving.process, "")
        assert f"pictures are compared with {len(images)} digest" in line
        yield worker


async def test_a_picture_that_is_changed_is_found_in_the_list_that_has_it(tmp_path: Path) -> None:
    lists = [listed(tmp_path, picture(1), picture(2)), listed(tmp_path, picture(3), name="others")]
    with inspecting(tmp_path) as process:
        async with working(tmp_path, lambda: lists) as worker:
            await said(process, "list others: pictures are compared with 1 digest")
            small = picture(2).resize((320, 240))
            [found] = await worker.look(written(small, quality=60))
            assert (found.list, found.algorithm, found.frame) == ("pictures", "pdq", 0)
            assert found.distance <= 31
            assert await worker.look(written(picture(4))) == []
            assert [each.list for each in await worker.look(written(picture(3), "PNG"))] == ["others"]
    assert worker.counted == {"done": 3}


async def test_what_is_found_is_an_entry_to_the_matcher(serving: Serving) -> None:
    from urlward.engine.matcher import Matcher

    async with comparing(serving, picture(1), picture(2)) as worker:
        [found] = await worker.look(written(picture(2)))
    verdict = Matcher(worker.lists()).file_verdict(found.list, found.row, distance=found.distance)
    assert (verdict.action, verdict.entry, verdict.list) == ("block", "p1", "pictures")


async def test_any_number_of_lists_is_taken(serving: Serving) -> None:
    """Together they are more than a message has room for."""
    async with comparing(serving, picture(1), times=1_000) as worker:
        assert await worker.look(written(picture(1)))


async def test_lists_that_change_are_taken(tmp_path: Path) -> None:
    lists = [listed(tmp_path, picture(1))]
    with inspecting(tmp_path) as process:
        async with working(tmp_path, lambda: lists) as worker:
            await said(process, "compared with 1 digest")
            lists[:] = [listed(tmp_path, picture(2), picture(3), serial=2)]
            await said(process, "compared with 2 digests")
            assert await worker.look(written(picture(1))) == []
            assert await worker.look(written(picture(3)))


async def test_while_the_index_of_an_issue_is_made_the_one_before_serves(tmp_path: Path) -> None:
    lists = inspector.PictureLists(tmp_path, lambda *_: None)
    before = listed(tmp_path, picture(1)).artifact.header.checksum.hex()
    lists.make("pictures", before, KEY.secret)
    await lists._making[before]
    first = lists.get("pictures", before)
    after = listed(tmp_path, picture(2), picture(3), serial=2).artifact.header.checksum.hex()
    lists.keep({after: "pictures"})
    assert first is lists.get("pictures", after) is not None
    assert lists.get("others", after) is None
    lists.make("pictures", after, KEY.secret)
    await lists._making[after]
    second = lists.get("pictures", after)
    assert second is not None
    assert len(second) == 2
    lists.keep({})
    assert lists.get("pictures", after) is lists.get("pictures", before) is None


async def test_an_issue_that_cannot_be_read_leaves_the_one_before(tmp_path: Path) -> None:
    lists = [listed(tmp_path, picture(1))]
    with inspecting(tmp_path) as process:
        async with working(tmp_path, lambda: lists) as worker:
            await said(process, "compared with 1 digest")
            lists[:] = [listed(tmp_path, picture(1), picture(3), serial=2)]
            artifact = tmp_path / "pictures.ward"
            artifact.write_bytes(artifact.read_bytes()[:-1] + b"\0")
            await said(process, "pictures are not compared with it")
            assert [each.list for each in await worker.look(written(picture(1)))] == ["pictures"]
            lists[:] = [listed(tmp_path, picture(2), name="others")]
            await said(process, "list others: pictures are compared with 1 digest")
            assert await worker.look(written(picture(1))) == [], "it is in force no more"
            assert worker.counted == {"done": 2}


async def test_a_list_whose_artifact_is_gone_is_a_trouble_until_it_is_there(tmp_path: Path) -> None:
    lists = [listed(tmp_path, picture(1))]
    artifact = tmp_path / "pictures.ward"
    beside = artifact.rename(tmp_path / "elsewhere")
    with inspecting(tmp_path) as process:
        async with working(tmp_path, lambda: lists) as worker:
            assert await worker.look(written(picture(1))) == []
            assert worker.counted == {"dropped": 1}, "nobody has looked whether it is listed"
            await until(lambda: worker.troubles)
            beside.rename(artifact)
            await said(process, "compared with 1 digest")
            await until(lambda: len(worker.troubles) > 1)
            assert await worker.look(written(picture(1)))
    why = "list pictures: pictures are not compared with it: its artifact is not there"
    assert worker.troubles == [why, ""]


async def test_a_list_that_is_not_compared_and_is_not_in_force_any_more_is_no_trouble(tmp_path: Path) -> None:
    lists = [listed(tmp_path, picture(1))]
    (tmp_path / "pictures.ward").unlink()
    with inspecting(tmp_path):
        async with working(tmp_path, lambda: lists) as worker:
            await until(lambda: worker.troubles)
            lists.clear()
            await until(lambda: worker.troubles[-1] == "")


async def test_a_damaged_list_is_said_and_stops_nothing(tmp_path: Path) -> None:
    lists = [listed(tmp_path, picture(1)), listed(tmp_path, picture(2), name="good")]
    artifact = tmp_path / "pictures.ward"
    data = bytearray(artifact.read_bytes())
    data[-1] ^= 1
    artifact.write_bytes(data)
    with inspecting(tmp_path) as process:
        async with working(tmp_path, lambda: lists) as worker:
            assert "pictures are not compared with it" in await said(process, "list pictures")
            await said(process, "list good: pictures are compared with 1 digest")
            assert [each.list for each in await worker.look(written(picture(2)))] == ["good"]


@asynccontextmanager
async def offering(
    serving: Serving, listed: Image.Image, kind: str
) -> AsyncIterator[tuple[Worker, BodyCopy, list[PictureFound | None]]]:
    """A worker that compares with one digest, a copy that it is offered, and what is heard of that."""
    async with comparing(serving, listed) as worker:
        heard: list[PictureFound | None] = []
        copy = worker.inspector.offer(kind, None, heard.append)
        assert copy is not None
        yield worker, copy, heard


@pytest.mark.parametrize(
    ("muxer", "codec", "options"),
    in_turns(
        ("mp4", "libx264", {}),
        ("mp4", "libx264", FRAGMENTED),
        ("webm", "libvpx", {"cluster_time_limit": "1000"}),
        ("mpegts", "mpeg2video", {}),
    ),
)
async def test_a_video_that_has_no_end_is_found_as_it_comes(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, muxer: str, codec: str, options: dict[str, str]
) -> None:
    monkeypatch.setattr(inspection, "PIECE", 40_000)
    data = video([picture(n, (320, 240)) for n in range(9)], muxer, codec, options=options)
    pieces = bool(options) or muxer == "mpegts"
    async with offering(serving, picture(7, (320, 240)), "video") as (worker, copy, heard):
        for at in range(0, len(data), 8_192):
            copy.write(data[at : at + 8_192])
        if pieces:  # before it has ended
            await until(lambda: worker.counted["done"] > 1)
            assert None not in heard
        copy.end()
        await until(lambda: None in heard)
    assert heard[-1] is None
    assert {each.list for each in heard[:-1] if each} == {"pictures"}
    assert bool(worker.counted["done"] > 1) is pieces
    assert worker.counted["done"] == worker.counted.total()


@pytest.mark.skipif(not features.check("avif"), reason="needs Pillow with libavif")
async def test_a_picture_in_the_format_of_a_video_is_found(serving: Serving) -> None:
    async with comparing(serving, picture(7)) as worker:
        found = await worker.look(written(picture(7), "AVIF"), "video", place="a place")
    assert [each.list for each in found] == ["pictures"]


def in_front(data: bytes, folder: Path) -> bytes:
    """A plain MP4 file that says at its beginning where its frames are, as those on the web do."""
    path = folder / "video.mp4"
    with av.open(io.BytesIO(data)) as given, av.open(path, "w", options={"movflags": "faststart"}) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return path.read_bytes()


async def test_a_video_in_one_piece_is_found_before_its_end(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "UNENDED", 0.5)
    data = in_front(video([picture(7, (320, 240)), picture(8, (320, 240))]), tmp_path)
    async with offering(serving, picture(7, (320, 240)), "video") as (_, copy, heard):
        copy.write(data[: len(data) * 3 // 4])
        await until(lambda: heard)
        assert {each.list for each in heard if each} == {"pictures"}
        copy.drop()


@pytest.mark.parametrize("name", in_turns("JPEG", "PNG", "GIF", of=3))
async def test_a_picture_whose_end_does_not_come_is_found(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A browser shows what has come of it; more may come then, which is looked at as well, and only then."""
    monkeypatch.setattr(inspection, "UNENDED", 0.5)
    data = written(picture(7), name)
    first, more = data[: len(data) // 8], data[len(data) // 8 : -1]
    async with offering(serving, picture(7), "image") as (worker, copy, heard):
        copy.write(first)
        await until(lambda: worker.counted.total() == 1)
        assert not heard
        copy.write(more)
        await until(lambda: heard)
        assert {each.list for each in heard if each} == {"pictures"}
        await until(lambda: worker.counted.total() == 2)
        due = copy.due
        await until(lambda: copy.due > due)
        assert worker.counted.total() == 2
        copy.end()
        await until(lambda: None in heard)
        assert worker.counted.total() == 3
        assert not worker.inspector._files


@pytest.mark.parametrize(
    ("muxer", "codec", "options"),
    in_turns(
        ("mp4", "libx264", FRAGMENTED),
        ("webm", "libvpx", {"live": "1"}),
        ("mpegts", "mpeg2video", {}),
        ("mpegts", "libx264", {}),
    ),
)
async def test_a_key_frame_is_looked_at_as_soon_as_it_has_come(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, muxer: str, codec: str, options: dict[str, str]
) -> None:
    """The stream has not gone on when it is found."""
    monkeypatch.setattr(inspection, "SOON", 0.0)
    monkeypatch.setattr(inspection, "LATER", 0.0)
    data = video([picture(n, (320, 240)) for n in (1, 2, 3)], muxer, codec, options=options)
    async with offering(serving, picture(2, (320, 240)), "video") as (_, copy, heard):
        end = data.rindex(b"moof") if muxer == "mp4" else len(data) * 8 // 10
        for at in range(0, end, 2_000):
            copy.write(data[at : min(at + 2_000, end)])
        await until(lambda: heard)
        copy.drop()
    assert heard[0] is not None
    assert heard[0].list == "pictures"


@pytest.mark.parametrize(
    ("muxer", "codec", "options", "unit", "head"),
    [
        ("mp4", "libx264", FRAGMENTED, b"moof", 4),
        ("webm", "libvpx", {"cluster_time_limit": "1900"}, b"\x1f\x43\xb6\x75", 0),
    ],
)
async def test_segments_are_looked_at_with_the_beginning_from_the_same_place(
    serving: Serving, muxer: str, codec: str, options: dict[str, str], unit: bytes, head: int
) -> None:
    shown = [picture(n, (320, 240)) for n in range(3)]
    data = video(shown, muxer, codec, options=options)
    places = [at - head for at in range(len(data)) if data.startswith(unit, at)]
    segments = [data[at:to] for at, to in zip(places, [*places[1:], len(data)], strict=True)]
    async with comparing(serving, picture(2, (320, 240))) as worker:
        assert await worker.look(data[: places[0]], "video", place=muxer + "a") == []
        assert worker.counted == {}
        assert await worker.look(segments[2], "video", place=muxer + "b") == []
        assert worker.counted == {"failed": 1}
        assert await worker.look(segments[2], "video", place=muxer + "a")
        assert await worker.look(segments[0], "video", place=muxer + "a") == []
        # One that is no beginning, but as large as a video, is not kept.
        huge = data[: places[0]] + (100_000).to_bytes(4) + b"free" + bytes(99_992)
        assert await worker.look(huge, "video", place=muxer + "c") == []
        assert await worker.look(segments[2], "video", place=muxer + "c") == []


def test_a_beginning_is_remembered_while_something_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "PLACES", 2)
    now, fds = 0.0, [memfd.new() for _ in range(4)]

    def has(place: str) -> int:
        found = beginnings.get(place)
        for fd in found:
            os.close(fd)
        return len(found)

    beginnings = inspector.Beginnings(lambda: now)
    for n, place in enumerate(("watched", "left", "watched")):
        beginnings.add(place, fds[n : n + 1])
    now = inspector.FORGET - 1
    beginnings.forget()
    assert (has("watched"), has("left"), has("none")) == (2, 1, 0)
    assert has("watched") == 2
    beginnings.add("new", fds[3:])
    assert (has("watched"), has("left"), has("new")) == (2, 0, 1), "the one that was lacked last stays"
    now += inspector.FORGET - 1
    assert has("watched") == 2
    now += 1
    beginnings.forget()
    assert (has("watched"), has("new")) == (2, 0)
    now += inspector.FORGET
    beginnings.forget()
    assert has("watched") == 0
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_what_waits_has_room_in_bytes_and_pictures_go_first() -> None:
    fds, queue = [memfd.new() for _ in range(6)], inspector.Queue(4)
    told: list[str] = []
    until = time.monotonic() + 60

    def job(number: int, media: MediaFormat, size: int, until: float = until) -> Job:
        os.ftruncate(fds[number], size)
        return Job(media, [fds[number]], lambda how, _: told.append(how), until)

    first, second, third = (
        job(0, MediaFormat.TS, 6 << 20),
        job(1, MediaFormat.JPEG, 9 << 20),
        job(2, MediaFormat.PNG, 1),
    )
    late, fourth = job(3, MediaFormat.PNG, 1, time.monotonic()), job(4, MediaFormat.TS, 2 << 20)
    assert [queue.put(each) for each in (first, second, third, fourth)] == [True, True, False, True]
    assert not queue.put(job(5, MediaFormat.TS, 1 << 20))  # beside eight there is no room
    assert queue.get() is second
    assert [queue.put(each) for each in (late, third)] == [True, True]
    assert [queue.get(), queue.get(), queue.get(), queue.get()] == [third, first, fourth, None]
    assert told == ["late"]
    for fd in (*fds[:3], *fds[4:]):
        os.close(fd)


async def test_where_the_inspector_is_not_there_nothing_is_taken(tmp_path: Path) -> None:
    worker = Worker(tmp_path, list)
    assert worker.inspector.offer("image", 100, lambda _: None) is None
    assert worker.counted == {"dropped": 1}


async def test_an_inspector_that_is_killed_is_waited_for_by_nobody(
    tmp_path: Path,
) -> None:
    loaded = listed(tmp_path, picture(1))
    (tmp_path / "slow.py").write_text("import time\ndef score(pixels):\n    time.sleep(3600)\n")
    with inspecting(tmp_path, classifier="slow:score", deadline=60.0) as process:
        async with working(tmp_path, lambda: [loaded]) as worker:
            found, over = worker.begin()
            copy = worker.inspector.offer("image", 100, found)
            assert copy is not None
            copy.write(written(picture(1)))
            copy.end()
            process.send_signal(signal.SIGKILL)
            await until(over.done, "what becomes of it")
            assert over.result() == []
            assert worker.counted == {"dropped": 1}
            with inspecting(tmp_path) as another:
                await said(another, "compared with 1 digest")
                await until(lambda: worker.inspector._channel)
                assert await worker.look(written(picture(1)))


async def test_what_there_is_no_room_for_is_passed_over_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ndef score(pixels):\n    time.sleep(3600)\n")
    with inspecting(tmp_path, classifier="slow:score", deadline=2.0, queue=2):
        async with working(tmp_path) as worker:
            begun = [asyncio.ensure_future(worker.look(written(picture(1)))) for _ in range(8)]
            await until(lambda: worker.counted["dropped"] >= 5)
            await asyncio.gather(*begun)
    # One is under way and two wait, or all that wait came before the first was taken.
    assert worker.counted["late"] in (2, 3)
    assert worker.counted.total() == 8


async def test_copies_take_no_more_memory_than_there_is_room_for(serving: Serving) -> None:
    async with working(serving.folder, most=1, max_size=1 << 20) as worker:
        copies = [worker.inspector.offer("image", None, lambda _: None) for _ in range(8)]
        for copy in copies:
            assert copy is not None
            copy.write(b"\xff\xd8\xff" + bytes(900_000))
        assert worker.counted == {"dropped": 8 - 3}
        for copy in copies:
            assert copy is not None
            copy.drop()
        assert worker.inspector.reserve(3 << 20)


async def test_copies_leave_files_to_connections(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "FILES_SHARE", -(-resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3))
    async with working(serving.folder) as worker:
        # Small ones, whose content is yet to come: a client may have a hundred on a connection.
        copies = [worker.inspector.offer("image", None, lambda _: None) for _ in range(8)]
        for copy in copies:
            assert copy is not None
            copy.write(b"\xff\xd8\xff" + bytes(500))
        assert worker.counted == {"dropped": 8 - 3}
        for copy in copies:
            assert copy is not None
            copy.drop()
        worker.counted.clear()
        for _ in range(8):
            await worker.look(written(picture(1)))
        assert worker.counted == {"done": 8}, "one after another there is room"


class _Passes:
    """A judge who lets all pass."""

    def exact(self, *_: object) -> None: ...
    def so_far(self, *_: object) -> None: ...
    def alike(self, *_: object) -> None: ...
    def unseen(self) -> None: ...


@pytest.mark.parametrize("how", ["dropped", "released", "answered", "given up"])
@pytest.mark.parametrize("data", [b"\xff\xd8\xff" + bytes(5_000), b"\x1a\x45\xdf\xa3" + bytes(5_000)])
async def test_nothing_of_a_body_waits_for_the_collector(tmp_path: Path, how: str, data: bytes) -> None:
    """A worker's runs seldom, and a megabyte of each video may wait for it."""
    facts = facts_of(200, [(b"Content-Type", b"image/jpeg")], None)
    assert facts is not None
    with hanging(tmp_path) as listening:
        async with working(tmp_path) as worker:
            channel, _ = listening.accept()
            gc.collect()
            gc.freeze()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                table = FilesTable(pictures="cut")
                one = Inspection(facts, table, ("sha256",), _Passes(), worker.inspector)
                one.feed(data)
                if how == "given up":
                    worker.inspector.max_size = 1
                    one.feed(data)
                if how in ("released", "answered"):
                    one.end()
                if how == "answered":
                    channel.sendall(b'{"done": 1, "how": "done"}')
                    await until(lambda one=one: one.over)  # type: ignore[misc]
                one.drop()
                del one
                if how in ("released", "given up"):
                    worker.inspector.close()
                await until(lambda: not worker.inspector._asked)
                worker.inspector._awaited.clear()
                await asyncio.sleep(0)
                gc.collect()
                left = {type(each).__name__ for each in gc.garbage}
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                channel.close()
    assert not left & {"Inspection", "BodyCopy", "Splitter"}


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content


async def test_what_pieces_of_a_video_begin_with_takes_room_for_as_long_as_it_is_kept(
    serving: Serving,
) -> None:
    beginning = box(b"ftyp", b"isom" * 3) + box(b"moov", bytes(900_000))
    piece = box(b"moof", bytes(100)) + box(b"mdat", bytes(1_000))
    async with working(serving.folder, most=1, max_size=1 << 20) as worker:
        copies = [worker.inspector.offer("video", None, lambda _: None) for _ in range(6)]
        for number, copy in enumerate(copies):
            assert copy is not None
            copy.write(beginning + piece)
            # The piece is answered, no more comes, and the body goes on.
            await until(lambda number=number: worker.counted.total() > number)  # type: ignore[misc]
        assert worker.counted == {"failed": 2, "dropped": 4}
        assert not worker.inspector.reserve(2 << 20)
        for copy in copies:
            assert copy is not None
            copy.drop()
        assert worker.inspector.reserve(3 << 20)


@contextmanager
def hanging(folder: Path) -> Iterator[socket.socket]:
    """An inspector that takes in nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(folder / inspection.SOCKET))
        listening.listen()
        yield listening


async def test_what_is_handed_over_takes_room_until_it_is_answered(tmp_path: Path) -> None:
    with hanging(tmp_path):
        async with working(tmp_path, most=1, max_size=1 << 20) as worker:
            for _ in range(8):
                copy = worker.inspector.offer("image", None, lambda _: None)
                assert copy is not None
                copy.write(b"\xff\xd8\xff" + bytes(900_000))
                copy.end()
            assert worker.counted == {"dropped": 8 - 3}
            worker.inspector.close()
            assert worker.inspector.reserve(3 << 20)


async def test_nobody_waits_for_an_inspector_that_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "WAITS", 0.0)
    with hanging(tmp_path) as listening:
        async with working(tmp_path) as worker:
            channel, _ = listening.accept()
            with channel:
                waited, heard = list[str](), list[PictureFound | None]()
                copy = worker.inspector.offer("image", None, heard.append)
                assert copy is not None
                copy.waited = lambda: waited.append("waited")
                copy.write(written(picture(1)))
                assert not worker.inspector.is_behind
                copy.end()
                await until(lambda: worker.inspector.is_behind)
                assert (waited, heard) == (["waited"], [])
                # It is behind until one answer has come in time.
                channel.sendall(b'{"done": 1, "how": "done"}')
                await until(lambda: heard)
                assert worker.inspector.is_behind
                worker.inspector._waits = 30.0
                await worker.look_for(channel, 2)
                assert not worker.inspector.is_behind
                assert (waited, heard) == (["waited"], [None])


async def test_what_is_handed_over_before_its_end_cannot_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on where it was, and whoever decodes what has come of it has no way to write there."""
    monkeypatch.setattr(inspection, "UNENDED", 0.1)
    data = b"\xff\xd8\xff" + bytes(1_000)
    with hanging(tmp_path) as listening:
        async with working(tmp_path) as worker:
            channel, _ = listening.accept()
            with channel:
                copy = worker.inspector.offer("image", None, lambda _: None)
                assert copy is not None
                copy.write(data)
                await until(lambda: worker.inspector._asked)
                _, [fd], _, _ = socket.recv_fds(channel, 1 << 16, 1)
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.pwrite(fd, b"x", 0)
                for change in (partial(os.ftruncate, fd, 3), partial(mmap.mmap, fd, 4, mmap.MAP_SHARED)):
                    with pytest.raises(OSError):
                        change()
                copy.write(b"more")
                assert os.pread(fd, 1 << 16, 0) == data + b"more"
                os.close(fd)
                copy.drop()
                channel.sendall(json.dumps({"done": 1, "how": "done"}).encode())
                await until(lambda: not worker.inspector._asked)
                assert worker.inspector._room == 64 * inspection.ROOM + (16 << 20)


async def test_what_is_handed_over_cannot_be_changed(tmp_path: Path) -> None:
    """Whoever decodes it may be taken over by it, and others read it too."""
    begins = b"\0\0\0\x10ftypiso5iso5" + b"\0\0\0\x08moov"
    with hanging(tmp_path) as listening:
        async with working(tmp_path) as worker:
            channel, _ = listening.accept()
            with channel:
                for data in (b"\xff\xd8\xff" + bytes(1_000), begins):
                    copy = worker.inspector.offer("video", None, lambda _: None, "place")
                    assert copy is not None
                    copy.write(data)
                    copy.end()
                said = dict[str, bytes]()
                while len(said) < 2:
                    text, [fd], _, _ = socket.recv_fds(channel, 1 << 16, 1)
                    said[next(iter(json.loads(text)))] = os.pread(fd, 1 << 16, 0)
                    with pytest.raises(PermissionError):
                        os.pwrite(fd, b"x", 0)
                    with pytest.raises(PermissionError):
                        mmap.mmap(fd, 4, mmap.MAP_SHARED)
                    os.close(fd)
    assert said == {"look": b"\xff\xd8\xff" + bytes(1_000), "begins": begins}


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"no picture at all" * 100, b"\xff\xd8\xff" + bytes(2 << 20)],
    ids=["empty", "a byte", "no picture", "too large"],
)
async def test_what_is_no_picture_or_too_large_is_over_at_its_end(serving: Serving, data: bytes) -> None:
    async with working(serving.folder, max_size=1 << 20) as worker:
        assert await worker.look(data) == []
    assert worker.counted == {"failed": 1}


async def test_after_a_drop_nothing_is_said(serving: Serving) -> None:
    async with comparing(serving, picture(1)) as worker:
        heard: list[PictureFound | None] = []
        for ends in (False, True):
            copy = worker.inspector.offer("image", None, heard.append)
            assert copy is not None
            copy.write(written(picture(1)))
            if ends:
                copy.end()
            copy.drop()
            copy.write(b"more")
            copy.end()
        assert await worker.look(written(picture(1)))
    assert heard == []
    assert worker.counted == {"done": 2}


async def test_a_score_is_told_from_the_threshold_on(tmp_path: Path) -> None:
    code = "def score(pixels):\n    return pixels.mean() / 255\n"
    (tmp_path / "bright.py").write_text(code)
    with inspecting(tmp_path, classifier="bright:score", threshold=0.5):
        async with working(tmp_path) as worker:
            bright, dark = (Image.new("RGB", (64, 64), (level,) * 3) for level in (204, 51))
            [found] = await worker.look(written(bright, "PNG"))
            assert (found.list, found.algorithm, round(found.score, 3)) == ("", "classifier", 0.8)
            assert await worker.look(written(dark, "PNG")) == []


async def test_no_sandbox_has_secrets_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URLWARD_TEST_SECRET", "postgresql://u:p@db.example/records")
    monkeypatch.setenv("URLWARD_TEST_MODEL", "of the classifier")
    (tmp_path / "seen.py").write_text(
        "import os\nHAS = [name in os.environ for name in ('URLWARD_TEST_SECRET', 'URLWARD_TEST_MODEL')]\n"
        "def score(pixels):\n    return {(False, True): 0.8, (True, True): 0.9}[tuple(HAS)]\n"
    )
    with inspecting(
        tmp_path, classifier="seen:score", threshold=0.5, without=["URLWARD_TEST_SECRET", "NONE"]
    ):
        async with working(tmp_path) as worker:
            (found,) = await worker.look(written(picture(1)))
            assert round(found.score, 3) == 0.8


async def test_a_classifier_that_fails_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("def score(pixels):\n    raise ValueError\n")
    loaded = listed(tmp_path, picture(1))
    with inspecting(tmp_path, classifier="wrong:score") as process:
        async with working(tmp_path, lambda: [loaded]) as worker:
            await said(process, "compared with 1 digest")
            for _ in range(3):
                assert [each.algorithm for each in await worker.look(written(picture(1)))] == ["pdq"]
            await said(process, "files: the classifier wrong:score fails: there is no score")
            process.terminate()
            assert "fails" not in process.stdout.read()  # type: ignore[union-attr]


async def test_a_classifier_that_is_not_there_leaves_pictures_alone_and_says_so(tmp_path: Path) -> None:
    with inspecting(tmp_path, classifier="nowhere:score") as process:
        async with working(tmp_path) as worker:
            why = "pictures are not looked at: files.classifier: nowhere:score"
            await said(process, f"files: {why}")
            assert await worker.look(written(picture(1))) == []
            await until(lambda: worker.troubles)
            async with working(tmp_path) as later:  # whoever comes later is told too
                await until(lambda: later.troubles)
    assert worker.counted == {"dropped": 1}
    assert [each.startswith(why) for each in worker.troubles + later.troubles] == [True, True]


async def test_a_classifier_that_its_package_does_not_have_is_said(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("def guess(pixels):\n    return 0.0\n")
    with inspecting(tmp_path, classifier="other:score") as process:
        await said(process, "files.classifier: other:score: there is no such function")


@pytest.mark.parametrize("missing", in_turns("numpy", "pdqhash", "faiss", "av", "threatexchange"))
async def test_without_the_extra_a_line_says_so_and_nothing_breaks(tmp_path: Path, missing: str) -> None:
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('not there', name='{missing}')")
    loaded = listed(tmp_path, picture(1))
    with inspecting(tmp_path) as process:
        async with working(tmp_path, lambda: [loaded]) as worker:
            if missing in ("numpy", "faiss", "threatexchange"):
                text = f"pictures are not compared with it: {missing} is not there (the extra `files`)"
                line = await said(process, text)
                assert line.startswith("files: list ")
            else:
                await said(process, "the extra files is not installed")
            assert await worker.look(written(picture(1))) == []
            await until(lambda: any("extra" in each for each in worker.troubles))
        assert process.poll() is None, "it would be replaced, again and again"
        process.terminate()
        assert "Traceback" not in process.stdout.read()  # type: ignore[union-attr]


async def test_an_inspector_without_descriptors_drops_what_comes_and_goes_on(tmp_path: Path) -> None:
    lists = [listed(tmp_path, picture(1))]
    with inspecting(tmp_path) as process:
        async with working(tmp_path, lambda: lists) as worker:
            await said(process, "compared with 1 digest")
            assert await worker.look(written(picture(1)))
            before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            # Those that it has stay open.
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1, before[1]))
            for place in ("", "place"):
                assert await worker.look(written(picture(1)), place=place) == []
            assert worker.counted == {"done": 1, "dropped": 2}
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
            assert await worker.look(written(picture(1)))
        process.terminate()
        assert process.stdout is not None
        assert not await asyncio.to_thread(process.stdout.read), "no traceback for each"


async def test_a_sandbox_that_is_killed_is_replaced(tmp_path: Path) -> None:
    loaded = listed(tmp_path, picture(1))
    with inspecting(tmp_path) as process:
        async with working(tmp_path, lambda: [loaded]) as worker:
            await said(process, "compared with 1 digest")
            assert await worker.look(written(picture(1)))
            [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGKILL)
            await said(process, "files: a sandbox has ended")
            assert await worker.look(written(picture(1)))
    assert worker.troubles == []


async def test_a_sandbox_that_ends_again_and_again_is_a_trouble(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    with inspecting(tmp_path, classifier="short:score"):
        async with working(tmp_path) as worker:
            await until(lambda: worker.troubles)
    assert worker.troubles == ["a sandbox ends again and again: pictures are hardly looked at"]


@pytest.mark.parametrize("serves", [True, False])
async def test_a_sandbox_that_lives_long_and_is_never_ready_is_a_trouble(
    monkeypatch: pytest.MonkeyPatch, serves: bool
) -> None:
    """One that has served for a while, and ends now and then, is none."""
    monkeypatch.setattr(inspector, "STEADY", 0.0)
    monkeypatch.setattr(inspector, "BACKOFF", (0.0,))
    ended, troubles = 0, list[str]()

    def started(**_: object) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        nonlocal ended
        ended += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if serves:
                theirs.send(b'{"ready": true}')
            return subprocess.Popen(["sleep", "0.1"], pass_fds=[theirs.fileno()]), ours

    monkeypatch.setattr(inspector, "started", started)
    one = inspector.SandboxHandle(inspector.Wanted(), inspector.Queue(1), troubles.append)
    one.start()
    try:
        await until(lambda: ended > inspector.OFTEN + 3)
        assert any("again and again" in each for each in troubles) is not serves
    finally:
        one.end()


def test_what_is_not_looked_at_is_a_trouble_as_long_as_it_is() -> None:
    told: list[str] = []
    health = inspection.InspectionHealth(told.append, 0.0)

    def minute(at: float, connected: float | None, **counts: int) -> list[str]:
        for how, count in counts.items():
            for _ in range(count):
                health.count(how)
        health.look(at, connected)
        taken, told[:] = [*told], []
        return taken

    assert minute(30, 0) == []
    assert minute(89, 80) == []  # another in its place
    [gone] = minute(90, 80)  # and another, none of which has lasted
    assert "no inspector serves" in gone
    assert minute(110, 80) == [""]
    assert minute(165, None, dropped=2, done=9) == minute(400, 200, late=1, done=8) == []
    [full] = minute(460, 200, failed=2, late=1)
    assert "passed over" in full
    assert minute(520, 200, dropped=1) == minute(580, 200, late=1, done=8) == []
    health.said = "the classifier fails"
    assert minute(590, 200) == ["the classifier fails"]
    health.said = ""
    assert minute(591, 200) == [full]
    assert minute(640, 200) == [""]


async def test_malicious_files_do_not_keep_others_from_being_looked_at(tmp_path: Path) -> None:
    """What hangs and what breaks: others have their turn, in a second sandbox and between them."""
    code = """
        import ctypes, time

        def score(pixels):
            if pixels[..., 0].min() > 250:
                time.sleep(3600)
            if pixels[..., 1].min() > 250:
                ctypes.string_at(0)
            return 0
    """
    (tmp_path / "trap.py").write_text(textwrap.dedent(code))
    loaded = listed(tmp_path, picture(1))
    hangs, breaks = (written(Image.new("RGB", (64, 64), colour), "PNG") for colour in ("#ff0000", "#00ff00"))
    with inspecting(tmp_path, classifier="trap:score", deadline=6.0, processes=2, queue=100) as process:
        async with working(tmp_path, lambda: [loaded]) as worker:
            await said(process, "compared with 1 digest")
            await worker.served()
            bodies = [hangs, breaks, written(picture(1)), breaks, hangs, written(picture(1))]
            found = await asyncio.gather(*map(worker.look, bodies))
    assert [bool(each) for each in found] == [False, False, True, False, False, True]
    assert worker.counted == {"late": 2, "failed": 2, "done": 2}
