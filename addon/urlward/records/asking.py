"""Recorder's socket in the state folder: one JSON object a line.

Whoever wants to know something says ``{"ask": QUESTION}``, and gets one line. A worker says once a second
``{"worker": NAME, "metrics": {…}}`` of what it has counted, over a connection that lasts as long as it does.
Neither waits for the other: what is not taken at once is said anew a second later.
"""

import asyncio
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from urlward.engine.errors import UrlwardError, fault_text
from urlward.state.folder import StateError, give_to_owner_of, set_aside, unusable

logger = logging.getLogger("urlward.records")

SOCKET = "records.sock"
TIMEOUT = 5.0

MAX_LINE = 1 << 20
"""Bytes of what is said to the recorder, with the end of its line."""

MAX_NAME = 200
"""Characters of a worker's name, and of a question."""

FIRST_WITHIN = 5.0
"""Seconds that whoever connects has to say something."""

SILENT_FOR = 30.0
"""Seconds without a recorder after which a worker says so: it takes some to start."""

LOOK = 5.0
"""Seconds between two looks whether the socket is still there."""

_MOST = 16 << 20
_MAX_PATH = 100
"""Bytes of a socket's path that the kernel takes, with room to spare (unix(7))."""

type Answers = Mapping[str, Callable[[], Mapping[str, Any]]]


class NotRunningError(UrlwardError):
    """No recorder is listening."""


