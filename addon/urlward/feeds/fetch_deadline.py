"""Deadline of a whole exchange, however slow its parts are.

A socket's own timeout begins anew with each byte, and looking up a name cannot be interrupted at all.
So names are looked up in a thread that may be left behind, and a timer ends the connection under
whoever waits on it.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from ipaddress import IPv6Address, IPv6Network, ip_address

from urlward.feeds.fetch_errors import FetchError

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052


class Scope(IntEnum):
    """Scope of an address: from how far away it can be reached, nearest first."""

    HOST = 0
    LINK = 1
    PRIVATE = 2
    GLOBAL = 3


def scope(address: str) -> Scope:
    """The scope of an IP address (RFC 6890), or of the IPv4 address that it stands for.

    Raises:
        ValueError: not an address.
    """
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        inner = ip_address(ip.packed[12:]) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return scope(str(inner))
    if ip.is_loopback or ip.is_unspecified:
        return Scope.HOST
    if ip.is_link_local:
        return Scope.LINK
    return Scope.GLOBAL if ip.is_global else Scope.PRIVATE


def reached(sock: socket.socket) -> Scope:
    """The scope of what a connection has reached: any address of this machine is as good as loopback."""
    address, ours = sock.getpeername()[0], sock.getsockname()[0]
    return Scope.HOST if address == ours else scope(address)


class NarrowError(FetchError):
    """Error where all of a host's addresses are of a scope that it must not have."""


class Deadline:
    """Deadline of an exchange.

    Args:
        seconds: from now.
        peer: whom the error names.
        waited_for: and what did not happen.
        within: a deadline that this one does not outlast.
    """

    def __init__(
        self, seconds: float, peer: str, waited_for: str, *, within: "Deadline | None" = None
    ) -> None:
        self._end = time.monotonic() + seconds
        self._message = f"{peer}: {waited_for} within {seconds:g} s"
        self._within = within

    def left(self) -> float:
        """Seconds left.

        Raises:
            FetchError: none ("timeout").
        """
        outer = self._within.left() if self._within else None
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.error()
        return left if outer is None else min(left, outer)

    def error(self) -> FetchError:
        """Error for a deadline that has passed."""
        return FetchError(self._message, "timeout")

    @contextmanager
    def cutting(self, sock: socket.socket) -> Iterator[None]:
        """Close a connection at the deadline, so that whoever waits on it wakes up.

        An error that comes of that is the deadline's. An end of data is for the caller to doubt: ask
        for what is `left`.

        Args:
            sock: of the connection; what TLS makes of it later is ended as well.

        Raises:
            FetchError: it has passed ("timeout").
        """
        with socket.socket(fileno=os.dup(sock.fileno())) as same:
            timer = threading.Timer(self.left(), _end, (same,))
            timer.daemon = True
            timer.start()
            try:
                yield
            except Exception:
                self.left()
                raise
            finally:
                timer.cancel()
                timer.join()


def _end(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def connect(host: str, port: int, deadline: Deadline, least: Scope = Scope.HOST) -> socket.socket:
    """Open a TCP connection to the first of a host's addresses that accepts one.

    Args:
        host, port: of what.
        deadline: by when.
        least: addresses of a narrower scope are left alone.

    Raises:
        NarrowError: there are only such.
        FetchError: no address ("dns"), or not in time ("timeout").
        OSError: the last address's fault.
    """
    addresses = [
        (family, address) for family, address in resolve(host, port, deadline) if scope(address[0]) >= least
    ]
    if not addresses:
        raise NarrowError(f"{host}: too near", "redirect")
    for number, (family, address) in enumerate(addresses):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # One that swallows everything leaves time for the others.
            sock.settimeout(deadline.left() / (len(addresses) - number))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(deadline.left())
        except OSError as e:
            sock.close()
            failure = deadline.error() if isinstance(e, TimeoutError) else e
        except BaseException:
            sock.close()
            raise
        else:
            if reached(sock) >= least:
                return sock
            sock.close()
            failure = NarrowError(f"{host}: too near", "redirect")
    raise failure


def resolve(host: str, port: int, deadline: Deadline) -> list[Address]:
    """Resolve a host's addresses, the system's way.

    Raises:
        FetchError: none ("dns"), or not in time ("timeout").
    """
    found: list[Address] = []
    failure: list[str] = []

    def ask() -> None:
        try:
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append((family, address))  # type: ignore[arg-type]
        except OSError as e:
            failure.append(e.strerror or os.strerror(e.errno or 0))
        except UnicodeError:
            failure.append("not a host name")

    thread = threading.Thread(target=ask, name="urlward-resolve", daemon=True)
    thread.start()
    thread.join(deadline.left())
    if thread.is_alive():
        raise deadline.error()
    if not found:
        raise FetchError(f"{host}: {failure[0] if failure else 'no address'}", "dns")
    return found
