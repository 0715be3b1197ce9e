"""Connection of one process to the fleet's Valkey, for all that nodes share.

That Valkey is away is a normal state: nothing here raises into whoever asks, nothing waits beyond its limit,
and a connection that is lost is made anew, ever more slowly up to the last of `BACKOFF`, until one lasts.
Whoever shares something says what is to be done whenever Valkey is there again (`FleetConnection.on_begin`),
which is also when it has lost its data: it was emptied, started empty, or a replica took over that lacked the
last writes.

Whichever way Valkey is run, a process speaks to one server: that of the URL, the one that Sentinels name, or
in a Cluster the one that has the slot of our keys, which is one slot since they share a hash tag
(https://valkey.io/topics/cluster-spec/#hash-tags).
"""

import asyncio
import logging
import os
import random
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from valkey._parsers import _AsyncRESP2Parser
from valkey.asyncio import Connection as Plain
from valkey.asyncio import SSLConnection as Encrypted
from valkey.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    ValkeyError,
)

from urlward.config.fleet import FleetTable
from urlward.config.tables import join_address
from urlward.engine.digest import Key, derived
from urlward.engine.errors import KeyFileError, UrlwardError, fault_text
from urlward.feeds.source import FetchError
from urlward.feeds.tls import context
from urlward.regular import read_regular
from urlward.state.keys import read_key

logger = logging.getLogger("urlward.fleet")

CONNECT_WITHIN = 2.0
"""Seconds that it may take to find the server by one URL."""

ANSWER_WITHIN = 1.0
"""Seconds that Valkey has to answer; then it is away."""

BEAT = 1.0
"""Seconds between two looks whether it is there, and has its data."""

STEADY = 3.0
"""Seconds that a new connection has to last before Valkey counts as back: one on which a command is refused,
or not answered, is lost within that time, and may be again and again."""

CLOCK_SET = 5.0
"""Seconds by which Valkey's clock may differ from what was expected; beyond, it has been set, and times that
are kept there mean something else now."""

