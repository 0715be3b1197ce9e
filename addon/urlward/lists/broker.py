"""What the workers of one filter have in common: who of them makes a list, and what has been made.

The supervisor runs a broker, and every worker inherits a socket to it, the *door*. A worker that wants
something sends one end of a new socket pair through the door and talks over the other: one
*conversation* for each wish, so that a wish that waits holds up no other. Made lists are sealed
memory (`urlward.lists.memory`), passed as file descriptors (unix(7), SCM_RIGHTS).

Messages are JSON objects, one a packet:

====================================  ======================================================
a worker says                         and is told
====================================  ======================================================
``ask: key``                          ``key``: secret bytes in hexadecimal, the same for all
``ask: memory``, ``name``, ``size``   ``memory``, with a descriptor: to write to, the same for all
``ask: list``, ``slot``, ``content``  ``found`` (its note, with a descriptor) where it has been
and ``as_of``                         made; ``make`` where that is now this worker's part;
                                      ``wait`` where another is at it, and one of those later
``made`` (a note, with a descriptor)  nothing: the answer to ``make``; the note's ``content`` is
                                      what it was made of, where that is not what was asked for
``ask: current``, ``slot``            ``found``, or ``none``: what was kept last
``keep`` (a content), ``slot``        nothing: it is in force, the slot's others are past
====================================  ======================================================

The end of a conversation ends the part that came with it. A worker that dies cannot but end its
conversations, and the next one that waits is told ``make``. A slot stands for one list file; no more than
two contents of it are held, the one in force and the one made last.
"""

import json
import logging
import os
import secrets
import selectors
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from urlward.engine.digest import KEY_SIZE
from urlward.lists import memory

MAX_MESSAGE = 1 << 16

logger = logging.getLogger("urlward.lists")


class _Entry(NamedTuple):
    """What was made of a content: a note, and memory where it was made well."""

    note: dict[str, Any]
    fd: int | None


@dataclass(slots=True)
class _Slot:
    entries: dict[str, _Entry] = field(default_factory=dict)
    current: str | None = None
    maker: "_Conversation | None" = None
    past: "_Wish | None" = None
    later: str = ""

    def find(self, wish: "_Wish") -> _Entry | None:
        """What has been made of a content, or of what the file had when it was made.

        Whoever sees a change a moment later than others has no use for what the file was before it.
        """
        if wish == self.past and self.later in self.entries:
            entry = self.entries[self.later]
            return _Entry(entry.note | {"content": self.later}, entry.fd)
        return self.entries.get(wish.content)

    def drop(self, *keep: str | None) -> None:
        """Let go of all contents but these; mappings of them stay valid."""
        for content in self.entries.keys() - keep:
            fd = self.entries.pop(content).fd
            if fd is not None:
                os.close(fd)


class _Wish(NamedTuple):
    """For a content, as the file had it at a time: one that comes back later is another wish."""

    content: str = ""
    as_of: str = ""


_NOTHING = _Wish()


@dataclass(slots=True, eq=False)
class _Conversation:
    socket: socket.socket
    slot: str = ""
    wish: _Wish = _NOTHING

    def say(self, message: dict[str, Any], fd: int | None = None) -> None:
        # One that is gone is noticed when its end is read.
        with suppress(OSError):
            send(self.socket, message, fd)


