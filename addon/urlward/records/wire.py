"""What workers and the process that records say to each other: lines of JSON over a Unix stream socket.

A worker says ``{"hello": WORKER, "node": NODE}`` first, then ``{"batch": N, "events": [[…], …]}``, N counting
up and the values of each event in the order of its fields, ``{"metrics": {…}}``, and at its end
``{"bye": true}``. The other says ``{"ack": N}`` of a batch that a crash no longer loses. Whoever only wants
to know something says ``{"ask": QUESTION}`` first, and gets one line (`urlward.records.asking`). Neither
takes a line on trust.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from urlward.engine.errors import UrlwardError
from urlward.lists.state import give_to_owner_of, set_aside
from urlward.records.event import Event, EventError, events_of

MAX_LINE = 1 << 20
"""Bytes of a line, with its end."""

BATCH = 250
"""Events that a worker puts in a batch: a millisecond or two of its event loop's time."""

MAX_BATCH = 1_000
MAX_NAME = 200
"""Characters of a worker's or node's name."""

_LAST_NUMBER = 1 << 53
_NOTHING = msgspec.Raw()
_MAX_PATH = 100
"""Bytes of a socket's path that the kernel takes, with room to spare (unix(7))."""


class WireError(UrlwardError):
    """A line that is none of the above; the message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who is speaking.

    Attributes:
        worker: unique, for the life of its process.
        node: the machine.
    """

    worker: str
    node: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Events.

    Attributes:
        number: to acknowledge.
        events: that are such.
        refused: how many others were among them.
    """

    number: int
    events: list[Event]
    refused: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a worker has counted since its start."""

    metrics: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bye:
    """A worker's end in order."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, of whoever says nothing else."""

    question: str


type Message = Hello | Batch | Snapshot | Bye | Ask


class _Said(msgspec.Struct):
    """All that a line may say; events are looked at by themselves."""

    hello: str = ""
    node: str | None = None
    batch: int = -1
    events: msgspec.Raw = _NOTHING
    metrics: dict[str, Any] | None = None
    bye: bool = False
    ask: str = ""
    ack: int = -1


_read = msgspec.json.Decoder(_Said).decode


def encode(message: object) -> bytes:
    """One line; numbers that JSON has no word for are ``null`` in it.

    Raises:
        WireError: it is too long, or holds what has no counterpart in JSON.
    """
    try:
        line = msgspec.json.encode(message) + b"\n"
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as e:
        raise WireError("not JSON") from e
    if len(line) > MAX_LINE:
        raise WireError(f"{len(line)} bytes, a line has at most {MAX_LINE}")
    return line


def encode_batch(number: int, events: Sequence[Event]) -> bytes:
    """The line of a batch.

    Raises:
        WireError: as `encode`.
    """
    return encode({"batch": number, "events": events})


def decode(line: bytes) -> Message:
    """What a worker says.

    Raises:
        WireError: nothing that it may say.
    """
    said = _said(line)
    if _is_name(said.hello) and said.node is not None and len(said.node) <= MAX_NAME:
        return Hello(said.hello, said.node)
    if _is_number(said.batch) and said.events is not _NOTHING:
        return _batch(said.batch, said.events)
    if said.metrics is not None:
        return Snapshot(said.metrics)
    if said.bye:
        return Bye()
    if _is_name(said.ask):
        return Ask(said.ask)
    raise WireError("an object that is no message")


def decode_ack(line: bytes) -> int:
    """The number of the batch that is acknowledged.

    Raises:
        WireError: the line is no acknowledgement.
    """
    if not _is_number(number := _said(line).ack):
        raise WireError("no acknowledgement")
    return number


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A name of a socket's path that is short enough for the kernel, while this lasts.

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


def listening(path: Path) -> socket.socket:
    """A socket that listens there, for its owner alone; whatever was there before is no longer.

    Raises:
        OSError: it cannot be made.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(path) as address:
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


def _said(line: bytes) -> _Said:
    if len(line) > MAX_LINE:
        raise WireError(f"{len(line)} bytes, a line has at most {MAX_LINE}")
    try:
        return _read(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise WireError("not JSON, or no message") from e


def _batch(number: int, rows: msgspec.Raw) -> Batch:
    try:
        events, refused = events_of(rows)
    except EventError as e:
        raise WireError(str(e)) from e
    if len(events) + refused > MAX_BATCH:
        raise WireError(f"{len(events) + refused} events, a batch has at most {MAX_BATCH}")
    return Batch(number, events, refused)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def _is_number(number: int) -> bool:
    return 0 <= number < _LAST_NUMBER