BACKOFF = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Seconds until it is tried again, after one failure in a row and more; each up to a half longer."""

DEFAULT_PORT, SENTINEL_PORT = 6_379, 26_379

MOST_READ = 100
"""Entries of a stream that are read at a time."""

MOST_STRING = 1 << 24
"""Bytes of a string in an answer, of which none here has more than some thousands: half a gigabyte, as Valkey
allows, can come within the time for an answer."""

MOST_PASSWORD = 4_096

type Command = Sequence[str | bytes | int | float]
type Fields = Mapping[bytes, bytes]


class StreamEntry(NamedTuple):
    """Entry of a stream.

    Attributes:
        id: of it, as Valkey gave it.
        fields: names and values.
    """

    id: bytes
    fields: Fields


class AwayError(UrlwardError):
    """Valkey is not usable; the message says why, and holds no secret."""


def seal_of(table: FleetTable, lists_key: str | None) -> Key:
    """Key under which a fleet seals: derived from that of ``seal``, or else from the lists' key.

    Raises:
        KeyFileError: there is none, or it cannot be read.
    """
    name = table.seal or lists_key
    if not name:
        raise KeyFileError("fleet.seal: needed, a key file that all nodes have")
    return Key(derived(read_key(Path(name)).secret, b"urlward fleet"))


class _Parser(_AsyncRESP2Parser):
    """Parser of answers that waits for no string of more than `MOST_STRING`."""

    async def _read(self, length: int) -> bytes:
        if length > MOST_STRING:
            raise ValkeyError(f"a string of {length} bytes")
        found: bytes = await super()._read(length)
        return found


class FleetConnection:
    """Connection to the fleet's Valkey.

    Args:
        table: the configuration.
        seal: as `seal_of` gives it.
        who: this process's name, for ``CLIENT LIST``.
        tell: is told once why Valkey is away, and with an empty text that it is back.

    Attributes:
        seal: as given; whoever shares what is confidential seals it.
        node: this machine's name.
    """

    def __init__(
        self, table: FleetTable, seal: Key, *, who: str = "", tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.seal = seal
        self.node = table.node
        self._table = table
        self._who = "urlward" + "".join(c for c in f"-{who}" if c.isalnum() or c in "-_.")
        self._tell = tell
        self._link: _Link | None = None
        self._takers: dict[str, Callable[[list[StreamEntry]], Awaitable[None]]] = {}
        self._listeners: dict[str, Callable[[bytes], None]] = {}
        self._begins: list[Callable[[], Awaitable[None]]] = []
        self._ahead = 0.0
        """By how much Valkey's clock is ahead of `time.monotonic`."""
        self._epoch: bytes | None = None
        self._lost_epoch = asyncio.Event()
        self._said = ""
        self._evicts = False
        self._failures = 0
        """Connections in a row that could not be made, or did not last."""

    def name(self, key: str) -> str:
        """Full name of a key or channel."""
        return f"{{{self._table.prefix}}}:{key}"

    @property
    def up(self) -> bool:
        """Whether Valkey is there."""
        return self._link is not None

    @property
    def why(self) -> str:
        """Why it is away; empty where it is not, or has not been tried yet."""
        return self._said

    def now(self) -> float:
        """Time by Valkey's clock, seconds since 1970-01-01 UTC: one for all nodes, whatever theirs say.

        It is a guess while Valkey is away, and wrong before it has first been there.
        """
        return time.monotonic() + self._ahead

    def on_begin(self, act: Callable[[], Awaitable[None]]) -> None:
        """Have something done each time Valkey is there again, or has lost its data; streams are followed and
        channels listened to from a moment before. It is cancelled where the connection is lost."""
        self._begins.append(act)

    def follow(self, stream: str, take: Callable[[list[StreamEntry]], Awaitable[None]]) -> None:
        """Have all entries taken that come to a stream (`name`) while Valkey is there, some at a time."""
        self._takers[stream] = take

    def listen(self, channel: str, take: Callable[[bytes], None]) -> None:
        """Have all messages taken that are published on a channel (`name`) while Valkey is there."""
        self._listeners[channel] = take

    async def ask(self, *commands: Command, atomically: bool = False) -> list[Any] | None:
        """Run commands, in order.

        Args:
            commands: each its name and arguments.
            atomically: whether nobody else's come between them, and none is run where one is malformed.

        Returns:
            Their replies, or None where Valkey is away or one has failed; it may have run them nevertheless.
        """
        link = self._link
        return None if link is None else await link.ask_or_break(commands, atomically=atomically)

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        try:
            while True:
                try:
                    async with self.connected() as link:
                        lasts = asyncio.get_running_loop().call_later(STEADY, self._lasts)
                        try:
                            await self._stay(link)
                        finally:
                            lasts.cancel()
                except AwayError as e:
                    self._say(str(e))
                except Exception as e:  # noqa: BLE001 - another server, or a bug of ours: it is tried again
                    self._say(f"{_NONSENSE}: {fault_text(e)}")
                wait = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
                self._failures += 1
                await asyncio.sleep(wait * random.uniform(1.0, 1.5))
        finally:
            self._link = None

    def _lasts(self) -> None:
        self._failures = 0
        self._say("")

    def _say(self, why: str) -> None:
        before, self._said = self._said, why
        if why and not before:
            logger.error("fleet: %s; this node filters on with what it has", why)
            self._tell(why)
        elif before and not why:
            logger.warning("fleet: Valkey is back")
            self._tell("")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["_Link"]:
        """Connect to the server that takes writes; for commands that ask once, all else is `run`'s.

        Raises:
            AwayError: there is none.
        """
        link: _Link | None = None
        try:
            self._link = link = await self._found()
            yield link
        finally:
            self._link = None
            if link is not None:
                await link.close()

    async def _found(self) -> "_Link":
        """Find the server, and see that it takes writes: a Sentinel that is cut off from the others may name
        one that is, too, and refuses them.

        Raises:
            AwayError: there is none.
        """
        why: AwayError | None = None
        for url in (*self._table.sentinels, *self._table.url):
            link: _Link | None = None
            try:
                with _faults(urlsplit(url).netloc):
                    async with asyncio.timeout(CONNECT_WITHIN):
                        if self._table.sentinels:
                            link = await self._primary(*await self._named(*_place(url, SENTINEL_PORT)))
                        else:
                            link = await self._primary(*_place(url, DEFAULT_PORT))
                        await self._begin(link)
                        return link
            except BaseException as e:
                if link is not None:
                    await link.close()
                if not isinstance(e, Exception):
                    raise
                # The next may be one that speaks as it should.
                fault = e if isinstance(e, AwayError) else AwayError(f"{urlsplit(url).netloc}: {_NONSENSE}")
                why = why or fault
        assert why is not None
        raise why

    async def _named(self, host: str, port: int) -> tuple[str, int]:
        """Address of the server that a Sentinel names."""
        link = await self._opened(host, port, sentinel=True)
        try:
            (found,) = await link.ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._table.service))
        finally:
            await link.close()
        if not found:
            raise AwayError(f"{join_address(host, port)}: a Sentinel that knows no {self._table.service}")
        return found[0].decode(), int(found[1])

    async def _primary(self, host: str, port: int) -> "_Link":
        """Link to a server, or in a Cluster to the one with our slot."""
        link = await self._opened(host, port)
        try:
            slot = await _slot(link, self.name(""))
            if slot is not None:
                (ranges,) = await link.ask(("CLUSTER", "SLOTS"))
                there = next((one[2] for one in ranges if one[0] <= slot <= one[1]), None)
                if there is None:
                    raise AwayError(f"{link.where}: nobody has slot {slot} of the Cluster")
                other = (there[0] or b"").decode() or host, int(there[1])
                if other != (host, port):
                    await link.close()
                    link = await self._opened(*other)
            (role,) = await link.ask(("ROLE",))
            _check_role(role, link.where)
        except BaseException:
            await link.close()
            raise
        return link

    async def _opened(self, host: str, port: int, *, sentinel: bool = False) -> "_Link":
        table = self._table
        user, file = (
            (table.sentinel_user, table.sentinel_password_file)
            if sentinel
            else (table.user, table.password_file)
        )
        # Silence is no fault: `_beat` sees to it that there is somebody.
        options: dict[str, Any] = {"host": host, "port": port, "protocol": 2, "socket_timeout": None}
        options |= {"username": user, "password": _password(file), "parser_class": _Parser}
        if not sentinel:  # which may not know the command
            options["client_name"] = self._who
        where = join_address(host, port)
        with _faults(where):
            connection = Encrypted(**options) if table.tls else Plain(**options)
            if isinstance(connection, Encrypted):
                connection.ssl_context.context = context(table.ca, table.certificate, table.key)
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    await connection.connect()
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        return _Link(connection, where)

    async def _begin(self, link: "_Link") -> None:
        """Read the clock, and see that the other nodes seal under the same key, and that nothing is evicted.

        Raises:
            AwayError: they do not.
        """
        mark = f"{random.getrandbits(64):016x} {self.seal.id.hex()}"
        epoch = self.name("epoch")
        told, _, found, memory = await link.ask(
            ("TIME",), ("SET", epoch, mark, "NX"), ("GET", epoch), ("INFO", "memory")
        )
        self._set_clock(told)
        if found is None or found.partition(b" ")[2] != self.seal.id.hex().encode():
            raise AwayError(
                f"{link.where}: other nodes seal under another key: fleet.seal, or the lists' key, has to be "
                "one for all of this fleet.prefix"
            )
        self._epoch = found
        policy = _EVICTION(memory)
        if policy and not self._evicts:
            # One key without the epoch, which is read all the time: no node would notice.
            logger.error(
                "fleet: %s: where it is full it removes what nodes share (maxmemory-policy %s): "
                "set noeviction",
                link.where, policy[1].decode(),
            )  # fmt: skip
        self._evicts = policy is not None

    def _set_clock(self, told: Sequence[bytes]) -> None:
        self._ahead = int(told[0]) + int(told[1]) / 1e6 - time.monotonic()

    async def _stay(self, link: "_Link") -> None:
        """Serve whoever shares something while the connection lasts.

        Raises:
            AwayError: it is lost.
        """
        while True:
            self._lost_epoch.clear()
            listening = asyncio.Event()
            work = [link.broken(), self._beat(link)]
            if self._listeners:
                work.append(self._listen(link, listening))
            else:
                listening.set()
            if self._takers:
                work.append(self._follow(link, listening))
            else:
                work += self._all_begins(listening)
            if await _first_of(work, self._lost_epoch):
                what = "has lost its data, or its clock was set"
                logger.warning("fleet: Valkey %s; it is given anew what this node has", what)
                await self._begin(link)

    def _all_begins(self, listening: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        """What is done whenever Valkey is there again, each once the channels are listened to.

        What is published between a look and then would be heard by nobody.
        """

        async def begin(act: Callable[[], Awaitable[None]]) -> None:
            await listening.wait()
            await _guarded(act)

        return [begin(act) for act in self._begins]

    async def _beat(self, link: "_Link") -> None:
        while True:
            await asyncio.sleep(BEAT)
            found = await link.ask_or_break((("TIME",), ("GET", self.name("epoch")), ("ROLE",)))
            if found is None:
                return
            _check_role(found[2], link.where)
            before = self._ahead
            self._set_clock(found[0])
            if found[1] != self._epoch or abs(self._ahead - before) > CLOCK_SET:
                self._lost_epoch.set()

    async def _follow(self, link: "_Link", listening: asyncio.Event) -> None:
        """Follow the streams, and begin."""
        streams = [*self._takers]
        # Before anything is begun, so that nothing falls between what is read then and what comes later.
        last = await link.ask_or_break([("XREVRANGE", stream, "+", "-", "COUNT", 1) for stream in streams])
        if last is None:
            return
        at = {stream: found[0][0] if found else b"0-0" for stream, found in zip(streams, last, strict=True)}
        own = await self._opened(*link.place)
        beginning = asyncio.gather(*self._all_begins(listening))
        try:
            while True:
                command = (
                    "XREAD",
                    "COUNT",
                    MOST_READ,
                    "BLOCK",
                    0,
                    "STREAMS",
                    *streams,
                    *map(at.__getitem__, streams),
                )
                (found,) = await own.ask(command, forever=True)
                for name, rows in found or ():
                    stream = name.decode()
                    at[stream] = rows[-1][0]
                    entries = [
                        StreamEntry(id_, dict(zip(row[::2], row[1::2], strict=True)))
                        for id_, row in rows
                        if row
                    ]
                    take = self._takers[stream]
                    await _guarded(lambda take=take, entries=entries: take(entries))  # type: ignore[misc]
        finally:
            beginning.cancel()
            with suppress(asyncio.CancelledError):
                await beginning
            await own.close()

    async def _listen(self, link: "_Link", listening: asyncio.Event) -> None:
        """Listen to the channels; set the event once that is so."""
        own = await self._opened(*link.place)
        try:
            await own.send(("SUBSCRIBE", *self._listeners))
            while True:
                kind, channel, data = await own.read()
                if kind == b"subscribe" and data == len(self._listeners):
                    listening.set()
                elif kind == b"message":
                    try:
                        self._listeners[channel.decode()](data)
                    except Exception as e:  # noqa: BLE001 - a bug of ours must not end the connection
                        logger.error("fleet: %s", fault_text(e))
        finally:
            await own.close()


class _Link:
    """Commands and replies on one connection, many under way at a time.

    Args:
        connection: that is open.
        where: its server, for messages.
    """

    def __init__(self, connection: Plain, where: str) -> None:
        self.where = where
        self.place: tuple[str, int] = (connection.host, connection.port)
        self._connection = connection
        self._replies: deque[asyncio.Future[Any]] = deque()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading: asyncio.Task[None] | None = None

    async def broken(self) -> None:
        """Wait until the link is lost.

        Raises:
            AwayError: always.
        """
        await asyncio.shield(self._broken)

    async def send(self, *commands: Command) -> None:
        """Send commands; where nobody else reads, `read` gives the replies."""
        with _faults(self.where):
            packed = self._connection.pack_commands(commands)
            await self._connection.send_packed_command(packed, check_health=False)

    async def read(self) -> Any:
        """Read a reply.

        Raises:
            AwayError: the link is lost.
        """
        with _faults(self.where):
            return await self._connection.read_response()

    async def ask(self, *commands: Command, atomically: bool = False, forever: bool = False) -> list[Any]:
        """Run commands.

        Raises:
            AwayError: the link is lost, one of them is refused, or there is no answer in time.
        """
        if self._broken.done():
            raise AwayError(f"{self.where}: the connection is lost")
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        sent = [("MULTI",), *commands, ("EXEC",)] if atomically else [*commands]
        loop = asyncio.get_running_loop()
        waiting = [loop.create_future() for _ in sent]
        self._replies.extend(waiting)
        with _faults(self.where):
            async with asyncio.timeout(None if forever else ANSWER_WITHIN):
                await self.send(*sent)
                replies = [await one for one in waiting]
            for reply in replies:
                if isinstance(reply, ValkeyError):
                    raise reply
            found: list[Any] = replies[-1] if atomically else replies
            if not isinstance(found, list):
                raise AwayError(f"{self.where}: {_NONSENSE}")
            for reply in found if atomically else ():
                if isinstance(reply, ValkeyError):
                    raise reply
        return found

    async def ask_or_break(
        self, commands: Sequence[Command], *, atomically: bool = False
    ) -> list[Any] | None:
        """Run commands as `ask`; where that fails the link is lost, and the result None."""
        try:
            return await self.ask(*commands, atomically=atomically)
        except AwayError as e:
            self._break(e)
            return None

    def _break(self, error: AwayError) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)
            self._broken.exception()  # that nobody waits for it is no fault
        for one in self._replies:
            if not one.done():
                one.set_exception(error)
                one.exception()
        self._replies.clear()

    async def _read(self) -> None:
        try:
            while True:
                try:
                    reply: Any = await self._connection.read_response(disconnect_on_error=False)
                except ResponseError as e:
                    reply = e
                one = self._replies.popleft()
                if not one.done():
                    one.set_result(reply)
        except Exception as e:  # noqa: BLE001 - whoever waits is told
            self._break(AwayError(f"{self.where}: {_reason(e)}"))

    async def close(self) -> None:
        """Close the connection."""
        if self._reading is not None:
            self._reading.cancel()
        self._break(AwayError(f"{self.where}: the connection is lost"))
        await self._connection.disconnect(nowait=True)


