"""TLS ClientHello: the server name that a client asks for, read from the first bytes it sends.

Servers differ in what they take for one. OpenSSL and BoringSSL look at the first byte of a record's
version alone (0x03), Go takes any below 0x1000; OpenSSL passes over empty records before it, those of type
change_cipher_spec too, GnuTLS over what is in those, Go over warnings. RFC 8446 section 5.1 has the version
ignored, and so it is here. What follows must be as RFC 8446 section 4.1.2 and RFC 6066 section 3 have it,
since what two servers read differently is refused.
"""

import struct
from typing import Final, NamedTuple

from urlward.engine.errors import UrlwardError

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_MAJOR = 3
_SERVER_NAME, _HOST_NAME = 0, 0
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_WARNING = b"\0\2\1"
"""Length and level of an alert that ends nothing (RFC 5246 section 7.2)."""
_ALERT_SIZE = _RECORD_HEADER + 2
_VERSION_AND_RANDOM = 2 + 32
_NUMBERS = struct.Struct(">HH").unpack_from
"""An extension's type and length."""
_SERVER_HELLO = b"\x02"
# Of the record that begins an origin's answer: the header, then the message's header and version.
_RANDOM = slice(5 + 4 + 2, 5 + 4 + 2 + 32)
_RETRY_BYTES = _RANDOM.stop
# RFC 8446 section 4.1.3: SHA-256 of "HelloRetryRequest" in place of a random.
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_MOST_BYTES = 1 << 16
_MOST_RECORDS = 512


class ClientHelloError(UrlwardError):
    """A ClientHello that is damaged, or larger than any client's."""


class _OtherMessage(ClientHelloError):
    """A handshake message of another type."""


class ClientHello(NamedTuple):
    """Parsed TLS ClientHello.

    Attributes:
        sni: the name in its server_name extension as sent, in any bytes; None where it has none.
    """

    sni: bytes | None


OLD_HELLO_SEEN: Final = 4
"""Bytes that tell a ClientHello of SSL 2.0: its length, its type, and of its version the first."""


def may_be_client_hello(data: bytes) -> bool:
    """Whether a connection that begins with these bytes may begin with a ClientHello; true of none.

    Other protocols may begin with the same byte. So where no version of TLS that is in use follows it, the
    message must be a ClientHello; where one does, a message of another type is an error of TLS. Records that
    some server passes over may stand before it.
    """
    position = 0
    while (kind := data[position : position + 1]) in (b"\x14", b"\x15", b"\x16"):
        if kind == b"\x14":
            return data[position + 1 : position + 2] in (b"", b"\3")
        if kind == b"\x15":
            if not _WARNING.startswith(data[position + 3 : position + 6]):
                return False
            position += _ALERT_SIZE
            continue
        size = data[position + 3 : position + _RECORD_HEADER]
        position += _RECORD_HEADER
        if size != b"\0\0":
            return len(data) <= position or data[position] == _CLIENT_HELLO or data[1] == _MAJOR
    return len(data) <= position


def may_be_old_client_hello(data: bytes) -> bool:
    """Whether a connection that begins with these bytes, one at least, may begin with SSL 2.0's ClientHello.

    There are servers that take it for any version of TLS (RFC 5246 appendix E.2). It names nobody.
    """
    return data[0] >= 0x80 and data[2:3] in (b"", b"\1") and data[3:4] in (b"", b"\0", b"\3")


def read_client_hello(data: bytes) -> ClientHello | None:
    """Read the ClientHello that a connection begins with, over any number of TLS records.

    Args:
        data: all that has come; `may_be_client_hello` of it.

    Returns:
        None where more bytes are needed.

    Raises:
        ClientHelloError: it will never be one, or is not to be read in one way.
    """
    found = _message(data)
    return None if found is None else parse_client_hello(found[0][_MESSAGE_HEADER:])


class SecondHello:
    """Watcher of a relayed TLS connection for a second ClientHello, which may name another server.

    An origin may answer the first with a HelloRetryRequest (RFC 8446 section 4.1.4), and go by the name in
    the second. A client must not change it (section 4.1.2), so one that does is stopped. Between the two, a
    client may send change_cipher_spec and early data; it may also send the second before it is asked to.

    Attributes:
        done: whether no further ClientHello can come: all that is held may be sent on.
    """

    __slots__ = ("_answer", "_first", "_held", "_skip", "done")

    def __init__(self) -> None:
        self.done = False
        self._held = bytearray()
        self._answer = b""
        self._first: bytes | None = None
        """The first ClientHello, which has been read; again, should a second follow."""
        self._skip = 0
        """Bytes that are left of a record that is no handshake."""

    def client(self, data: bytes) -> bytes:
        """The bytes from the client, now and before, that may be sent on.

        Raises:
            ClientHelloError: a second ClientHello that names another server, or is damaged.
        """
        held = self._held
        held += data
        position = 0
        while not self.done:
            if self._skip:
                step = min(self._skip, len(held) - position)
                position += step
                self._skip -= step
            if len(held) < position + _RECORD_HEADER:
                break
            if held[position] != _HANDSHAKE:
                self._skip = _RECORD_HEADER + (held[position + 3] << 8 | held[position + 4])
                continue
            try:
                found = _message(bytes(held[position:]))
            except _OtherMessage:
                # An older TLS goes on with its key exchange, after which all is encrypted.
                self.done = True
                break
            if found is None:
                break
            message, end = found
            if self._first is None:
                self._first = message
            else:
                first, second = (
                    parse_client_hello(each[_MESSAGE_HEADER:]) for each in (self._first, message)
                )
                if first != second:
                    raise ClientHelloError("a second ClientHello for another server")
                self.done = True
            position += end
        if self.done:
            position = len(held)
        out = bytes(held[:position])
        del held[:position]
        return out

    def server(self, data: bytes) -> None:
        """See by what the origin sends first whether it asks for a second ClientHello."""
        if not self.done:
            self._answer += data[:_RETRY_BYTES]
            self.done = not _RETRY.startswith(self._answer[_RANDOM]) or (
                self._answer[:1] != b"\x16" or self._answer[5:6] not in (b"", _SERVER_HELLO)
            )


