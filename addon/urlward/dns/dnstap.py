"""Server for dnstap: takes what resolvers tell of answers that they have sent, and steers the addresses in
those that concern the lists.

Each answer has left before, so a client may have connected: what it has opened ends (`DnsPolicy.follow`). One
worker takes the streams of all resolvers, since what they tell has to meet (`urlward.dns.aliases`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from urlward.dns.aliases import Aliases
from urlward.dns.faults import Faults
from urlward.dns.frame_stream import CLIENT_RESPONSE, FrameStream, Tapped, read_tapped
from urlward.dns.handling import Answers
from urlward.dns.resolver_socket import ResolverSocket
from urlward.dns.wire import HEADER, Scan, WireError, read_question, scan

logger = logging.getLogger("urlward.gateway")

_PIECE = 16_384
"""Bytes that are read before something else has its turn: some 100 answers, which take 3 ms."""

_RESPONSE = 0x80


class DnstapServer(ResolverSocket):
    """Server at a socket for dnstap.

    What a resolver sends is read as fast as it is acted on: the kernel and the resolver hold the rest, and
    the resolver drops what is too much.

    Args:
        answers: what becomes of them.
        aliases: puts the resolvers' own questions together.
        faults: are told what goes wrong.
        count: told of each response: ``passed``, ``steered`` or ``unread``.
    """

    def __init__(
        self,
        answers: Answers,
        aliases: Aliases,
        faults: Faults,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(self._protocol)
        self._answers = answers
        self._aliases = aliases
        self._faults = faults
        self._count = count

    def _protocol(self) -> asyncio.BaseProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(_PIECE), self._take)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened(writer.transport)
        stream = FrameStream()
        try:
            while not stream.ended and (data := await reader.read(_PIECE)):
                before = stream.started
                await self._act(stream, data)
                if stream.started and not before:
                    logger.info("dnstap: a resolver tells of its answers (%d connections)", self.connections)
                if stream.reply:
                    writer.write(stream.reply)
                    stream.reply = b""
        except OSError:
            pass  # it has gone
        except Exception as e:  # noqa: BLE001 - one resolver must not end what others tell
            self._faults.say(e, "a dnstap connection ends, and what the resolver had yet to tell is lost")
        finally:
            self.closed(writer.transport)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        if stream.started:
            logger.info("dnstap: a resolver has gone (%d connections)", self.connections)

    async def _act(self, stream: FrameStream, data: bytes) -> None:
        """Act on what a resolver says.

        Raises:
            DnstapError: that ends with what is not to be read.
        """
        work: list[Coroutine[Any, Any, None]] = []
        try:
            for frame in stream.feed(data):
                work += self._work(frame)
        finally:
            # Even what is there already is read only when others have had their turn.
            await asyncio.gather(asyncio.sleep(0), *work)

    def _work(self, frame: bytes) -> list[Coroutine[Any, Any, None]]:
        """What is to be done about a frame.

        Raises:
            DnstapError: it cannot be read.
        """
        tapped = read_tapped(frame)
        if tapped is None:
            return []
        try:
            reads = self._read(tapped)
        except WireError as e:
            # Such as a listed name's servers can have sent it, and the resolver passed on.
            self._count("unread")
            self._faults.say(
                e, "an answer that dnstap tells of is not understood: its addresses are not steered"
            )
            return []
        listed = [read for read in reads if self._answers.look(read) and _leads(read)]
        self._count("steered" if listed else "passed")
        return [self._answers.follow(read) for read in listed]

    def _read(self, tapped: Tapped) -> list[Scan]:
        data = tapped.message
        if len(data) < HEADER or not data[2] & _RESPONSE or data[4:6] != b"\0\1":
            raise WireError
        question = read_question(data)
        read = scan(data, question)
        if tapped.kind == CLIENT_RESPONSE:
            return [self._aliases.told(read)]
        return self._aliases.take(read, tapped.zone)


def _leads(read: Scan) -> bool:
    return bool(read.four or read.six or read.beside)
