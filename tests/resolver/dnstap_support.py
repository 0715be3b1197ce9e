"""What a resolver sends by dnstap, and this process as the urlward that it tells."""

import asyncio
import struct
from pathlib import Path
from typing import Any

import dns.name

from resolver.hook_support import Urlward
from urlward.dns.dnstap import CLIENT_RESPONSE, CONTENT_TYPE, DnstapServer
from urlward.dns.resolved import Aliases
from urlward.plan import Address
from urlward.proxy.listeners import open_sockets

ACCEPT, START, STOP, READY, FINISH = range(1, 6)


def control(kind: int, *types: bytes) -> bytes:
    fields = b"".join(struct.pack(">II", 1, len(one)) + one for one in types)
    return struct.pack(">III", 0, 4 + len(fields), kind) + fields


READY_FRAME, START_FRAME = control(READY, CONTENT_TYPE), control(START, CONTENT_TYPE)


def data_frame(content: bytes) -> bytes:
    return len(content).to_bytes(4) + content


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def field(number: int, value: int | bytes, *, fixed: bool = False) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if fixed:
        return varint(number << 3 | 5) + value.to_bytes(4, "little")
    return varint(number << 3) + varint(value)


def tapped(message: bytes, kind: int = CLIENT_RESPONSE, zone: str | None = None) -> bytes:
    """A frame as resolvers fill it."""
    inner = (
        field(1, kind)
        + field(2, 1)
        + field(3, 1)
        + field(4, bytes([192, 0, 2, 7]))
        + field(6, 40_000)
        + field(12, 1_700_000_000)
        + field(13, 12_345, fixed=True)
        + (field(11, dns.name.from_text(zone).to_wire()) if zone is not None else b"")
        + field(14, message)
    )
    return field(1, b"resolver") + field(2, b"1.0") + field(14, inner) + field(15, 1)


class Told(Urlward):
    """The side of urlward: lists in force, a kernel that takes notes, and dnstap's socket."""

    def __init__(self, folder: Path, text: str, **dns_values: Any) -> None:
        super().__init__(folder, text, 1.0, "open", **dns_values)

    @property
    def path(self) -> Path:
        """The socket."""
        return self.folder / "dnstap"

    async def start(self) -> None:
        self.aliases = Aliases(1_000, lambda host: bool(self.judge.find((host,))))
        self.taps = DnstapServer(self.answers, self.aliases, self.faults, self.count)
        (self.listening,) = open_sockets(Address(str(self.path), 0, "unix"))
        await self.taps.serve(self.listening)

    async def stop(self) -> None:
        await self.taps.end()


class Sender:
    """A resolver's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, path: Path) -> "Sender":
        made = cls(*await asyncio.open_unix_connection(path))
        made.writer.write(READY_FRAME)
        assert await made.reader.readexactly(12 + 8 + len(CONTENT_TYPE)) == control(ACCEPT, CONTENT_TYPE)
        made.writer.write(START_FRAME)
        return made

    def tell(self, *frames: bytes) -> None:
        self.writer.write(b"".join(map(data_frame, frames)))

    async def end(self) -> None:
        """Say goodbye, and wait until all has been taken."""
        self.writer.write(control(STOP))
        assert await self.reader.read() == control(FINISH)
        self.writer.close()

    async def ended(self) -> bytes:
        """What comes before the other side ends the connection."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""
        finally:
            self.writer.close()
