"""MAC addresses of clients on this machine's own networks, from the kernel's table of neighbours.

The table is read in the background, every few seconds and soon after an address comes up that is not in
it, so that a request never waits for it. Until then a new client is in the group of its network.

The table may have tens of thousands of rows, and change all the time, by whoever takes one address after
another. So of a row whose MAC address no group names nothing is read but its address, and it makes no change.
"""

import asyncio
import logging
import subprocess
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from ipaddress import ip_address

import msgspec

from urlward.engine.entry import canonical_network
from urlward.engine.errors import UrlwardError

logger = logging.getLogger("urlward.lists")

INTERVAL = 5.0
"""Seconds between two looks at the table."""

SOON = 0.5
"""Seconds at least between two looks, however many new clients come."""

_COMMAND = ("ip", "-j", "neigh", "show")
_TIMEOUT = 5.0
_ODD = "ip -j neigh says nothing that is understood"


class Neighbour(msgspec.Struct, frozen=True, gc=False):
    """Row of the table.

    Attributes:
        dst: address.
        lladdr: MAC address; empty where none is known.
        state: of the row.
    """

    dst: str
    lladdr: str = ""
    state: list[str] = []


_ROWS = msgspec.json.Decoder(list[Neighbour])


class Neighbours:
    """Table of the MAC addresses of on-link clients.

    Args:
        named: MAC addresses that groups name, in lower case.
        read: gives the rows of the table.

    Attributes:
        changes: rises whenever an address has come to one of these MAC addresses, or has it no more.
    """

    def __init__(self, named: Collection[str], read: Callable[[], Sequence[Neighbour]] | None = None) -> None:
        self.changes = 0
        self._named = frozenset(named)
        self._read = read or read_table
        self._macs: dict[str, str] = {}
        self._there: set[str] = set()
        """All addresses of the table, so that nobody is looked for who is there."""
        self._wanted = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = False

    def mac(self, address: str) -> str | None:
        """MAC address of a client, in lower case with colons; None where it is not known (yet), or no group
        names it."""
        found = self._macs.get(address)
        if found is None and address not in self._there and not self._wanted.is_set():
            if self._loop is None:
                self._wanted.set()
            else:  # who asks may be in any thread (`urlward.library`)
                with suppress(RuntimeError):  # it is closed: nobody looks any more
                    self._loop.call_soon_threadsafe(self._wanted.set)
        return found

    def refresh(self) -> None:
        """Read the table now. Where that fails, what is known stays, and the log says so once."""
        try:
            self._take(*self._look())
        except UrlwardError as e:
            self._failed(e)

    async def watch(self) -> None:
        """Update the table until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                self._take(*await asyncio.to_thread(self._look))
            except UrlwardError as e:
                self._failed(e)
            await asyncio.sleep(SOON)
            try:
                async with asyncio.timeout(INTERVAL - SOON):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()

    def _look(self) -> tuple[dict[str, str], set[str]]:
        """Named MAC addresses by address, and all addresses; an address that two interfaces know under
        different MAC addresses is nobody's.

        Raises:
            UrlwardError: the table cannot be read.
        """
        rows = [row for row in self._read() if row.lladdr and "FAILED" not in row.state]
        named = {row.dst for row in rows if row.lladdr.lower() in self._named}
        found: dict[str, set[str]] = {}
        for row in rows:
            if row.dst in named:
                found.setdefault(_client(row.dst), set()).add(row.lladdr.lower())
        macs = {address: next(iter(of_it)) for address, of_it in found.items() if len(of_it) == 1}
        return macs, {row.dst for row in rows}

    def _take(self, macs: dict[str, str], there: set[str]) -> None:
        self._told = False
        self._there = there
        if macs != self._macs:
            self._macs = macs
            self.changes += 1

    def _failed(self, error: UrlwardError) -> None:
        if not self._told:
            logger.warning("MAC addresses of clients are not known, so networks decide: %s", error)
        self._told = True


def _client(address: str) -> str:
    """Address of a row, as a client's is written.

    Raises:
        UrlwardError: it is none.
    """
    try:
        network = canonical_network(str(ip_address(address.partition("%")[0])))
    except ValueError as e:
        raise UrlwardError(_ODD) from e
    return str(network.network_address)


def read_table() -> Sequence[Neighbour]:
    """Read the rows of the kernel's table, as ``ip neigh`` of iproute2 does.

    Raises:
        UrlwardError: there is no ``ip``, or it fails.
    """
    try:
        done = subprocess.run(_COMMAND, capture_output=True, timeout=_TIMEOUT, check=False)  # noqa: S603 - a fixed command
    except (OSError, subprocess.SubprocessError) as e:
        raise UrlwardError(f"ip: {getattr(e, 'strerror', None) or 'no answer'}") from e
    if done.returncode:
        raise UrlwardError(f"ip -j neigh ends with {done.returncode}")
    try:
        return _ROWS.decode(done.stdout or b"[]")
    except msgspec.DecodeError as e:
        raise UrlwardError(_ODD) from e
