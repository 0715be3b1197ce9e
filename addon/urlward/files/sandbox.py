"""Sandbox: decodes one picture or piece of video at a time, each in a confined process of its own.

The process that the inspector starts (``python -P -m urlward.files.sandbox``) loads the decoders, and an
institution's classifier, and looks at no content itself. For each job it forks one that is confined
(`urlward.files.confine`) before it reads a byte, decodes, hashes, writes fixed records to a pipe and ends: a
file that takes it over can lie about itself alone. At the deadline it is killed.

Requests come over a socket that keeps the bounds of messages, a JSON object with the content's descriptor:
``format``, and descriptors of beginnings that it may have behind the first one. The answer is a line with
what became of it (`DONE` and so on), and behind it the records.

On standard input it is given one JSON object: ``parent``, ``channel``, ``deadline``, ``memory``, ``video``,
``classifier`` and ``strictly``. It first says ``ready``, or ``refused`` and why.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any

from urlward.engine.errors import UrlwardError
from urlward.files.confine import Limits, confine
from urlward.files.media import MediaFormat
from urlward.files.seen import DONE, FAILED, FAULT, LATE, MOST_RECORDS, PDQ, SCORE, FrameSeen
from urlward.process import keep_private, module_command, told

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from urlward.files.decode import Frame

type Classifier = Callable[["NDArray[np.uint8]"], float]

MODULE = "urlward.files.sandbox"
MEMORY = 768 << 20
"""Bytes of memory that decoding may take, with what the decoders themselves do."""

_ENVIRONMENT = {"PYTHONMALLOC": "default", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

MOST_MESSAGE = 1 << 16

_FDS = 1 + 8

CHECK_WITHIN = 30.0
"""Seconds for what is tried at the start, once: a machine may be busy then."""


def started(
    *, deadline: float, video: bool, classifier: str = "", strictly: bool = True
) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """Start a sandbox; returns its process, and the socket over which it first says whether it is ready.

    Args:
        deadline: seconds for a job.
        video: whether it decodes video too.
        classifier: of an institution; empty for none.
        strictly: as of `Sandbox`.

    Raises:
        OSError: there is no process.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                module_command(MODULE),
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
            request = {
                "parent": os.getpid(), "channel": theirs.fileno(), "deadline": deadline, "memory": MEMORY,
                "video": video, "classifier": classifier, "strictly": strictly,
            }  # fmt: skip
            assert process.stdin is not None
            with suppress(OSError), process.stdin as pipe:
                pipe.write(json.dumps(request).encode())
    except BaseException:
        ours.close()
        raise
    return process, ours


def classifier_of(name: str) -> Classifier | None:
    """Import ``package:function``; None from nothing, and where the package has no such function.

    Raises:
        Exception: whatever it raises as it is imported.
    """
    if not name:
        return None
    module, _, function = name.partition(":")
    found: Classifier | None = getattr(importlib.import_module(module), function, None)
    return found if callable(found) else None


