"""Inspector: the process that compares pictures and video with the digests of lists, beside the filter.

It decodes nothing itself (`urlward.files.sandbox`), and no worker waits for it (`urlward.files.inspection`).
Workers connect to a socket in the run folder that keeps the bounds of messages, each a JSON object:

===============================================  =====================================================
a worker says                                    it says
===============================================  =====================================================
``lists``: those in force that have PDQ          ``found``: that number, with ``list``, ``row``,
digests: a file with name, checksum and key each ``distance``, ``at``; or with ``score`` and ``at``
``look``: a number, with ``format``, and the     ``done``: that number, with ``how``; once for each
content in a file; perhaps with ``place``, for
which beginnings are remembered
``begins``: a place, with what other content    ``trouble``: why not all is looked at; empty where it is
there lacks, in a file
===============================================  =====================================================

Lists are read from the run folder, where what workers have in force lies. There is room for a number of
pictures, and for as many pieces of video; what more comes is passed over at once.

On standard input it is given one JSON object: ``parent``, ``channel``, ``folder``, members of `Wanted`, and
``without``, variables of the environment that hold what is secret: no sandbox has them.
"""

import asyncio
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from urlward.engine.artifact import HEADER_SIZE, parse, read_header
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.table import perceptual_list
from urlward.files.inspection import ROOM, SOCKET
from urlward.files.media import MediaFormat
from urlward.files.pdq import QUALITY, Index, PdqMatch
from urlward.files.sandbox import started
from urlward.files.seen import (
    DONE,
    DROPPED,
    FAILED,
    FAULT,
    LATE,
    MOST_RECORDS,
    PDQ,
    SCORE,
    FrameSeen,
    seen_in,
)
from urlward.lists.run_folder import mapped
from urlward.logs import LineHandler
from urlward.process import beat, give_way, keep_private, received, taken_channel, told
from urlward.units import counted

if TYPE_CHECKING:
    import subprocess

logger = logging.getLogger("urlward")

PLACES, BEGINNINGS = 64, 4
"""Places whose beginnings are remembered, and how many of each."""

FORGET, LOOK = 600.0, 60.0
"""Seconds for which one is remembered that nothing lacks, and between two looks for such."""

NICE = 10

OOM_SCORE = "500"
"""By how much sooner the kernel ends it than others where memory is short, of 1,000 (proc(5))."""

BACKOFF = (0.0, 0.5, 2.0, 10.0, 60.0)
"""Seconds before a sandbox is started again, after one end in a row and more."""

STEADY = 30.0
"""Seconds that it has to serve for its end not to count as one in a row."""

OFTEN = 2
"""Ends in a row beyond which that is a trouble."""

START_WITHIN = 60.0
"""Seconds after which one that is not ready is a trouble."""

LIST_AGAIN = 10.0
"""Seconds until the index of a list is tried again that could not be made."""

GRACE = 5.0
"""Seconds beyond its deadline after which a sandbox that has not answered is ended."""

MOST_TROUBLE = 2_000
"""Characters of what is said to be wrong."""

FAULT_FOR = 60.0
"""Seconds without a fault after which a classifier does not fail any more."""


class Wanted(NamedTuple):
    """Configuration of the inspector.

    Attributes:
        processes: sandboxes.
        deadline: seconds for a picture.
        queue: pictures that may wait, and pieces of video.
        video: whether that is decoded.
        classifier: ``package:function``, or empty.
        threshold: the score from which on it is told.
        strictly: whether sandboxes have to be confined in every way.
    """

    processes: int = 1
    deadline: float = 5.0
    queue: int = 64
    video: bool = True
    classifier: str = ""
    threshold: float = 0.9
    strictly: bool = True


class Job(NamedTuple):
    """Content to be looked at.

    Attributes:
        media: its format.
        fds: of files with the content, and with beginnings that it may lack.
        told: hears what became of it, and what was seen.
        until: when it is not worth looking at any more, on a clock that does not go back.
    """

    media: MediaFormat
    fds: Sequence[int]
    told: Callable[[str, list[FrameSeen]], None]
    until: float

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return os.fstat(self.fds[0]).st_size

    def over(self, how: str, seen: "list[FrameSeen] | None" = None) -> None:
        """Close the files, and tell."""
        for fd in self.fds:
            os.close(fd)
        self.told(how, seen or [])


