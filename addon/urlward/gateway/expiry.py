"""Expiry of set elements: how long one stays, asked of the kernel's nf_tables without the library.

The library answers it from a copy of the whole set, which takes tens of milliseconds where the set is
full; the kernel itself takes microseconds (``linux/netfilter/nf_tables.h``, ``NFT_MSG_GETSETELEM``).
"""

import errno
import struct
from collections.abc import Iterator

from urlward.gateway.errors import NftError
from urlward.gateway.netlink import DUMP, Kind, Netlink, attribute, attributes, nest, set_elements, text

_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEM = _KEY = _VALUE = 1
_EXPIRATION = 5


class Expiry:
    """Query for the remaining time of elements, in the network namespace of the thread that makes it.

    Args:
        table: name of a table of family ``inet``.
    """

    def __init__(self, table: str) -> None:
        self._table = text(_TABLE, table)
        self._netlink = Netlink()

    def left(self, name: str, key: bytes) -> float:
        """Seconds until an element of a set expires.

        Args:
            name: of the set.
            key: of the element, as the kernel has it.

        Returns:
            0 where it is not there, infinity where it has no timeout.

        Raises:
            NftError: the kernel does not say.
        """
        element = nest(_ELEMENTS, nest(_ELEM, nest(_KEY, attribute(_VALUE, key))))
        try:
            found = self._netlink.ask(Kind.GETSETELEM, self._table + text(_SET, name) + element)[0].body
        except OSError as e:
            if e.errno == errno.ENOENT:
                return 0.0
            raise NftError.of(e) from e
        for wanted in (_ELEMENTS, _ELEM, _EXPIRATION):
            values = dict(attributes(found))
            if wanted not in values:
                return float("inf")
            found = values[wanted]
        milliseconds: int = struct.unpack("!Q", found)[0]
        return milliseconds / 1000

    def each(self, name: str) -> Iterator[tuple[float, bytes]]:
        """All elements of a set, with the seconds until each expires; ``inf`` where it has no timeout.

        Raises:
            NftError: the kernel does not say.
        """
        try:
            answers = self._netlink.ask(Kind.GETSETELEM, self._table + text(_SET, name), DUMP)
        except OSError as e:
            raise NftError.of(e) from e
        for answer in answers:
            for key, left, _ in set_elements(answer.body):
                # Behind the headers of the key and of the value in it.
                size = struct.unpack_from("=H", key, 4)[0]
                yield float("inf") if left is None else left / 1000, key[8 : 4 + size]

    def close(self) -> None:
        """Close the connection."""
        self._netlink.close()