def _message(data: bytes) -> tuple[bytes, int] | None:
    """The handshake message with its header, without those of its records, and where the last of them ends.

    Its size is known first, so that nothing is put together before it is all there.
    """
    if data[:1] == b"\x16" and data[_RECORD_HEADER : _RECORD_HEADER + 1] == b"\1":
        end = _RECORD_HEADER + (data[3] << 8 | data[4])
        message = data[_RECORD_HEADER:end]
        if len(data) >= end and len(message) == _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER]):
            return message, end  # in a record of its own, as nearly always
    position = 0
    fragments: list[tuple[int, int]] = []
    head = b""
    have, size = 0, _MESSAGE_HEADER
    for _ in range(_MOST_RECORDS):
        if len(data) < position + _RECORD_HEADER:
            if have and position < len(data) and data[position] != _HANDSHAKE:
                raise ClientHelloError("another record inside a ClientHello")
            return None
        if data[position] != _HANDSHAKE:
            raise ClientHelloError("another record inside a ClientHello")
        start = position + _RECORD_HEADER
        position = start + (data[position + 3] << 8 | data[position + 4])
        fragments.append((start, position))
        have += position - start
        if len(head) < _MESSAGE_HEADER:
            head += data[start : min(position, start + _MESSAGE_HEADER - len(head))]
            if head and head[0] != _CLIENT_HELLO:
                raise _OtherMessage("not a ClientHello")
            if len(head) == _MESSAGE_HEADER:
                size += int.from_bytes(head[1:])
                if size > _MOST_BYTES:
                    raise ClientHelloError("a ClientHello that is too large")
        if len(data) < position:
            return None
        if len(head) == _MESSAGE_HEADER and have >= size:
            if have > size:
                # RFC 8446 section 5.1; a second one behind it might be read.
                raise ClientHelloError("a ClientHello that does not end with its record")
            return b"".join(data[a:b] for a, b in fragments), position
    raise ClientHelloError("a ClientHello in too many records")


def parse_client_hello(body: bytes) -> ClientHello:
    """Read a ClientHello's body, which follows its four bytes of type and length.

    Raises:
        ClientHelloError: not one, or with more than one server name.
    """
    names: list[bytes] = []
    try:
        at = _VERSION_AND_RANDOM
        at += 1 + body[at]  # session id
        at += 2 + (body[at] << 8 | body[at + 1])  # cipher suites
        at += 1 + body[at]  # compression methods
        if at != len(body):
            at = _vector(body, at)
            while at < len(body):
                kind, size = _NUMBERS(body, at)
                start, at = at + 4, at + 4 + size
                if kind == _SERVER_NAME:
                    names.append(body[start:at])
            if at != len(body):
                raise IndexError
        return ClientHello(_host_name(names))
    except (IndexError, struct.error) as e:
        raise ClientHelloError("a damaged ClientHello") from e


def _vector(data: bytes, at: int) -> int:
    """Where the vector begins that is all the rest of the data, behind the two bytes of its length.

    Raises:
        IndexError: it is none.
    """
    if at + 2 + (data[at] << 8 | data[at + 1]) != len(data):
        raise IndexError
    return at + 2


def _host_name(found: list[bytes]) -> bytes | None:
    """Read the server_name extension (RFC 6066 section 3); it, and a host name in it, come once at most.

    Raises:
        IndexError: it is damaged.
        ClientHelloError: there is more than one name, or an empty one.
    """
    if not found:
        return None
    data, *others = found
    hosts = []
    at = _vector(data, 0)
    while at < len(data):
        start = at + 3
        kind, end = data[at], start + (data[at + 1] << 8 | data[at + 2])
        at = end
        if kind == _HOST_NAME:
            hosts.append(data[start:end])
    if at != len(data):
        raise IndexError
    if others or len(hosts) > 1 or b"" in hosts:
        raise ClientHelloError("more than one server name, or an empty one")
    return hosts[0] if hosts else None
