"""A worker's side of sharing: what another worker has made of a list, or the right to make it.

Sharing saves memory and work and is never needed: where it fails, the worker says so once and makes
its lists by itself, as a filter without other workers does.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Self

from urlward.lists.broker import receive, send

logger = logging.getLogger("urlward.lists")

DOOR = "URLWARD_DOOR"
"""In a worker's environment: the file descriptor of the broker's door."""

ANSWER_WITHIN = 5.0
"""Seconds the broker has for a first answer."""

MADE_WITHIN = 600.0
"""Seconds another worker has to make a list."""


class Made(NamedTuple):
    """What came of a list file's content.

    Attributes:
        fd: of sealed memory with the artifact, the receiver's to close; None where it is no good.
        whole: whether the file's last line had its end.
        error: why it is no good.
        content: that it was made of, where that is not what was asked for; a digest.
    """

    fd: int | None
    whole: bool = True
    error: str = ""
    content: str = ""


class Turn:
    """One worker's turn with one content of a list file.

    A result is what has been made of it, or None: then it is this worker's part to make it and to `give`
    it. Leaving the context without having given anything passes the part on to the next worker.

    Args:
        shared: None for a filter without other workers, whose turn it always is.
        slot: stands for the list file.
        content: tells its contents apart.
        as_of: tells the times apart at which the file had that content.
    """

    def __init__(self, shared: "Shared | None", slot: str, content: str, as_of: str = "") -> None:
        self._shared = shared
        self._ask = {"ask": "list", "slot": slot, "content": content, "as_of": as_of}
        self._conversation: socket.socket | None = None
        self._found: Made | None = None
        self._until = 0.0

    def __enter__(self) -> Self:
        shared = self._shared
        if shared is not None:
            self._until = time.monotonic() + ANSWER_WITHIN
            self._conversation = shared.attempt(lambda: shared.converse(self._ask))
        return self

    def __exit__(self, *_: object) -> None:
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None

    def result_now(self) -> Made | None:
        """The result; nothing else happens in this thread until it is there."""
        while self._conversation is not None:
            # 0 would mean not to wait for what is there already.
            self._conversation.settimeout(max(self._until - time.monotonic(), 0.001))
            if self._settled():
                break
        return self._found

    async def result(self) -> Made | None:
        """The result."""
        import asyncio  # as in `urlward.lists.worker`

        while self._conversation is not None:
            try:
                async with asyncio.timeout(self._until - time.monotonic()):
                    await _readable(self._conversation)
            except TimeoutError:
                self._conversation.settimeout(0.001)
            if self._settled():
                break
        return self._found

    def give(self, made: Made) -> None:
        """Let the other workers have it too; the descriptor stays the caller's."""
        conversation, shared = self._conversation, self._shared
        if conversation is not None and shared is not None:
            content = made.content if made.content != self._ask["content"] else ""
            message = {"made": {"whole": made.whole, "error": made.error, "content": content}}
            shared.attempt(lambda: send(conversation, message, made.fd))

    def _settled(self) -> bool:
        """Read an answer; False where it says to wait."""
        conversation, shared = self._conversation, self._shared
        assert conversation is not None
        assert shared is not None
        received = shared.attempt(lambda: receive(conversation))
        if received is None:
            self.__exit__()
            return True
        if "wait" in received[0]:
            self._until = time.monotonic() + MADE_WITHIN
            return False
        self._found = _made(*received)
        return True


class Shared:
    """What this worker shares with others.

    Args:
        door: to the broker.
    """

    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._told = False

    def converse(self, message: dict[str, Any]) -> socket.socket:
        """Begin a conversation.

        Raises:
            OSError: nobody answers the door.
        """
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            mine.settimeout(ANSWER_WITHIN)
            # What is said before the door opens waits there, so that no answer can be missed.
            send(mine, message)
            socket.send_fds(self._door, [b"\0"], [theirs.fileno()], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
        return mine

    def attempt[T](self, do: Callable[[], T]) -> T | None:
        """Do something that needs the broker; None, and a word in the log the first time, where it fails."""
        try:
            result = do()
        except (OSError, ValueError) as e:
            if not self._told:
                logger.warning(
                    "lists are not shared with the other workers (%s): this one keeps its own",
                    getattr(e, "strerror", None) or str(e) or type(e).__name__,
                )
            self._told = True
            return None
        self._told = False
        return result

    def key(self) -> bytes | None:
        """The secret for lists that have none of their own."""
        message = self._asked({"ask": "key"})
        return bytes.fromhex(message[0]["key"]) if message is not None else None

    def memory(self, name: str, size: int) -> int | None:
        """A descriptor of memory that all may write to, the receiver's to close; None where there is none."""
        answer = self._asked({"ask": "memory", "name": name, "size": size})
        return answer[1] if answer is not None else None

    def current(self, slot: str) -> Made | None:
        """What is in force in the other workers."""
        answer = self._asked({"ask": "current", "slot": slot})
        return _made(*answer) if answer is not None else None

    def keep(self, slot: str, content: str) -> None:
        """Say that this content is in force here, so that others are past."""
        self.attempt(lambda: self.converse({"keep": content, "slot": slot}).close())

    def _asked(self, message: dict[str, Any]) -> tuple[dict[str, Any], int | None] | None:
        def ask() -> tuple[dict[str, Any], int | None]:
            with self.converse(message) as conversation:
                return receive(conversation)

        return self.attempt(ask)


@cache
def inherited() -> Shared | None:
    """What this process shares with others; None where it is no worker, or shall share nothing."""
    fd = os.environ.pop(DOOR, "")
    if not fd:
        return None
    door = socket.socket(fileno=int(fd))
    door.set_inheritable(False)
    return Shared(door)


def _made(message: dict[str, Any], fd: int | None) -> Made | None:
    note = message.get("found")
    return Made(fd, note["whole"], note["error"], note["content"]) if note is not None else None


async def _readable(s: socket.socket) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(s, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(s)