class Queue:
    """Content that waits, pictures before video.

    Args:
        most: pictures for which there is room, and pieces of video; each has `ROOM` bytes on average, though
            one alone may have more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._room = {False: most * ROOM, True: most * ROOM}
        """Bytes that are left for pictures, and for video."""
        self._pictures: deque[Job] = deque()
        self._video: deque[Job] = deque()

    def put(self, job: Job) -> bool:
        """Add a job at the end; False where there is no room."""
        waiting = self._video if job.media.is_video else self._pictures
        if len(waiting) >= self._most or (waiting and self._room[job.media.is_video] < job.size):
            return False
        self._room[job.media.is_video] -= job.size
        waiting.append(job)
        return True

    def get(self) -> Job | None:
        """Take the next one that is still worth it."""
        while waiting := self._pictures or self._video:
            job = waiting.popleft()
            self._room[job.media.is_video] += job.size
            if time.monotonic() < job.until:
                return job
            job.over(LATE)
        return None


class SandboxHandle:
    """A sandbox, and its replacement when it ends.

    Args:
        wanted: how it is configured.
        queue: where its jobs come from.
        trouble: is told why it does not serve; of nothing where it does.
    """

    def __init__(self, wanted: Wanted, queue: Queue, trouble: Callable[[str], None]) -> None:
        self._wanted = wanted
        self._queue = queue
        self._trouble = trouble
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._job: Job | None = None
        self._ready = False
        self._ready_at = float("inf")
        """When it was."""
        self._failures = 0
        self._late: asyncio.TimerHandle | None = None
        self.refused = ""
        """Why there is none; empty where there is, or is to be."""

    def start(self) -> None:
        """Start it."""
        loop = asyncio.get_running_loop()
        self._ready_at = float("inf")
        wanted = self._wanted
        try:
            self._process, ours = started(
                deadline=wanted.deadline,
                video=wanted.video,
                classifier=wanted.classifier,
                strictly=wanted.strictly,
            )
        except OSError as e:
            self._trouble(f"no process for a sandbox: {e.strerror or e}; tried again")
            loop.call_later(BACKOFF[-1], self.start)
            return
        ours.setblocking(False)
        self._channel = ours
        loop.add_reader(ours, self._hear)
        loop.call_later(START_WITHIN, self._look_at_start, self._process)

    def pump(self) -> None:
        """Take the next job, if there is one and none under way."""
        while self._ready and self._job is None and (job := self._queue.get()) is not None:
            assert self._channel is not None
            try:
                socket.send_fds(self._channel, [json.dumps({"format": job.media}).encode()], job.fds)
            except OSError:
                job.over(DROPPED)  # it has ended, as is heard next
                continue
            self._job = job
            self._late = asyncio.get_running_loop().call_later(self._wanted.deadline + GRACE, self._kill)

    def end(self) -> None:
        """End it for good."""
        self._ready = False
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _hear(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(2 * MOST_RECORDS)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
        elif self._job is None:
            said = json.loads(data)
            self._ready, self.refused = "ready" in said, said.get("refused", "")
            self._ready_at = time.monotonic()
            if self.refused:
                self._trouble(f"pictures are not looked at: {self.refused}")
            elif self._failures <= OFTEN:
                self._trouble("")
            else:
                asyncio.get_running_loop().call_later(STEADY, self._is_steady, self._process)
        else:
            how, _, records = data.partition(b"\n")
            self._over(how.decode(), list(seen_in(records)))
        self.pump()

    def _look_at_start(self, process: object) -> None:
        if process is self._process and not self._ready:
            self._trouble(f"pictures are not looked at: a sandbox is not ready after {START_WITHIN:.0f} s")

    def _is_steady(self, process: object) -> None:
        if process is self._process:
            self._trouble("")

    def _over(self, how: str, seen: "list[FrameSeen] | None" = None) -> None:
        if self._late is not None:
            self._late.cancel()
        job, self._job = self._job, None
        if job is not None:
            job.over(how, seen)

    def _ended(self) -> None:
        self.end()
        self._over(FAILED)
        if self.refused:
            while (job := self._queue.get()) is not None:
                job.over(DROPPED)
            return
        self._failures = 0 if time.monotonic() - self._ready_at > STEADY else self._failures + 1
        wait = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        logger.error("files: a sandbox has ended; another is started in %.1f s", wait)
        if self._failures > OFTEN:
            self._trouble("a sandbox ends again and again: pictures are hardly looked at")
        asyncio.get_running_loop().call_later(wait, self.start)


class PictureLists:
    """Indexes of the lists that workers have in force, by the checksum of the artifact.

    Args:
        folder: the run folder.
        trouble: is told of a checksum why there is no index of it, and of nothing once that is over.
    """

    def __init__(self, folder: Path, trouble: Callable[[str, str], None]) -> None:
        self._folder = folder
        self._trouble = trouble
        self._indexes: dict[str, Index] = {}
        self._latest: dict[str, Index] = {}
        """The one made last of each list, which serves until that of its next issue is there."""
        self._making: dict[str, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()

    def get(self, name: str, checksum: str) -> Index | None:
        """Index of a list, or of the issue before while it is made; None where there is neither."""
        return self._indexes.get(checksum) or self._latest.get(name)

    def keep(self, lists: Mapping[str, str]) -> None:
        """Forget all others.

        Args:
            lists: names by checksum.
        """
        for gone in self._indexes.keys() - lists.keys():
            del self._indexes[gone]
        for over in self._latest.keys() - set(lists.values()):
            del self._latest[over]
        for gone in self._making.keys() - lists.keys():
            self._making.pop(gone).cancel()
            self._trouble(gone, "")

    def make(self, name: str, checksum: str, key: bytes) -> None:
        """Have the index of a list made, where it is not there."""
        if checksum not in self._indexes and checksum not in self._making:
            making = self._make(name, checksum, key)
            self._making[checksum] = asyncio.get_running_loop().create_task(making)

    async def _make(self, name: str, checksum: str, key: bytes) -> None:
        while (index := await self._tried(name, checksum, key)) is None:
            await asyncio.sleep(LIST_AGAIN)
        self._indexes[checksum] = self._latest[name] = index
        del self._making[checksum]
        self._trouble(checksum, "")

    async def _tried(self, name: str, checksum: str, key: bytes) -> Index | None:
        async with self._lock:
            start = time.monotonic()
            try:
                index = await asyncio.to_thread(self._made, checksum, key)
                why = "its artifact is not there" if index is None else ""
            except (UrlwardError, OSError, MemoryError) as e:
                index, why = None, str(e) or "no memory for it"
            except ImportError as e:
                index, why = None, f"{e.name} is not there (the extra `files`)"
        if index is None:
            self._trouble(checksum, f"list {name}: pictures are not compared with it: {why}")
            return None
        digests, seconds = counted(len(index), "digest"), time.monotonic() - start
        logger.info("files: list %s: pictures are compared with %s, after %.1f s", name, digests, seconds)
        return index

    def _made(self, checksum: str, key: bytes) -> Index | None:
        for path in self._folder.glob("*.ward"):
            with suppress(FileNotFoundError), path.open("rb") as file:
                if read_header(file.read(HEADER_SIZE)).checksum.hex() != checksum:
                    continue
                listed = perceptual_list(parse(mapped(path)), Key(key))
                if listed is not None:
                    return Index(listed.digests, listed.distances, listed.rows)
        return None


class Beginnings:
    """Beginnings that other content of a place lacks, such as segments of a stream, while they come.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places: OrderedDict[str, tuple[float, deque[int]]] = OrderedDict()
        """When each was lacked or came, the one that was so last at the end, and files."""

    def add(self, place: str, fds: Sequence[int]) -> None:
        """Remember one of a place."""
        there = self._used(place)
        there.extend(fds)
        while len(there) > BEGINNINGS:
            os.close(there.popleft())
        if len(self._places) > PLACES:
            self._drop()

    def get(self, place: str) -> list[int]:
        """Those of a place, the newest first, the caller's to close; fewer where files run short."""
        found = list[int]()
        if place in self._places:
            with suppress(OSError):
                for fd in reversed(self._used(place)):
                    found.append(os.dup(fd))
        return found

    def forget(self) -> None:
        """Forget those that nothing has lacked for a while."""
        while self._places and next(iter(self._places.values()))[0] <= self._clock() - FORGET:
            self._drop()

    def _used(self, place: str) -> deque[int]:
        _, there = self._places.pop(place, (0.0, deque[int]()))
        self._places[place] = self._clock(), there
        return there

    def _drop(self) -> None:
        for fd in self._places.popitem(last=False)[1][1]:
            os.close(fd)


