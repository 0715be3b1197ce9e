"""What workers and the process that records say to each other: lines of JSON over a Unix stream socket.

A worker says ``{"hello": WORKER, "node": NODE}`` first, then ``{"batch": N, "events": [[…], …]}``, N counting
up and the values of each event in the order of its fields, ``{"metrics": {…}}``, and at its end
``{"bye": true}``. The other says ``{"ack": N}`` of a batch that a crash no longer loses. Whoever only wants
to know something says ``{"ask": QUESTION}`` first, and gets one line (`urlward.records.asking`). Neither
takes a line on trust.
"""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urlward.engine.errors import UrlwardError
from urlward.lists.state import give_to_owner_of
from urlward.records.event import Event, EventError, event_of, values

MAX_LINE = 1 << 20
"""Bytes of a line, with its end."""

BATCH = 250
"""Events that a worker puts in a batch: a millisecond or two of its event loop's time."""

MAX_BATCH = 1_000
MAX_NAME = 200
"""Characters of a worker's or node's name."""

_LAST_NUMBER = 1 << 53
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


def encode(message: dict[str, Any]) -> bytes:
    """One line.

    Raises:
        WireError: it is too long, or holds what JSON has no word for.
    """
    try:
        line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as e:
        raise WireError("not JSON") from e
    if len(line) > MAX_LINE:
        raise WireError(f"{len(line)} bytes, a line has at most {MAX_LINE}")
    return line


def encode_batch(number: int, events: Sequence[Event]) -> bytes:
    """The line of a batch.

    Raises:
        WireError: as `encode`.
    """
    return encode({"batch": number, "events": [values(event) for event in events]})


def decode(line: bytes) -> Message:
    """What a worker says.

    Raises:
        WireError: nothing that it may say.
    """
    match message := _object(line):
        case {"hello": str(worker), "node": str(node)} if _is_name(worker) and len(node) <= MAX_NAME:
            return Hello(worker, node)
        case {"batch": int(number), "events": list(rows)} if _is_number(number) and len(rows) <= MAX_BATCH:
            return _batch(number, rows)
        case {"metrics": dict(metrics)}:
            return Snapshot(metrics)
        case {"bye": True}:
            return Bye()
        case {"ask": str(question)} if _is_name(question):
            return Ask(question)
    raise WireError(f"an object of {len(message)} members that is no message")


def decode_ack(line: bytes) -> int:
    """The number of the batch that is acknowledged.

    Raises:
        WireError: the line is no acknowledgement.
    """
    number = _object(line).get("ack")
    if not isinstance(number, int) or not _is_number(number):
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
            path.unlink(missing_ok=True)
            made.bind(address)
            path.chmod(0o600)  # nobody connects before it listens
            give_to_owner_of(path.parent, path)
            made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise WireError(f"{len(line)} bytes, a line has at most {MAX_LINE}")
    try:
        message = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise WireError("not JSON") from e
    if not isinstance(message, dict):
        raise WireError("not an object")
    return message


def _batch(number: int, rows: list[Any]) -> Batch:
    events = []
    for row in rows:
        try:
            events.append(event_of(row if isinstance(row, list) else []))
        except EventError:
            continue
    return Batch(number, events, len(rows) - len(events))


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def _is_number(number: int) -> bool:
    return not isinstance(number, bool) and 0 <= number < _LAST_NUMBER


def _no_constant(text: str) -> float:
    raise ValueError(text)
