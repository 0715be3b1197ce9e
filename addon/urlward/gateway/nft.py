"""nftables in this process, through libnftables.

A program started for each name would cost a thousand times what the kernel takes for an element. The
library has no maintained binding that handles inet tables, and what is needed of it are these few
functions (`libnftables(3)`).

How long an element stays is asked of the kernel without the library, which answers it from a copy of the
whole set: that takes tens of milliseconds where the set is full, the kernel itself takes microseconds
(``linux/netfilter/nf_tables.h``, ``NFT_MSG_GETSETELEM``).
"""

import ctypes
import errno
import json
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from urlward.gateway.netlink import (
    DUMP,
    MessageKind,
    Netlink,
    attribute,
    attributes,
    ends_interval,
    nest,
    set_elements,
    text,
)
from urlward.gateway.system import NamespaceLock
from urlward.gateway.table import TABLE, NftError, NoTableError, SetFullError
from urlward.process import OURS, called

_TABLE, _SET, _ELEMENTS = 1, 2, 3
_NAME, _TABLE_HANDLE = 1, 4
_ELEM = _KEY = _VALUE = 1
_EXPIRATION = 5
_COUNT = 20

_NOT_THERE = "nftables: no such table, chain, set or element"


class Expiry:
    """Query for the remaining time of elements, and for which table has them, in the network namespace of the
    thread that makes it.

    Args:
        table: name of a table of family ``inet``.
    """

    def __init__(self, table: str) -> None:
        self._name = text(_NAME, table)
        self._table = text(_TABLE, table)
        self._netlink = Netlink()

    def table(self) -> bytes:
        """The kernel's number of the table; one that is made anew has another.

        Raises:
            NoTableError: there is none.
            NftError: the kernel does not say.
        """
        try:
            found = self._netlink.ask(MessageKind.GETTABLE, self._name)[0].body
        except OSError as e:
            if e.errno == errno.ENOENT:
                raise NoTableError(_NOT_THERE) from e
            raise NftError.of(e) from e
        return dict(attributes(found)).get(_TABLE_HANDLE, b"")

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
            query = self._table + text(_SET, name) + element
            found = self._netlink.ask(MessageKind.GETSETELEM, query)[0].body
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
        """All elements of a set, with the seconds until each expires; ``inf`` where it has no timeout. Of an
        interval there is its beginning.

        What changes meanwhile may be there or not. libnftables begins anew then, and never ends with tens
        of thousands of elements, since workers change something several times a second.

        Raises:
            NftError: the kernel does not say.
        """
        try:
            answers = self._netlink.ask(MessageKind.GETSETELEM, self._table + text(_SET, name), DUMP)
        except OSError as e:
            raise NftError.of(e) from e
        for answer in answers:
            for key, left, _ in set_elements(answer.body):
                # Behind the headers of the key and of the value in it.
                size = struct.unpack_from("=H", key, 4)[0]
                if len(key) == 4 + size or not ends_interval(key):
                    yield float("inf") if left is None else left / 1000, key[8 : 4 + size]

    def count(self, name: str) -> int:
        """How many elements a set has, by the kernel's own count (Linux 6.18), in which those may be that
        have expired lately. Where it does not say they are read, for which its time grows by their square.

        Raises:
            NftError: the kernel does not say, or there is no such set.
        """
        try:
            found = self._netlink.ask(MessageKind.GETSET, self._table + text(_SET, name))[0].body
        except OSError as e:
            raise NftError.of(e) from e
        told = dict(attributes(found)).get(_COUNT)
        return sum(1 for _ in self.each(name)) if told is None else int.from_bytes(told)

    def close(self) -> None:
        """Close the connection."""
        self._netlink.close()


_LIBRARY = "libnftables.so.1"
_JSON = 1 << 4
"""NFT_CTX_OUTPUT_JSON."""

_HANDLE = 1 << 3
"""NFT_CTX_OUTPUT_HANDLE."""

_TERSE = 1 << 11
"""NFT_CTX_OUTPUT_TERSE."""

_NOT_PERMITTED = "nftables: reading and changing rules needs root or the capability CAP_NET_ADMIN"

_CAP_NET_ADMIN = 12

_KINDS: tuple[tuple[str, type[NftError], str], ...] = (
    ("Operation not permitted", NftError, _NOT_PERMITTED),
    ("Permission denied", NftError, _NOT_PERMITTED),
    ("No such file or directory", NoTableError, _NOT_THERE),
    ("Too many open files in system", SetFullError, "nftables: a set is full: raise gateway.max_addresses"),
    ("Protocol not supported", NftError, "nftables: this kernel has none: modprobe nf_tables"),
)


