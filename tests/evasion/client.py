"""Sends a row's bytes as they are, and says what came back.

The bytes are the trick, so no HTTP client stands between; TLS goes through memory, so that the
ClientHello can be cut up as well.
"""

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial

from evasion.lab import Lab, Way
from evasion.origins import INNOCENT, MARKER
from evasion.rows import Row, Tls, cut_up

SILENCE = 1.2
"""Seconds without a byte that count as no answer."""
PATIENCE = 30.0
"""The same where an answer must come, be it late on a machine that has much else to do."""
GRACE = 0.03
"""Seconds in which more answers than expected would come."""

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass
class Answer:
    """What a client got.

    Attributes:
        data: all bytes, decrypted.
        ended: closed by the other side.
        silent: waited for more in vain.
        seconds: from the first byte sent to the last received.
    """

    data: bytes = b""
    ended: bool = False
    silent: bool = False
    seconds: float = 0.0
    error: str = ""

    @property
    def leaked(self) -> bool:
        return MARKER.encode() in self.data

    def outcomes(self) -> list[str]:
        """A word for each response; see `rows.Row.expected`."""
        found = [word(status, head) for status, head, _ in responses(self.data)]
        if not found and INNOCENT.encode() in self.data:
            found.append("served")  # HTTP/0.9, or HTTP/2 in the clear
        return found

    def complete(self) -> int:
        """How many responses have come whole, as far as one can tell."""
        return sum(whole for _, _, whole in responses(self.data))