def ask(state: Path, question: str, *, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Ask the recorder.

    Args:
        state: the state folder.
        question: such as ``status``.
        timeout: seconds to wait for each piece of the answer.

    Raises:
        NotRunningError: nobody listens.
        UrlwardError: no answer in time, or none that makes sense.
        StateError: the folder cannot be used.
    """
    path = state / SOCKET
    try:
        line = _exchange(path, _line({"ask": question}), timeout)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as e:
        raise NotRunningError(f"{path}: no recorder runs") from e
    except TimeoutError as e:
        raise UrlwardError(f"{path}: no answer within {timeout:.0f} s") from e
    except OSError as e:
        raise unusable(path, e) from e
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise UrlwardError(f"{path}: an answer that is cut short, or is no JSON") from e
    if not isinstance(answer, dict):
        raise UrlwardError(f"{path}: an answer that is no JSON object")
    if isinstance(said := answer.get("error"), str):
        raise UrlwardError(f"{path}: {said}")
    return answer


def reply(question: object, answers: Answers) -> bytes:
    """Send a request to the recorder; returns the line of its reply.

    Args:
        question: the value of ``ask`` in what came.
        answers: what gives the answer to each question.
    """
    give = answers.get(question) if isinstance(question, str) else None
    if give is None:
        return _line({"error": f"no such question; there are {', '.join(answers)}"})
    try:
        return _line(give())
    except UrlwardError as e:
        return _line({"error": str(e)})
    except Exception as e:  # noqa: BLE001 - whoever asks is told, without a traceback in the log
        logger.error("records: %s: %s", question, fault_text(e))
        return _line({"error": fault_text(e)})


class Reporter:
    """Reporter: a worker's connection to the recorder, for snapshots of its metrics.

    Args:
        state: the state folder.
        name: of the worker.
    """

    def __init__(self, state: Path, name: str) -> None:
        self._path = state / SOCKET
        self._name = name
        self._socket: socket.socket | None = None
        self._said = self._said_before = False
        self._alone_since = time.monotonic()
        self._told_alone = False

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Send a snapshot, if the socket takes it at once. Neither waits nor raises.

        Args:
            metrics: what is counted. It is told whether some of it was said over another connection, since
                who adds up may be another process than then.
        """
        try:
            if self._socket is None:
                self._socket, self._said_before = self._connected(), self._said
            told = {**metrics, "told": True} if self._said_before else metrics
            line = msgspec.json.encode({"worker": self._name, "metrics": told})
            if self._socket.send(line + b"\n") <= len(line):
                raise BlockingIOError  # half of a line is none
        except OSError:
            self.close()
            self._say_alone()
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as e:
            logger.error("records: the metrics cannot be told: %s", type(e).__name__)
        else:
            self._said = True
            self._say_answered()

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with _address(self._path) as address:
                made.connect(address)
        except BaseException:
            made.close()
            raise
        return made

    def _say_alone(self) -> None:
        if not self._told_alone and time.monotonic() - self._alone_since >= SILENT_FOR:
            self._told_alone = True
            logger.warning("records: the process that records does not answer; events wait in the outbox")

    def _say_answered(self) -> None:
        self._alone_since = time.monotonic()
        if self._told_alone:
            self._told_alone = False
            logger.info("records: the process that records answers again")


class _Said(msgspec.Struct):
    """Message: all fields that a line may have."""

    ask: str = ""
    worker: str = ""
    metrics: dict[str, Any] | None = None


class Desk:
    """Desk: the recorder's end of the socket, which takes snapshots and answers questions. Trusts no line.

    Args:
        state: the state folder.
        answers: what gives the answer to each question.
        measure: takes a worker's name and what it has counted.
    """

    def __init__(self, state: Path, answers: Answers, measure: Callable[[str, dict[str, Any]], None]) -> None:
        self._path = state / SOCKET
        self._answers = answers
        self._measure = measure
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connected: Counter[str] = Counter()
        self._watch: asyncio.Task[None] | None = None

    @property
    def connected(self) -> set[str]:
        """The names of workers whose connection is open."""
        return {name for name, count in [*self._connected.items()] if count}

    async def start(self) -> None:
        """Start to listen.

        Raises:
            StateError: the socket cannot be made.
        """
        try:
            await self._listen()
        except OSError as e:
            raise unusable(self._path, e) from e
        self._watch = asyncio.create_task(self._stay())

    async def _listen(self) -> None:
        if self._server is not None:
            self._server.close()  # first, since it deletes what is at its path; who is connected stays so
            self._server = None
        self._server = await asyncio.start_unix_server(
            self._serve, sock=_listening(self._path), limit=MAX_LINE
        )

    async def _stay(self) -> None:
        """Listen anew where the socket was deleted, or something else is in its place."""
        while True:
            await asyncio.sleep(LOOK)
            with suppress(OSError, StateError):  # the folder may be gone as well, for a while
                if not self._path.is_socket():
                    await self._listen()

    async def close(self) -> None:
        """Stop to listen."""
        if self._watch is not None:
            self._watch.cancel()
        if self._server is not None:
            self._server.close()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        name = ""
        try:
            async with asyncio.timeout(FIRST_WITHIN):
                said = _read(await reader.readline())
            if said.ask:
                writer.write(reply(said.ask, self._answers))
                return
            name = said.worker
            self._connected[name] += 1
            while True:
                assert said.metrics is not None
                self._measure(name, said.metrics)
                said = _read(await reader.readline())
                if said.ask or said.worker != name:
                    raise ValueError("a question, or another name than before")
        except (ValueError, msgspec.MsgspecError, RecursionError) as e:
            logger.error("records: a worker is not listened to any more: %s", e)
        except (OSError, EOFError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            self._connected[name] -= 1
            if self._connected[name] <= 0:
                del self._connected[name]
            self._tasks.discard(task)
            writer.close()


def _read(line: bytes) -> _Said:
    """Parse a line.

    Raises:
        EOFError: it is no whole line.
        ValueError, msgspec.MsgspecError, RecursionError: nothing that it may say.
    """
    if not line.endswith(b"\n"):
        raise EOFError
    said = msgspec.json.decode(line, type=_Said)
    name = said.ask or said.worker
    if len(name) > MAX_NAME or not name.isprintable() or not (said.ask or (said.worker and said.metrics)):
        raise ValueError("an object that says nothing")
    return said


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Name of a socket's path that is short enough for the kernel, while the context lasts.

    Raises:
        OSError: the folder is not there.
    """
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _listening(path: Path) -> socket.socket:
    """Listening socket, for its owner alone; replaces whatever is at the path.

    Raises:
        OSError: it cannot be made.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            if path.is_dir() and not path.is_symlink():
                set_aside(path.parent, path, "a folder, in the place of a socket", "made anew")
            path.unlink(missing_ok=True)
            made.bind(address)
            path.chmod(0o600)  # nobody connects before it listens
            give_to_owner_of(path.parent, path)
            made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


def _line(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _exchange(path: Path, line: bytes, timeout: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _address(path) as address:
        connection.settimeout(timeout)
        connection.connect(address)
        connection.sendall(line)
        with connection.makefile("rb") as answer:
            return answer.readline(_MOST)
