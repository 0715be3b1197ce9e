"""mitmproxy layer that relays bytes unread, where mitmproxy carries the connection."""

from collections.abc import Callable, Iterable
from math import inf

from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy.context import Context

from urlward.proxy.ends import LINGER
from urlward.proxy.guard import Guard
from urlward.proxy.live import Live
from urlward.proxy.mitm import ConnectionHandler, commands, cut_off, events, layer, transport_of
from urlward.proxy.names import Client as AnyClient
from urlward.proxy.names import Names
from urlward.proxy.raw_relay import RawRelay

type Lookup = Callable[[AnyClient], ConnectionHandler | None]
"""The handler of a client's connection, or None in a test without sockets."""


class ListedAddress(str):
    """A connection's error where the name has this listed address, and so is not connected to."""

    __slots__ = ()


class RelayLayer(layer.Layer):
    """Bytes both ways, unread and unrecorded, unless the address connected to is listed.

    Args:
        context: of the connection.
        guard: decides.
        live: where the layer will be a member.
        lookup: finds the handler that carries it.
        names: what the connection passed under.
    """

    def __init__(self, context: Context, guard: Guard, live: Live, lookup: Lookup, names: Names) -> None:
        super().__init__(context)
        self._names = names
        self.relay = RawRelay(self, names)
        self.client = context.client
        self._guard = guard
        self._live = live
        self._lookup = lookup
        self._out: list[commands.Command] = []
        self._opening = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            self._live.add(self)
            yield from self._begin()
        else:
            self._feed(event)
        while self._out:
            out, self._out = self._out, []
            yield from out

    def _begin(self) -> layer.CommandGenerator[None]:
        server = self.context.server
        error = None
        if server.state is ConnectionState.CLOSED:
            error = yield from self._open()
        listed = server.error if isinstance(server.error, ListedAddress) else None
        address = listed or (server.peername and server.peername[0])
        allowed = not address or self._guard.address_allowed(self.context, self._names, str(address))
        if error or not allowed:
            self.close()

    def _feed(self, event: events.Event) -> None:
        try:
            match event:
                case events.DataReceived():
                    if event.connection is self.client:
                        self.relay.client_data(event.data)
                    else:
                        self.relay.server_data(event.data)
                case events.ConnectionClosed():
                    if event.connection is self.client:
                        self.relay.client_ended()
                    else:
                        self.relay.server_ended()
                case events.Wakeup():
                    self.close()
        except Exception as e:  # noqa: BLE001 - no fault of ours may let bytes pass unjudged
            self._guard.broken(e, self.client)
            self._out.clear()
            self.close()

    # -- what the relay asks for

    def connect(self) -> None:
        """Do nothing: the connection is opened at the beginning."""
        raise AssertionError

    def client_is_behind(self) -> bool:
        """Whether the client has yet to take what it has been sent."""
        transport = transport_of(self._lookup(self.client))
        return transport is not None and transport.get_write_buffer_size() > 0

    def _open(self) -> layer.CommandGenerator[str | None]:
        """Open the connection to the origin; nothing is read of the client meanwhile."""
        transport = transport_of(self._lookup(self.client))
        if transport is not None:
            transport.pause_reading()
        self._opening = True
        error = yield commands.OpenConnection(self.context.server)
        self._opening = False
        if transport is not None:
            transport.resume_reading()
        return error  # type: ignore[no-any-return]

    def send_client(self, data: bytes) -> None:
        """Send data to the client."""
        if self.client.state & ConnectionState.CAN_WRITE:
            self._out.append(commands.SendData(self.client, data))

    def send_server(self, data: bytes) -> None:
        """Send data to the origin."""
        if self.context.server.state & ConnectionState.CAN_WRITE:
            self._out.append(commands.SendData(self.context.server, data))

    def end_client(self) -> None:
        """Send the client no more."""
        if self.client.state & ConnectionState.CAN_WRITE:
            self._out.append(commands.CloseTcpConnection(self.client, half_close=True))

    def end_server(self) -> None:
        """Send the origin no more."""
        if self.context.server.state & ConnectionState.CAN_WRITE:
            self._out.append(commands.CloseTcpConnection(self.context.server, half_close=True))

    def close_server(self) -> None:
        """Close the connection to the origin."""
        if self.context.server.state is not ConnectionState.CLOSED:
            self._out.append(commands.CloseConnection(self.context.server))

    def close(self) -> None:
        """Close both connections."""
        self._live.discard(self)
        self.close_server()
        if self.client.state is not ConnectionState.CLOSED:
            self._out.append(commands.CloseConnection(self.client))

    def refused(self, stage: str) -> None:
        """Count what could not be read."""
        self._guard.refused(stage)

    def turn_is_over(self) -> bool:
        """Never: mitmproxy schedules these connections."""
        return False

    def go_on_later(self) -> None:
        """Do nothing: nothing is left for later."""

    def linger(self) -> None:
        """Close both connections in a while."""
        self._out.append(commands.RequestWakeup(LINGER))

    # -- as a member of `Live`

    def live(self) -> Iterable[Names]:
        """The names that the exchange under way passed under."""
        return self.relay.live

    def head(self) -> int | None:
        """Which request's head has begun and not ended, if one has."""
        return self.relay.head

    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self.relay.idle

    def progress(self) -> float:
        """Infinite: the rate is not known here."""
        return inf

    def may_read(self) -> bool:
        """Whether the origin's connection is open, so that the client is read."""
        return not self._opening

    def touch(self, now: float) -> None:
        """Do nothing: mitmproxy carries the bytes and keeps the time limits."""

    def leave(self) -> None:
        """Do nothing: the connection ends with the process."""

    def cut(self) -> None:
        """Close both connections at once."""
        self._live.discard(self)
        cut_off(self._lookup(self.client))


class Handshake:
    """A TLS handshake with a client, as a member of `Live`: it may take as long as a request's head."""

    def __init__(self, client: Client, lookup: Lookup) -> None:
        self.client = client
        self._lookup = lookup

    def live(self) -> tuple[Names, ...]:
        """Nothing yet: no request has been judged."""
        return ()

    def head(self) -> int:
        """The handshake, in place of a request's head that has begun and not ended."""
        return 0

    def idle(self) -> bool:
        """Always: closing disturbs no exchange."""
        return True

    def progress(self) -> float:
        """Infinite: the rate is not known here."""
        return inf

    def may_read(self) -> bool:
        """Always: nothing is passed on yet."""
        return True

    def touch(self, now: float) -> None:
        """Do nothing: mitmproxy carries the bytes and keeps the time limits."""

    def leave(self) -> None:
        """Do nothing: the connection ends with the process."""

    def cut(self) -> None:
        """Close the connection."""
        cut_off(self._lookup(self.client))