class Broker:
    """Answers workers in a thread of its own.

    Attributes:
        door: the workers' end, for them to inherit.
    """

    def __init__(self) -> None:
        self._own_door, self.door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._bell, self._ringer = socket.socketpair()
        self._key = secrets.token_hex(KEY_SIZE)
        self._slots: dict[str, _Slot] = {}
        self._memory: dict[str, int] = {}
        self._waiting: list[_Conversation] = []
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and let go of all memory."""
        self._ringer.close()
        if self._thread.is_alive():
            self._thread.join()
        for slot in self._slots.values():
            slot.drop()
        for fd in self._memory.values():
            os.close(fd)
        for s in (self._own_door, self.door, self._bell):
            s.close()
        self._selector.close()

    def _run(self) -> None:
        # The supervisor's main thread holds signals back while it starts a worker; none may come in here.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._selector.register(self._own_door, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._bell:
                    self._end()
                    return
                try:
                    if key.data is None:
                        self._welcome()
                    else:
                        self._listen(key.data)
                except Exception as e:  # noqa: BLE001 - one worker's nonsense must not end what serves all
                    logger.error("broker: %s in a worker's message", type(e).__name__)
                    if key.data is not None:
                        self._part(key.data)

    def _end(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                key.data.socket.close()

    def _welcome(self) -> None:
        _, fds, _, _ = socket.recv_fds(self._own_door, 1, 1, socket.MSG_CMSG_CLOEXEC)
        for fd in fds:
            conversation = _Conversation(socket.socket(fileno=fd))
            conversation.socket.setblocking(False)
            self._selector.register(conversation.socket, selectors.EVENT_READ, conversation)

    def _listen(self, conversation: _Conversation) -> None:
        try:
            message, fd = receive(conversation.socket)
        except OSError:
            self._part(conversation)
            return
        if "made" in message:
            self._made(conversation, _Entry(message["made"], fd))
            return
        if fd is not None:
            os.close(fd)
        if message.get("ask") == "key":
            conversation.say({"key": self._key})
            return
        if message.get("ask") == "memory":
            name = message["name"]
            if name not in self._memory:
                self._memory[name] = memory.writable(message["size"])
            conversation.say({"memory": name}, self._memory[name])
            return
        slot = self._slots.setdefault(message["slot"], _Slot())
        if message.get("ask") == "current":
            self._tell(conversation, slot.entries.get(slot.current or ""))
        elif message.get("ask") == "list":
            conversation.slot = message["slot"]
            conversation.wish = _Wish(message["content"], message["as_of"])
            self._waiting.append(conversation)
            self._settle(message["slot"])
            if conversation in self._waiting:
                conversation.say({"wait": True})
        elif message["keep"] in slot.entries:
            slot.current = message["keep"]
            slot.drop(slot.current)

    def _made(self, conversation: _Conversation, entry: _Entry) -> None:
        slot = self._slots[conversation.slot]
        if slot.maker is conversation:
            slot.drop(slot.current)
            later = entry.note.get("content", "")
            slot.entries[later or conversation.wish.content] = _Entry(entry.note | {"content": ""}, entry.fd)
            slot.past, slot.later = (conversation.wish, later) if later else (None, "")
            slot.maker = None
            self._settle(conversation.slot)
        elif entry.fd is not None:
            os.close(entry.fd)

    def _part(self, conversation: _Conversation) -> None:
        self._selector.unregister(conversation.socket)
        conversation.socket.close()
        if conversation in self._waiting:
            self._waiting.remove(conversation)
        slot = self._slots.get(conversation.slot)
        if slot is not None and slot.maker is conversation:
            slot.maker = None
            self._settle(conversation.slot)

    def _settle(self, name: str) -> None:
        """Answer those who wait for this slot, as far as that can be."""
        slot = self._slots[name]
        for conversation in [c for c in self._waiting if c.slot == name]:
            entry = slot.find(conversation.wish)
            if entry is not None:
                self._tell(conversation, entry)
            elif slot.maker is None:
                slot.maker = conversation
                conversation.say({"make": True})
            else:
                continue
            self._waiting.remove(conversation)

    @staticmethod
    def _tell(conversation: _Conversation, entry: _Entry | None) -> None:
        if entry is None:
            conversation.say({"none": True})
        else:
            conversation.say({"found": entry.note}, entry.fd)


def send(s: socket.socket, message: dict[str, Any], fd: int | None = None) -> None:
    """Send one message, with a descriptor.

    Raises:
        OSError: nobody is there to take it.
    """
    socket.send_fds(s, [json.dumps(message).encode()], [] if fd is None else [fd], socket.MSG_NOSIGNAL)


def receive(s: socket.socket) -> tuple[dict[str, Any], int | None]:
    """Receive one message, with its descriptor.

    Raises:
        OSError: the other side is gone, or took too long.
        ValueError: not a message.
    """
    data, fds, _, _ = socket.recv_fds(s, MAX_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        for fd in fds:
            os.close(fd)
        raise ConnectionResetError("the other side has gone")
    message: dict[str, Any] = json.loads(data)
    return message, fds[0] if fds else None
