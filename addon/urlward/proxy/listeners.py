"""Listening sockets: opened once by the supervisor, or by the service manager, and passed to workers.

A connection waits in its listening socket until it is accepted. Since the supervisor holds the sockets
too, they and what waits in them outlive a worker that dies, and its replacement accepts from them. Each
worker has sockets of its own on the same address (SO_REUSEPORT, socket(7)), over which the kernel spreads
connections. Sockets that systemd passes (sd_listen_fds(3)) are used in place of own ones; where it passes
fewer than there are workers, several workers accept from one.
"""

import errno
import os
import resource
import socket
import time
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any

from urlward.engine.errors import UrlwardError
from urlward.plan import Address

FREE_WITHIN = 2.0
"""Seconds for which an address may be in use still: processes of a filter that was killed are ending."""

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "unix": socket.SOCK_STREAM}

_UNIX_MODE = 0o660
"""Of a socket in the file system: for its owner, and its folder's group."""

_FIRST_FD = 3
_LOOK = 0.05

_TRANSPARENT = {socket.AF_INET: (socket.IPPROTO_IP, 19), socket.AF_INET6: (socket.IPPROTO_IPV6, 75)}
"""IP_TRANSPARENT (ip(7)) and IPV6_TRANSPARENT."""


Sockets = Sequence[tuple[Address, list[socket.socket]]]
"""Sockets of one worker; an address without a host has one of each family."""


def open_sockets(
    address: Address, *, reuse_port: bool = False, given: Sequence[socket.socket] = ()
) -> list[socket.socket]:
    """Bind an address's sockets, one of each of its families. None of them listens yet.

    Args:
        address: where.
        reuse_port: whether others of this user may be bound to it.
        given: open ones, taken (duplicated) where they are bound to what is asked for.

    Raises:
        OSError: that is not possible.
    """
    if address.kind == "unix":
        return [_open_unix(Path(address.host))]
    made: list[socket.socket] = []
    port = address.port
    try:
        for family, kind, protocol, _, where in dict.fromkeys(_found(address)):
            same = [one for one in given if _is_at(one, family, kind, where)]
            if same:
                made.append(same[0].dup())
                continue
            try:
                one = socket.socket(family, kind, protocol)
            except OSError:
                continue  # a family that this kernel lacks
            made.append(one)
            _prepare(one, reuse_port=reuse_port)
            try:
                one.bind((where[0], port, *where[2:]))
            except OSError as e:
                if e.errno != errno.EADDRNOTAVAIL:
                    raise OSError(e.errno, os.strerror(e.errno or 0).lower()) from e
                made.pop().close()
            else:
                port = one.getsockname()[1]
        if not made:
            raise OSError(errno.EADDRNOTAVAIL, "not an address of this machine")
    except BaseException:
        _close(made)
        raise
    return made


def _found(address: Address) -> list[Any]:
    """What the system's resolver says of an address of TCP or UDP.

    Raises:
        OSError: nothing.
    """
    try:
        return socket.getaddrinfo(
            address.host or None, address.port, type=_KINDS[address.kind], flags=socket.AI_PASSIVE
        )
    except UnicodeError as e:
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from e