class Sandbox:
    """The process that forks one for each job.

    Args:
        channel: to the inspector.
        deadline: seconds for a job.
        memory: bytes that a job may take.
        classifier: of an institution; None for none.
        strictly: whether it has to be confined in every way.
    """

    def __init__(
        self,
        channel: socket.socket,
        deadline: float,
        memory: int,
        classifier: Classifier | None = None,
        *,
        strictly: bool = True,
    ) -> None:
        self._channel = channel
        self._deadline = deadline
        self._limits = Limits(memory, ceil(deadline) + 1)
        self._classifier = classifier
        self._strictly = strictly

    def check(self, samples: Sequence[tuple[bytes, MediaFormat]]) -> None:
        """Try the confinement, and whether all decoders work in it.

        Args:
            samples: of each format.

        Raises:
            UrlwardError: it is not to be had, or they do not.
            TimeoutError: it takes too long, as on a machine that has too much to do: it may be had later.
        """
        from urlward.files.decode import frames
        from urlward.files.pdq import digests_of

        def work() -> None:
            for data, media in samples:
                for frame in frames(data, media, []):
                    digests_of(frame.pixels)

        how, said = self._run(lambda out: self._confined(out, work), CHECK_WITHIN)
        if how == LATE:
            raise TimeoutError
        if how != DONE:
            raise UrlwardError(
                said.decode("utf-8", "replace") or f"a confined process decodes nothing: {how}"
            )

    def serve(self) -> None:
        """Do jobs until the inspector ends."""
        gc.freeze()  # or a collection in each forked process would copy what they share
        while True:
            message, fds, _, _ = socket.recv_fds(self._channel, MOST_MESSAGE, _FDS, socket.MSG_CMSG_CLOEXEC)
            if not message:
                return
            try:
                answer = self._do(json.loads(message), fds)
            finally:
                for fd in fds:
                    os.close(fd)
            self._channel.send(answer)

    def _do(self, job: Mapping[str, Any], fds: Sequence[int]) -> bytes:
        media = MediaFormat(job["format"])

        def look(out: int) -> None:
            self._confined(out, lambda: self._look(fds, media, out))

        how, records = self._run(look, self._deadline)
        return how.encode() + b"\n" + records

    def _run(self, work: Callable[[int], None], seconds: float) -> tuple[str, bytes]:
        """Fork a process, and wait for it so long at most; returns how it ended, and what it wrote."""
        until = time.monotonic() + seconds
        read, write = os.pipe()
        process = os.fork()
        if not process:
            code = 1
            try:
                os.close(read)
                self._channel.close()
                work(write)
                code = 0
            except SystemExit as e:
                code = int(e.code or 0)
            finally:
                os._exit(code)
        os.close(write)
        watch = os.pidfd_open(process)
        try:
            records = _read(read, until)
            in_time = _ready(watch, until)
        finally:
            os.close(read)
            os.close(watch)
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
        # The kernel kills what has had its time of the processor, and where memory is short: it says nothing
        # of the content, nor of the decoders.
        if not in_time or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            return LATE, records
        return FAILED if status else DONE, records

    def _confined(self, out: int, work: Callable[[], None]) -> None:
        try:
            confine(self._limits, strictly=self._strictly)
        except (UrlwardError, OSError, ValueError) as e:
            os.write(out, str(e).encode()[:MOST_RECORDS])
            sys.exit(1)
        work()

    def _look(self, fds: Sequence[int], media: MediaFormat, out: int) -> None:
        from urlward.files.decode import frames
        from urlward.files.pdq import digests_of

        seen = False
        try:
            data, *beginnings = map(_content, fds)
            for frame in frames(data, media, beginnings):
                digests, quality = digests_of(frame.pixels)
                os.write(out, FrameSeen(PDQ, frame.at, quality, digests).written())
                seen = True
                if self._classifier is not None:
                    os.write(out, _scored(self._classifier, frame).written())
        except Exception:  # noqa: BLE001 - a decoder may raise anything; what was seen before it counts
            sys.exit(0 if seen else 1)


def _scored(classifier: Classifier, frame: "Frame") -> FrameSeen:
    """What a classifier says of a frame."""
    try:
        return FrameSeen(SCORE, frame.at, float(classifier(frame.pixels)))
    except Exception:  # noqa: BLE001 - an institution's own
        return FrameSeen(FAULT, frame.at)


def _content(fd: int) -> bytes:
    size, parts = os.lseek(fd, 0, os.SEEK_END), []
    at = 0
    while at < size and (part := os.pread(fd, size - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _read(fd: int, until: float) -> bytes:
    """Read a pipe to its end, or until a time; what is too much for it is not read."""
    found = b""
    while len(found) < MOST_RECORDS and _ready(fd, until) and (data := os.read(fd, MOST_RECORDS)):
        found += data
    return found


def _ready(fd: int, until: float) -> bool:
    """Wait until a descriptor has something to read, which a process has when it ends; False where that is
    not in time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(until - time.monotonic(), 0) * 1000))


def main() -> None:
    """Run as a process."""
    keep_private()
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    asked = told(signal.SIGKILL)
    channel = socket.socket(fileno=asked["channel"])
    channel.set_inheritable(False)
    try:
        from urlward.files import decode, pdq

        samples = decode.prepare(video=asked["video"])
        pdq.prepare()
    except ImportError as e:
        _refuse(channel, f"{e}: the extra files is not installed")
    try:
        classifier = classifier_of(asked["classifier"])
    except Exception as e:  # noqa: BLE001 - it is an institution's own
        _refuse(channel, f"files.classifier: {asked['classifier']}: {type(e).__name__} as it is imported")
    if asked["classifier"] and classifier is None:
        _refuse(channel, f"files.classifier: {asked['classifier']}: there is no such function")
    made = Sandbox(channel, asked["deadline"], asked["memory"], classifier, strictly=asked["strictly"])
    try:
        made.check(samples)
    except UrlwardError as e:
        _refuse(channel, str(e))
    channel.send(b'{"ready": true}')
    made.serve()


def _refuse(channel: socket.socket, why: str) -> None:
    channel.send(json.dumps({"refused": why}).encode())
    sys.exit(2)


if __name__ == "__main__":
    main()
