"""Front: accepts connections for the data path, so that they never enter mitmproxy.

mitmproxy spends a dozen tasks and hooks on each connection. Its flows are for modes that nothing else speaks,
for options that only it heeds, and for other addons.
"""

import logging
import socket
from functools import partial
from itertools import chain
from typing import Any

from mitmproxy import ctx
from mitmproxy.proxy import mode_specs

from urlward.plan import Address
from urlward.proxy.acceptor import Acceptor, Transports
from urlward.proxy.addon import Urlward, speaks
from urlward.proxy.listeners import make_transparent
from urlward.proxy.mitm import Listen, bound_streams, datagrams, listen_by, original_destination, streams
from urlward.proxy.poller import Share
from urlward.proxy.session import Mode, Session, SessionClient
from urlward.proxy.workers import Worker, is_first

MOST_WAITING = 1024
"""Connections of a client network that are kept until it has its turn; those beyond are closed."""

MOST_IN_TUNNEL = 1024
"""Connections of a WireGuard client at a time."""

logger = logging.getLogger("urlward")


class Front(Mode):
    """Acceptor of the connections of one mode.

    Args:
        instance: mitmproxy's server of this mode.
        addon: decides.
    """

    def __init__(self, instance: Any, addon: Urlward) -> None:
        super().__init__(instance.mode, addon)
        self._mode = mode = instance.mode
        self._reverse = isinstance(mode, mode_specs.ReverseMode)
        self._speaks = speaks(mode)
        self._transports = Transports(lambda: streams(instance))

    async def accept(self, one: socket.socket) -> Acceptor:
        """Accept connections from a bound socket."""
        if self.keeps_source:
            make_transparent(one)
        return Acceptor(self.take, one, self.addon.short)

    def take(self, sock: socket.socket, peername: tuple[Any, ...]) -> None:
        """Take a connection that has been accepted."""
        # What the data path does not speak, or others have a say in, is mitmproxy's.
        if not (self._speaks and self.addon.guard is not None and self.addon.is_alone(self._mode)):
            self._transports.take(sock)
            return
        share = self.poller.share(peername[0])
        if share.arriving >= MOST_WAITING:
            sock.close()
            return
        share.arriving += 1
        self.poller.soon(share, partial(self._begin, sock, peername, share))

    def _begin(self, sock: socket.socket, peername: tuple[Any, ...], share: Share) -> None:
        share.arriving -= 1
        try:
            self._lead(sock, peername, share)
        except OSError:
            sock.close()  # it has ended already

    def _lead(self, sock: socket.socket, peername: tuple[Any, ...], share: Share) -> None:
        """Find the destination of a connection."""
        mode = self._mode
        address: tuple[str, int] | None = None
        sockname: tuple[Any, ...] = ()
        tls = False
        if self._reverse:
            address = mode.address
            tls = mode.scheme == "https"
        elif self.transparent:
            try:
                address = self._destination(sock)
                sockname = () if self.keeps_source else sock.getsockname()
            except Exception as e:  # noqa: BLE001 - nothing is known of where it should go
                sock.getpeername()  # raises where the client is gone, and forgotten by the kernel after 10 s
                logger.error("no original destination: %s", type(e).__name__)
                self.addon.canary.astray += 1
                sock.close()
                return
            if self.addon.is_here(*address):
                sock.close()  # no rule has redirected it here: it would be one of the filter to itself
                return
            if address[0] not in self.addon.canary.addresses:
                self.addon.canary.astray = 0
        self.addon.metrics.opened += 1
        session = Session(self, sock, SessionClient(peername, mode, sockname), address, share, tls=tls)
        try:
            session.begin()
            probing = self.addon.probing
            if probing is not None and probing.slowing and (wait := probing.connecting(session.client)):
                probing.hold(session.client, wait)
        except BaseException:
            session.cut()
            raise

    def _destination(self, sock: socket.socket) -> tuple[str, int]:
        """Where a connection was to go; raises anything."""
        if not self.keeps_source:
            return original_destination(sock)
        host, port = sock.getsockname()[:2]
        return host.partition("%")[0], port


def listen_in_front(addon: Urlward, worker: Worker) -> None:
    """Let mitmproxy's servers listen on the sockets of this worker, and begin with a front.

    Args:
        addon: decides.
        worker: has the sockets.
    """

    def front(original: Listen) -> Listen:
        async def listen(instance: Any, host: str, port: int) -> list[Any]:
            mode = instance.mode
            if isinstance(mode, mode_specs.WireGuardMode) and is_first():
                bound_streams(instance, MOST_IN_TUNNEL)
            steering = ctx.master.addons.get("steering") if isinstance(mode, mode_specs.DnsMode) else None
            if steering is not None:
                servers = [await steering.listen(worker, host, port)]
            elif mode.transport_protocol == "udp":
                servers = await original(instance, host, port) if is_first() else [Elsewhere()]
            else:
                servers = await worker.serve(Address(host, port, "tcp"), Front(instance, addon).accept)
                if mode.transport_protocol == "both" and is_first():
                    # Datagrams of one flow must all reach one process, so only one takes any.
                    servers.append(await datagrams(instance, host, servers[0].sockets[0].getsockname()[1]))
            sockets = chain.from_iterable(getattr(server, "sockets", ()) for server in servers)
            addon.ports.update([port] if port else [one.getsockname()[1] for one in sockets])
            return servers

        return listen

    listen_by(front)


class Elsewhere:
    """Placeholder for the server of a mode that another worker serves, as one of mitmproxy's."""

    sockets = ()

    def close(self) -> None:
        """Do nothing: no socket is open."""
