"""MAC addresses of clients on this machine's own networks, from the kernel's table of neighbours.

The table is read in the background, every few seconds and soon after an address comes up that is not in
it, so that a request never waits for it. Until then a new client is in the group of its network.
"""

import asyncio
import json
import logging
import subprocess
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from urlward.engine.entry import canonical_network
from urlward.engine.errors import UrlwardError

logger = logging.getLogger("urlward.lists")

INTERVAL = 5.0
"""Seconds between two looks at the table."""

SOON = 0.5
"""Seconds at least between two looks, however many new clients come."""

_COMMAND = ("ip", "-j", "neigh", "show")
_TIMEOUT = 5.0


class Neighbours:
    """Table of the MAC addresses of on-link clients.

    Args:
        read: gives address and MAC address of each neighbour.

    Attributes:
        changes: rises whenever an address has come to another MAC address.
    """

    def __init__(self, read: Callable[[], dict[str, str]] | None = None) -> None:
        self.changes = 0
        self._read = read or read_table
        self._macs: dict[str, str] = {}
        self._wanted = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = False

    def mac(self, address: str) -> str | None:
        """MAC address of a client, in lower case with colons; None where it is not known (yet)."""
        found = self._macs.get(address)
        if found is None and not self._wanted.is_set():
            if self._loop is None:
                self._wanted.set()
            else:  # who asks may be in any thread (`urlward.library`)
                with suppress(RuntimeError):  # it is closed: nobody looks any more
                    self._loop.call_soon_threadsafe(self._wanted.set)
        return found

    def refresh(self) -> None:
        """Read the table now. Where that fails, what is known stays, and the log says so once."""
        try:
            self._take(self._read())
        except UrlwardError as e:
            self._failed(e)

    async def watch(self) -> None:
        """Update the table until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                self._take(await asyncio.to_thread(self._read))
            except UrlwardError as e:
                self._failed(e)
            await asyncio.sleep(SOON)
            try:
                async with asyncio.timeout(INTERVAL - SOON):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()

    def _take(self, macs: dict[str, str]) -> None:
        self._told = False
        if macs != self._macs:
            self._macs = macs
            self.changes += 1

    def _failed(self, error: UrlwardError) -> None:
        if not self._told:
            logger.warning("MAC addresses of clients are not known, so networks decide: %s", error)
        self._told = True


def read_table() -> dict[str, str]:
    """Read the address and MAC address of every neighbour, as ``ip neigh`` of iproute2 does.

    An address that two interfaces know under different MAC addresses is nobody's.

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
        return _macs(json.loads(done.stdout or b"[]"))
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UrlwardError("ip -j neigh says nothing that is understood") from e


def _macs(table: list[dict[str, Any]]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for neighbour in table:
        mac = neighbour.get("lladdr")
        if mac and "FAILED" not in neighbour.get("state", ()):
            address = canonical_network(str(ip_address(neighbour["dst"].partition("%")[0])))
            found.setdefault(str(address.network_address), set()).add(mac.lower())
    return {address: next(iter(macs)) for address, macs in found.items() if len(macs) == 1}