async def _first_of(work: Sequence[Coroutine[Any, Any, None]], stop: asyncio.Event) -> bool:
    """Run tasks until one raises, or until stopped.

    Returns:
        True: it was stopped.

    Raises:
        AwayError: as the task.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    stopping = asyncio.ensure_future(stop.wait())
    try:
        pending = {*tasks, stopping}
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            if stopping in done:
                return True
    finally:
        for one in (*tasks, stopping):
            one.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)


async def _guarded(act: Callable[[], Awaitable[None]]) -> None:
    """Do something of those who share; a bug in it does not end the connection."""
    try:
        await act()
    except Exception as e:  # noqa: BLE001 - see above
        logger.error("fleet: %s", fault_text(e))


_EVICTION = re.compile(rb"maxmemory_policy:(allkeys-[a-z]+)").search


def _check_role(role: Sequence[Any], where: str) -> None:
    """See that a server takes writes.

    Raises:
        AwayError: it does not, or not any more: another has taken its place.
    """
    if role[0] != b"master":
        raise AwayError(f"{where}: a replica, which takes no writes")


async def _slot(link: _Link, name: str) -> int | None:
    """Slot of our keys; None where the server is in no Cluster."""
    (said,) = await link.ask(("INFO", "cluster"))
    if b"cluster_enabled:1" not in said:
        return None
    (slot,) = await link.ask(("CLUSTER", "KEYSLOT", name))
    return int(slot)


def _place(url: str, port: int) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or port


def _password(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        data = read_regular(Path(file))[:MOST_PASSWORD]
        return data.decode().strip()
    except OSError as e:
        raise AwayError(f"{file}: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise AwayError(f"{file}: not text") from e


@contextmanager
def _faults(where: str) -> Iterator[None]:
    """Context in which what goes wrong with a server becomes an `AwayError`."""
    try:
        yield
    except (ValkeyError, OSError, EOFError, FetchError) as e:
        raise AwayError(f"{where}: {_reason(e)}") from e


_NONSENSE = "an answer that makes no sense"

_CODE = re.compile(r"[A-Z]{2,20}\b").match


def _reason(error: BaseException) -> str:
    """What is wrong, in words that hold nothing of what was sent."""
    if isinstance(error, AwayError | FetchError):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {(cause.reason or 'failed').lower().replace('_', ' ')}"
        if isinstance(cause, OSError) and cause.strerror:
            is_name = isinstance(cause, socket.gaierror)
            return os.strerror(cause.errno) if cause.errno and not is_name else cause.strerror
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, AuthenticationError | AuthorizationError):
        return "the user or the password is refused"
    if isinstance(error, NoPermissionError):
        return "the user may not do what is needed: see `urlward help fleet`"
    if isinstance(error, ReadOnlyError):
        return "a replica, which takes no writes"
    if isinstance(error, OutOfMemoryError):
        return "it is full (maxmemory)"
    text = str(error)
    if text.startswith(("NOAUTH", "WRONGPASS")):
        return "the user or the password is refused"
    if isinstance(error, ResponseError):
        code = _CODE(text)
        return f"refused: {code[0]}" if code else "refused"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer in time"
    return "the connection is lost"
