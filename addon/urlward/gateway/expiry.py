"""How long an element of a set stays: one question to the kernel's nf_tables, without the library.

The library answers it from a copy of the whole set, which takes tens of milliseconds where the set is
full; the kernel itself takes microseconds (``linux/netfilter/nf_tables.h``, ``NFT_MSG_GETSETELEM``).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

from urlward.gateway.errors import NftError

_NETLINK_NETFILTER = 12
_GETSETELEM = 10 << 8 | 13
_REQUEST, _ERROR, _INET = 1, 2, 1
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEM = _KEY = _VALUE = 1
_EXPIRATION = 5
_TYPE = 0x3FFF
"""Without the bits that say how an attribute is encoded."""

_PATIENCE = 10.0


class Expiry:
    """Asks about elements, in the network namespace of the thread that makes it.

    Args:
        table: name of a table of family ``inet``.
    """

    def __init__(self, table: str) -> None:
        self._table = _text(_TABLE, table)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.settimeout(_PATIENCE)
        self._number = 0

    def left(self, name: str, key: bytes) -> float:
        """Seconds that an element of a set stays.

        Args:
            name: of the set.
            key: of the element, as the kernel has it.

        Returns:
            0 where it is not there, infinity where it has no timeout.

        Raises:
            NftError: the kernel does not say.
        """
        element = _nest(_ELEMENTS, _nest(_ELEM, _nest(_KEY, _attribute(_VALUE, key))))
        body = struct.pack("=BBH", _INET, 0, 0) + self._table + _text(_SET, name) + element
        self._number += 1
        header = struct.pack("=IHHII", 16 + len(body), _GETSETELEM, _REQUEST, self._number, 0)
        try:
            self._socket.send(header + body)
            return self._answer()
        except OSError as e:
            raise NftError(f"nftables: {(e.strerror or str(e)).lower()}") from e

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()

    def _answer(self) -> float:
        while True:
            data = self._socket.recv(16_384)
            kind, _, number = struct.unpack_from("=HHI", data, 4)
            if number == self._number:
                break
        if kind == _ERROR:
            code = -struct.unpack_from("=i", data, 16)[0]
            if code == errno.ENOENT:
                return 0.0
            raise OSError(code, os.strerror(code))
        attributes = data[20:]
        for wanted in (_ELEMENTS, _ELEM, _EXPIRATION):
            found = dict(_attributes(attributes))
            if wanted not in found:
                return float("inf")
            attributes = found[wanted]
        milliseconds: int = struct.unpack("!Q", attributes)[0]
        return milliseconds / 1000


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & _TYPE, data[4:length]
        data = data[length + 3 & ~3 :]


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nest(kind: int, value: bytes) -> bytes:
    return _attribute(kind | 0x8000, value)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
