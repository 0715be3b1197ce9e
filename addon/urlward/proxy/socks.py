"""SOCKS5 handshake of a client (RFC 1928), with user and password (RFC 1929) where they are required."""

import binascii
import socket
from collections.abc import Callable
from typing import Final

_VERSION: Final = 5
_NO_AUTHENTICATION, _PASSWORD = 0, 2
_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NOT_ALLOWED, _UNREACHABLE, _NOT_SUPPORTED, _NO_SUCH_ADDRESS_TYPE = 2, 4, 7, 8

_NO_METHOD: Final = b"\x05\xff"
_RIGHT, _WRONG = b"\x01\x00", b"\x01\x01"
SUCCEEDED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
"""The origin is connected to later, once it is known what is asked of it."""


class SocksError(Exception):
    """A client's message that is not valid SOCKS5.

    Attributes:
        reply: bytes to send it.
    """

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__("not SOCKS5")
        self.reply = reply


class SocksHandshake:
    """Server side of a SOCKS5 handshake.

    Args:
        takes_port: whether a destination may have a port.
        authenticates: whether a user and a password are asked for.

    Attributes:
        token: they, as HTTP has them (`urlward.proxy.passwords`), while `admit` is waited for.
        destination: host and port, once the client has named them; a name as a byte string.
        rest: what has come behind that.
    """

    __slots__ = ("_authenticates", "_greeted", "_held", "_takes_port", "destination", "rest", "token")

    def __init__(self, takes_port: Callable[[int], bool], *, authenticates: bool = False) -> None:
        self.token = b""
        self.destination: tuple[str, int] | None = None
        self.rest = b""
        self._takes_port = takes_port
        self._authenticates = authenticates
        self._held = b""
        self._greeted = False

    @property
    def begun(self) -> bool:
        """Whether the client has sent anything."""
        return self._greeted or bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Process received bytes; returns the reply.

        Raises:
            SocksError: the connection is to be closed.
        """
        self._held += data
        answer = b""
        if not self._greeted:
            answer = self._greet()
        if self._greeted and self._authenticates:
            self._read_password()
        elif self._greeted:
            try:
                answer += self._request()
            except SocksError as e:
                raise SocksError(answer + e.reply) from e
        return answer

    def admit(self, *, admitted: bool) -> bytes:
        """Say what became of the password; what has come behind it is read with the next `feed`.

        Raises:
            SocksError: it is wrong.
        """
        if not admitted:
            raise SocksError(_WRONG)
        self.token = b""
        self._authenticates = False
        return _RIGHT

    def _read_password(self) -> None:
        held = self._held
        if self.token or len(held) < 2:
            return
        if held[0] != 1:
            raise SocksError
        middle = 2 + held[1]
        end = middle + 1 + held[middle] if len(held) > middle else 0
        if end and len(held) >= end:
            self.token = binascii.b2a_base64(held[2:middle] + b":" + held[middle + 1 : end], newline=False)
            self._held = held[end:]

    def _greet(self) -> bytes:
        held = self._held
        if held and held[0] != _VERSION:
            raise SocksError
        if len(held) < 2 or len(held) < 2 + held[1]:
            return b""
        methods, self._held = held[2 : 2 + held[1]], held[2 + held[1] :]
        method = _PASSWORD if self._authenticates else _NO_AUTHENTICATION
        if method not in methods:
            raise SocksError(_NO_METHOD)
        self._greeted = True
        return bytes([_VERSION, method])

    def _request(self) -> bytes:
        held = self._held
        if len(held) < 5:
            return b""
        if held[0] != _VERSION:
            raise SocksError
        kind = held[3]
        sizes = {_IPV4: 4, _NAME: 1 + held[4], _IPV6: 16}
        if kind not in sizes:
            raise SocksError(_refused(_NO_SUCH_ADDRESS_TYPE))
        if held[1] != _CONNECT:
            raise SocksError(_refused(_NOT_SUPPORTED))
        end = 4 + sizes[kind]
        if len(held) < end + 2:
            return b""
        host = held[4:end]
        if kind == _NAME:
            name = host[1:].decode("latin-1")
            if "\\" in name:
                raise SocksError(_refused(_UNREACHABLE))  # by which the system's resolver escapes letters
        else:
            name = socket.inet_ntop(socket.AF_INET if kind == _IPV4 else socket.AF_INET6, host)
        port = int.from_bytes(held[end : end + 2])
        if not self._takes_port(port):
            raise SocksError(_refused(_NOT_ALLOWED))
        self.destination = name, port
        self.rest = held[end + 2 :]
        self._held = b""
        return SUCCEEDED


def _refused(code: int) -> bytes:
    return bytes([_VERSION, code]) + SUCCEEDED[2:]
