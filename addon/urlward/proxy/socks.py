"""SOCKS5: what a client says before its connection begins (RFC 1928), without authentication."""

import socket
from typing import Final

_VERSION: Final = 5
_NO_AUTHENTICATION: Final = 0
_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NOT_SUPPORTED, _NO_SUCH_ADDRESS_TYPE = 7, 8

_NO_METHOD: Final = b"\x05\xff"
_METHOD: Final = b"\x05\x00"
SUCCEEDED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
"""The origin is connected to later, once it is known what is asked of it."""


class SocksError(Exception):
    """What the client says is not understood.

    Attributes:
        reply: bytes to send it.
    """

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__("not SOCKS5")
        self.reply = reply


class SocksHandshake:
    """Reads a client's part.

    Attributes:
        destination: host and port, once the client has named them; a name as a byte string.
        rest: what has come behind that.
    """

    __slots__ = ("_greeted", "_held", "destination", "rest")

    def __init__(self) -> None:
        self.destination: tuple[str, int] | None = None
        self.rest = b""
        self._held = b""
        self._greeted = False

    @property
    def begun(self) -> bool:
        """Whether the client has said anything."""
        return self._greeted or bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Take what has come; what is to be answered.

        Raises:
            SocksError: the connection is to be closed.
        """
        self._held += data
        answer = b""
        if not self._greeted:
            answer = self._greet()
        if self._greeted:
            answer += self._request()
        return answer

    def _greet(self) -> bytes:
        held = self._held
        if held and held[0] != _VERSION:
            raise SocksError
        if len(held) < 2 or len(held) < 2 + held[1]:
            return b""
        methods, self._held = held[2 : 2 + held[1]], held[2 + held[1] :]
        if _NO_AUTHENTICATION not in methods:
            raise SocksError(_NO_METHOD)
        self._greeted = True
        return _METHOD

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
        else:
            name = socket.inet_ntop(socket.AF_INET if kind == _IPV4 else socket.AF_INET6, host)
        self.destination = name, int.from_bytes(held[end : end + 2])
        self.rest = held[end + 2 :]
        self._held = b""
        return SUCCEEDED


def _refused(code: int) -> bytes:
    return bytes([_VERSION, code]) + SUCCEEDED[2:]