def _open_unix(path: Path) -> socket.socket:
    """Bind a socket in the file system, in place of one that is there."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.setblocking(False)
        if path.is_socket():
            path.unlink()
        made.bind(str(path))
        path.chmod(_UNIX_MODE)
    except BaseException:
        made.close()
        raise
    return made


def _prepare(one: socket.socket, *, reuse_port: bool) -> None:
    if one.type == socket.SOCK_STREAM:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.setblocking(False)


def _is_at(one: socket.socket, family: int, kind: int, where: Sequence[object]) -> bool:
    return (one.family, one.type) == (family, kind) and list(one.getsockname()[:2]) == list(where[:2])


def _misfit(one: socket.socket, used: Set[tuple[int, Any]]) -> str:
    """Why a socket that the service manager has passed is of no use; empty where it is.

    Args:
        one: the socket.
        used: kinds, hosts and ports that are listened on.
    """
    if one.family not in (socket.AF_INET, socket.AF_INET6):
        return "socket activation: a socket that is no TCP or UDP socket was passed"
    host, port = one.getsockname()[:2]
    where = Address(host, port, "")
    if host == "::" and not one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return (
            f"socket activation: {where} takes IPv4 as well; set BindIPv6Only=ipv6-only, and have "
            "a line for each family"
        )
    if (one.type, (host, port)) in used:
        return ""
    return (
        f"socket activation: {where} was passed, and no mode listens there: `listen` and the "
        "socket unit have to name the same address (urlward help install)"
    )


def make_transparent(one: socket.socket) -> None:
    """Let a socket have addresses that are not this machine's, and so one that listens take what is for them.

    Raises:
        PermissionError: that takes CAP_NET_ADMIN, or CAP_NET_RAW.
    """
    one.setsockopt(*_TRANSPARENT[one.family], 1)


def raise_limit() -> None:
    """Let this process, and those that it starts, open as many files as it may.

    Each connection takes two file descriptors; the usual soft limit is for programs that use select().
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def address_space_warning() -> str:
    """Warning that address space is limited; empty where it is not.

    What starts a thread waits for it to begin, and one that finds no memory then never does: an event loop
    would stand still. Libraries reserve much more (threads' stacks, arenas, mapped lists) than they use.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return ""
    return (
        f"address space is limited to {limit >> 20} MiB (ulimit -v, LimitAS): processes may hang or fail; "
        "limit memory by MemoryMax"
    )


class Listeners:
    """Listening sockets of all workers.

    Args:
        given: those that the service manager has passed.
    """

    def __init__(self, given: Iterable[socket.socket] = ()) -> None:
        self._given = list(given)
        self._sockets: dict[tuple[Address, int], list[socket.socket]] = {}

    def open(self, addresses: Sequence[Address], workers: int) -> None:
        """Have sockets at all of these addresses for so many workers; those that are open stay.

        Raises:
            UrlwardError: that is not possible; nothing has changed.
        """
        made: dict[tuple[Address, int], list[socket.socket]] = {}
        known = {address for address, _ in self._sockets}
        try:
            for address in addresses:
                given = [g for g in self._given if g.type == _KINDS[address.kind]]
                if address not in known and address.kind != "unix":
                    self._check(address, given)
                for number in range(workers):
                    if (address, number) not in self._sockets:
                        made[address, number] = self._opened(address, number, given, made)
        except OSError as e:
            for sockets in made.values():
                _close(sockets)
            text = "name or service not known" if isinstance(e, socket.gaierror) else e.strerror or str(e)
            if e.errno == errno.EADDRINUSE:
                used = {(kind, where[:2]) for _, kind, _, _, where in _found(address)}
                text += "".join(f"; {why}" for one in given if (why := _misfit(one, used)))
            raise UrlwardError(f"cannot listen on {address}: {text}") from e
        self._sockets |= made

    @property
    def numbers(self) -> list[int]:
        """Numbers of the workers that there are sockets for."""
        return sorted({number for _, number in self._sockets})

    def keep(self, addresses: Sequence[Address]) -> None:
        """Close the sockets at all other addresses."""
        for address, number in list(self._sockets):
            if address not in addresses:
                _close(self._sockets.pop((address, number)))

    def of(self, worker: int, addresses: Sequence[Address]) -> Sockets:
        """Sockets of one worker at the given addresses."""
        return [(each, self._sockets[each, worker]) for each in addresses if (each, worker) in self._sockets]

    def close(self) -> None:
        """Close all: who connects from here on is refused, unless a process that is yet to end listens."""
        self.keep(())
        _close(self._given)

    def check_given(self) -> None:
        """See whether modes listen on all that the service manager has passed.

        Raises:
            UrlwardError: connections to a socket that nobody reads would wait for ever.
        """
        used = {(s.type, s.getsockname()[:2]) for sockets in self._sockets.values() for s in sockets}
        for one in self._given:
            if why := _misfit(one, used):
                raise UrlwardError(why)

    def _check(self, address: Address, given: Sequence[socket.socket]) -> None:
        """Shared addresses do not conflict, so a second urlward would take a part of the first's clients."""
        until = time.monotonic() + FREE_WITHIN
        while True:
            try:
                _close(open_sockets(address, given=given))
            except OSError as e:
                if e.errno != errno.EADDRINUSE or time.monotonic() > until:
                    raise
            else:
                return
            time.sleep(_LOOK)

    def _opened(
        self,
        address: Address,
        number: int,
        given: list[socket.socket],
        made: dict[tuple[Address, int], list[socket.socket]],
    ) -> list[socket.socket]:
        """Open a worker's sockets at an address.

        Raises:
            OSError: that is not possible.
        """
        others = next(
            (some for (other, _), some in (*self._sockets.items(), *made.items()) if other == address), None
        )
        if others is not None and address.kind == "unix":
            return [one.dup() for one in others]  # nothing else can be bound there
        # With the port that the first worker has been given where any would do.
        where = address._replace(port=others[0].getsockname()[1]) if others and not address.port else address
        # Where there are several at an address, each worker has another.
        turned = given[number % len(given) :] + given[: number % len(given)] if given else []
        return open_sockets(where, reuse_port=True, given=turned)


def _close(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()


def given() -> list[socket.socket]:
    """Listening sockets passed by the service manager (sd_listen_fds(3)); once.

    Raises:
        UrlwardError: it says that it passes more than there are, or something else than sockets.
    """
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    passed = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        try:
            one = socket.socket(fileno=fd)
        except OSError as e:
            raise UrlwardError(
                f"socket activation: of the {count} that LISTEN_FDS speaks of, descriptor {fd} is no socket: "
                f"{(e.strerror or str(e)).lower()}"
            ) from e
        one.set_inheritable(False)
        one.setblocking(False)
        passed.append(one)
    return passed