class Nft:
    """libnftables connection, in the network namespace of the thread that makes it.

    Threads may share it; they wait for each other.

    Raises:
        NftError: no library or no connection, or this thread lacks the capability, so that the kernel would
            refuse everything.
    """

    def __init__(self) -> None:
        self._library = _library()
        if not _is_capable():
            # The library would say so too, and besides print a line of its own.
            raise NftError(_NOT_PERMITTED)
        self._lock = Lock()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftError("nftables: no connection to the kernel")
        self._expiry = Expiry(TABLE)
        self._turn = NamespaceLock()
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> None:
        """Run all of the commands as one transaction, or none.

        Args:
            commands: in nft's language, separated by line ends or ``;``.

        Raises:
            NoTableError: something that a command names is missing.
            SetFullError: no room for an element.
            NftError: not for this process, or any other refusal.
        """
        self._command(commands, 0)

    def check(self, commands: str) -> None:
        """Check commands with the library and the kernel as `run` would, without changing anything.

        Raises:
            NftError: as `run`.
        """
        self._command(commands, 0, dry=True)

    def shown(self, commands: str) -> str:
        """What ``list`` commands show, as text with handles, without the elements of sets.

        Raises:
            NftError: as `run`.
        """
        return self._command(commands, _HANDLE | _TERSE)

    def json(self, commands: str, *, terse: bool = False) -> list[dict[str, Any]]:
        """What ``list`` commands show, as objects (`libnftables-json(5)`), without the one on the library.

        Args:
            commands: as for `run`.
            terse: whether to leave out the elements of sets.

        Raises:
            NftError: as `run`.
        """
        text = self._command(commands, _JSON | _TERSE if terse else _JSON)
        objects: list[dict[str, Any]] = json.loads(text)["nftables"] if text.strip() else []
        return [one for one in objects if "metainfo" not in one]

    def table(self) -> bytes:
        """The kernel's number of the table; see `Expiry.table`.

        Raises:
            NftError: likewise.
        """
        with self._lock:
            return self._expiry.table()

    def left(self, name: str, key: bytes) -> float:
        """Seconds that an element of one of the table's sets stays; see `Expiry.left`.

        Raises:
            NftError: the kernel does not say.
        """
        with self._lock:
            return self._expiry.left(name, key)

    def each(self, name: str) -> list[tuple[float, bytes]]:
        """Seconds that each element of one of the table's sets stays, and its key; see `Expiry.each`.

        Raises:
            NftError: the kernel does not say.
        """
        with self._lock:
            return list(self._expiry.each(name))

    def count(self, name: str) -> int:
        """How many elements one of the table's sets has; see `Expiry.count`.

        Raises:
            NftError: likewise.
        """
        with self._lock:
            return self._expiry.count(name)

    def turn(self) -> AbstractContextManager[None]:
        """Lock out other processes between reading the kernel's state and changing it."""
        return self._turn.taken()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None
                self._expiry.close()
                self._turn.close()

    def _command(self, commands: str, flags: int, *, dry: bool = False) -> str:
        with self._lock:
            if not self._context:
                raise NftError("nftables: the connection to the kernel is closed")
            self._library.nft_ctx_output_set_flags(self._context, flags)
            self._library.nft_ctx_set_dry_run(self._context, dry)
            with called(OURS):
                code = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            # Reading a buffer empties it for the next command.
            output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
            errors: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if code:
            raise _error(errors.decode(errors="replace"))
        return output.decode()


def _error(text: str) -> NftError:
    """The library's first error, without what it quotes of the command: that may hold addresses."""
    said = next((line for line in text.splitlines() if "Error: " in line), text.strip() or "unknown error")
    said = said.rpartition("Error: ")[2].removeprefix("Could not process rule: ")
    for sign, kind, words in _KINDS:
        if sign in said:
            return kind(words)
    return NftError(f"nftables: {said[:1].lower()}{said[1:]}")


def _is_capable() -> bool:
    try:
        status = Path("/proc/thread-self/status").read_text()
    except OSError:
        return True  # the kernel will say
    effective = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: -1")
    return bool(int(effective.split()[1], 16) >> _CAP_NET_ADMIN & 1)


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as e:
        raise NftError(
            f"nftables: no {_LIBRARY} on this machine: install it (apt install libnftables1, or nftables)"
        ) from e
    context, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_get_output_buffer", text, [context]),
        ("nft_ctx_get_error_buffer", text, [context]),
        ("nft_ctx_output_set_flags", None, [context, ctypes.c_uint]),
        ("nft_ctx_set_dry_run", None, [context, ctypes.c_bool]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