class WorkerPeer:
    """Connection of a worker.

    Args:
        inspector: whose it is.
        channel: to the worker.
    """

    def __init__(self, inspector: "InspectorProcess", channel: socket.socket) -> None:
        self._inspector = inspector
        self._channel = channel
        self.lists: dict[str, str] = {}
        """Names by checksum."""

    def hear(self) -> None:
        """Take in what it says."""
        if (message := received(self._channel, 1)) is None:
            return
        data, fds = message
        if not data:
            self._inspector.gone(self)
            return
        said = json.loads(data)
        if not fds:
            # What came with it is lost: this process has no descriptor left for it.
            if "look" in said:
                self.tell({"done": said["look"], "how": DROPPED})
            elif "lists" in said:
                self._inspector.gone(self)  # it begins anew, with them
        elif "lists" in said:
            with os.fdopen(fds[0], "rb") as file:
                file.seek(0)
                lists = json.load(file)
            self.lists = {checksum: name for name, checksum, _ in lists}
            self._inspector.take_lists(lists)
        elif "begins" in said:
            self._inspector.beginnings.add(said["begins"], fds)
        elif "look" in said:
            beginnings = self._inspector.beginnings.get(said["place"]) if "place" in said else []
            told = partial(self._looked, said["look"])
            until = time.monotonic() + 2 * self._inspector.wanted.deadline
            self._inspector.take(Job(MediaFormat(said["format"]), [*fds, *beginnings], told, until))

    def _looked(self, number: int, how: str, seen: list[FrameSeen]) -> None:
        task = asyncio.get_running_loop().create_task(self._compare(number, how, seen))
        self._inspector.tasks.add(task)
        task.add_done_callback(self._inspector.tasks.discard)

    async def _compare(self, number: int, how: str, seen: list[FrameSeen]) -> None:
        asked = [each for each in seen if each.kind == PDQ and each.value >= QUALITY]
        for checksum, name in [*self.lists.items()] if asked else ():
            index = self._inspector.lists.get(name, checksum)
            if index is None:
                how = DROPPED if how == DONE else how  # nobody has looked whether that list has it
                continue
            for match in await asyncio.to_thread(index.search, b"".join(each.digests for each in asked)):
                self._tell_of(number, name, match, asked[match.query].at)
        scores = [
            each for each in seen if each.kind == SCORE and each.value >= self._inspector.wanted.threshold
        ]
        if scores:
            highest = max(scores, key=lambda each: each.value)
            self.tell({"found": number, "score": highest.value, "at": highest.at})
        kinds = {each.kind for each in seen}
        if kinds & {FAULT, SCORE}:
            self._inspector.scored(fails=FAULT in kinds)
        self.tell({"done": number, "how": how})

    def _tell_of(self, number: int, name: str, match: PdqMatch, at: float) -> None:
        self.tell({"found": number, "list": name, "row": match.row, "distance": match.distance, "at": at})

    def tell(self, message: Mapping[str, object]) -> None:
        """Say something to it, unless it has ended or does not listen."""
        with suppress(OSError):
            self._channel.send(json.dumps(message).encode())

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class InspectorProcess:
    """The inspector.

    Args:
        folder: the run folder.
        wanted: how it is configured.
    """

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self.wanted = wanted
        self.lists = PictureLists(folder, self._trouble)
        self.beginnings = Beginnings()
        self.tasks: set[asyncio.Task[None]] = set()
        self._path = folder / SOCKET
        self._workers: set[WorkerPeer] = set()
        self._queue = Queue(wanted.queue)
        self._sandboxes = [
            SandboxHandle(wanted, self._queue, partial(self._trouble, f"sandbox {number}"))
            for number in range(wanted.processes)
        ]
        self._unknown = {f"sandbox {number}" for number in range(wanted.processes)}
        """Sandboxes of which nobody knows yet whether they serve: until then nothing is said."""
        self._troubles: dict[str, str] = {}
        self._fault_at = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until stopped.

        Raises:
            OSError: the socket cannot be had.
        """
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.setblocking(False)
            beside = self._path.with_suffix(".new")
            beside.unlink(missing_ok=True)
            listening.bind(str(beside))
            listening.listen(64)
            beside.replace(self._path)  # in place of one that was there before
            loop.add_reader(listening, self._accept, listening)
            self._tidy(loop)
            for sandbox in self._sandboxes:
                sandbox.start()
            try:
                await stop.wait()
            finally:
                loop.remove_reader(listening)
                for sandbox in self._sandboxes:
                    sandbox.end()
                for worker in [*self._workers]:
                    self.gone(worker)

    def _tidy(self, loop: asyncio.AbstractEventLoop) -> None:
        self.beginnings.forget()
        loop.call_later(LOOK, self._tidy, loop)

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            channel, _ = listening.accept()
            channel.setblocking(False)
            worker = WorkerPeer(self, channel)
            self._workers.add(worker)
            asyncio.get_running_loop().add_reader(channel, worker.hear)
            self._tell_of_troubles([worker])

    def gone(self, worker: WorkerPeer) -> None:
        """Forget a worker that has ended."""
        self._workers.discard(worker)
        asyncio.get_running_loop().remove_reader(worker._channel)
        worker.close()
        self._forget_lists()

    def take_lists(self, lists: Sequence[tuple[str, str, str]]) -> None:
        """Have the indexes of lists made."""
        self._forget_lists()
        for name, checksum, key in lists:
            self.lists.make(name, checksum, bytes.fromhex(key))

    def _forget_lists(self) -> None:
        self.lists.keep({sum_: name for worker in self._workers for sum_, name in worker.lists.items()})

    def take(self, job: Job) -> None:
        """Take content to look at."""
        refused = all(sandbox.refused for sandbox in self._sandboxes)
        if refused or not self._queue.put(job):
            job.over(DROPPED)
            return
        for sandbox in self._sandboxes:
            sandbox.pump()

    def scored(self, *, fails: bool) -> None:
        """Take note of a picture that the classifier was given, and whether it has failed."""
        now = time.monotonic()
        if fails:
            self._fault_at = now
            self._trouble("classifier", f"the classifier {self.wanted.classifier} fails: there is no score")
        elif now - self._fault_at >= FAULT_FOR:
            self._trouble("classifier", "")

    def _trouble(self, of: str, why: str) -> None:
        """Set what is wrong with one part; empty where nothing is. The log and workers hear of a change."""
        was_unknown, before = of in self._unknown, self._troubles.pop(of, "")
        self._unknown.discard(of)
        if why:
            self._troubles[of] = why
        if why == before and not was_unknown:
            return
        if why:
            logger.error("files: %s", why)
        elif before:
            logger.info("files: no longer: %s", before)
        self._tell_of_troubles(self._workers)

    def _tell_of_troubles(self, workers: Iterable[WorkerPeer]) -> None:
        if not self._unknown:
            text = "; ".join(dict.fromkeys(self._troubles.values()))[:MOST_TROUBLE]
            for worker in workers:
                worker.tell({"trouble": text})


async def _serve(folder: Path, wanted: Wanted, channel: int | None) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, stop.set)
    if channel is not None:
        beat(loop, channel)
    await InspectorProcess(folder, wanted).run(stop)


def main() -> None:
    """Run as a process; what it is to do comes on standard input."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with suppress(OSError):
        # Where memory is short this and its sandboxes go, and no worker; before nobody may write there.
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    keep_private()
    give_way(NICE)
    asked = told(signal.SIGTERM)
    for name in asked.get("without", ()):
        os.environ.pop(name, None)
    log = logging.getLogger("urlward")
    log.setLevel(logging.INFO)
    log.addHandler(LineHandler())
    wanted = Wanted(**{name: asked[name] for name in Wanted._fields if name in asked})
    try:
        asyncio.run(_serve(Path(asked["folder"]), wanted, taken_channel(asked)))
    except OSError as e:
        logger.error("files: the inspector cannot serve: %s", e.strerror or e)
        sys.exit(2)


if __name__ == "__main__":
    main()