def responses(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Status, head and completeness of each final HTTP/1 response in a row of them."""
    at = 0
    while match := _STATUS.match(data, at):
        end = data.find(b"\r\n\r\n", at)
        head = data[at : end + 2 if end >= 0 else len(data)].lower()
        length = _LENGTH.search(head)
        at = end + 4 if end >= 0 else len(data)
        whole = end >= 0
        # What follows at once is no body: this answered HEAD, or has none.
        if length and not data.startswith(b"HTTP/1.", at):
            whole = whole and len(data) - at >= int(length[1])
            at = min(len(data), at + int(length[1]))
        elif not length and int(match[1]) >= 200 and not data.startswith(b"HTTP/1.", at):
            last = data.find(b"\r\n0\r\n\r\n", at - 4) if b"chunked" in head else -1
            at = last + 7 if last >= 0 else len(data)
            whole = whole and (b"chunked" not in head or last >= 0)
        if match[1] not in (b"100", b"103"):
            yield int(match[1]), head, whole


def word(status: int, head: bytes) -> str:
    """The outcome that a response stands for."""
    if status in (451, 403) and b"blocked-by" in head:
        return "blocked"
    return "refused" if status >= 400 else "served"


class Plain:
    """A connection whose bytes are what is sent."""

    def __init__(self, s: socket.socket) -> None:
        self.socket = s

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, timeout: float) -> bytes:
        """Raises `TimeoutError` where nothing comes; empty at the end."""
        self.socket.settimeout(timeout)
        return self.socket.recv(65536)

    def close(self) -> None:
        self.socket.close()


@cache
def _context(alpn: tuple[str, ...], version: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = _VERSIONS[version]
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Encrypted:
    """The same inside TLS; each `send` is a record of its own."""

    def __init__(self, s: socket.socket, tls: Tls, session: ssl.SSLSession | None = None) -> None:
        self.socket = s
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = _context(tls.alpn, tls.version)
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=tls.sni or None, session=session)
        self._shake_hands(tls)

    def _shake_hands(self, tls: Tls) -> None:
        s, first = self.socket, True
        s.settimeout(PATIENCE)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(tls if first else None)
                first = False
                data = s.recv(65536)
                if not data:
                    raise ConnectionError("closed in the handshake") from None
                self._in.write(data)
                continue
            break
        self._flush()

    def _flush(self, tls: Tls | None = None) -> None:
        data = self._out.read()
        if tls is None:
            self.socket.sendall(data)
            return
        for segment in cut_up(split_records(data, tls.records, tls.record_version), tls.cut):
            self.socket.sendall(segment)
            if tls.cut:
                time.sleep(0.0003 if tls.cut == "every" else 0.002)

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()

    def receive(self, timeout: float) -> bytes:
        self.socket.settimeout(timeout)
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                data = self.socket.recv(65536)
                if not data:
                    return b""
                self._in.write(data)
            except ssl.SSLZeroReturnError:
                return b""

    def close(self) -> None:
        self.socket.close()


def split_records(hello: bytes, number: int, version: int = 0) -> bytes:
    """Spread one TLS record over several, of a version (RFC 8446 section 5.1)."""
    kind, body = hello[:1] + (version.to_bytes(2) if version else hello[1:3]), hello[5:]
    size = -(-len(body) // number)
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(kind + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def open_connection(lab: Lab, way: Way, tls: Tls, to_listed: bool = False) -> Plain | Encrypted:
    """Connect along a way; with TLS where its wire says so.

    Raises:
        OSError: refused, reset or closed in the handshake.
    """
    s = lab.connect(way, to_listed)
    try:
        if way.wire == "plain":
            return Plain(s)
        if not tls.resume:
            return Encrypted(s, tls)
        first = Encrypted(s, tls)
        first.send(b"GET /innocent.html HTTP/1.1\r\nHost: paged.example\r\nConnection: close\r\n\r\n")
        with suppress(OSError):
            while first.receive(PATIENCE):
                pass
        session = first.tls.session
        first.close()
        s = lab.connect(way, to_listed)
        return Encrypted(s, tls, session)
    except BaseException:
        s.close()
        raise


def exchange(lab: Lab, way: Way, row: Row, *, must: int = 0) -> Answer:
    """Send a row along a way. Whatever goes wrong with the connection is an answer too.

    Args:
        must: so many responses must come.
    """
    answer = Answer()
    began = time.monotonic()
    try:
        connection = open_connection(lab, way, row.tls, row.listed_address)
    except OSError as e:
        answer.ended, answer.error = True, f"{type(e).__name__}: {e}"
        return answer
    expected = max(len(words) for words in row.expected.values())
    try:
        for number, turn in enumerate(row.turns):
            last = number == len(row.turns) - 1
            with suppress(OSError):
                _send(connection, row, turn)
            silence = SILENCE if last else SILENCE / 2
            wanted = expected if last else number + 1
            due = partial(_is_due, answer, must, None if last or number >= must else len(answer.data))
            _receive(connection, answer, wanted, due, silence)
            if answer.ended:
                break
    finally:
        connection.close()
    answer.seconds = time.monotonic() - began
    return answer


def _send(connection: Plain | Encrypted, row: Row, turn: bytes) -> None:
    segments = row.segments(turn)
    for number, segment in enumerate(segments):
        connection.send(segment)
        if number < len(segments) - 1:
            time.sleep(row.pause)


def _is_due(answer: Answer, must: int, before: int | None) -> bool:
    """Whether more has to come; where more is to be sent then, an interim response is enough.

    Args:
        answer: so far.
        must: so many responses.
        before: bytes that had come before what was sent last; None where nothing is sent any more.
    """
    return len(answer.outcomes()) < must if before is None else len(answer.data) == before


def _receive(
    connection: Plain | Encrypted, answer: Answer, wanted: int, due: Callable[[], bool], silence: float
) -> None:
    while True:
        enough = answer.complete() >= wanted
        try:
            data = connection.receive(GRACE if enough else PATIENCE if due() else silence)
        except TimeoutError:
            answer.silent = answer.silent or not enough
            return
        except OSError as e:
            answer.ended, answer.error = True, f"{type(e).__name__}: {e}"
            return
        if not data:
            answer.ended = True
            return
        answer.data += data
