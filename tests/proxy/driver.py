"""Events in, commands out: drives mitmproxy layers without sockets."""

from collections import deque
from collections.abc import Callable, Sequence

from mitmproxy import options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, Connection, ConnectionState
from mitmproxy.proxy import commands, events, layer, mode_specs
from mitmproxy.proxy.context import Context

from engine.support import matcher
from urlward.engine.matcher import Matcher
from urlward.proxy.guard import Guard

NOW = 1_800_000_000.0


def nobody(_: Client) -> None:
    """No handler carries a connection here."""


def make_matcher(*lines: str) -> Matcher:
    """A matcher over a list of these lines, called ``test``."""
    return matcher(test=lines)


def refused(guard: Guard) -> int:
    """How much has been refused since it could not be read."""
    return sum(stage.get("refuse", 0) for stage in guard.metrics.snapshot()["requests"].values())


def failed(guard: Guard) -> int:
    """How many faults of ours there have been."""
    return int(guard.metrics.snapshot()["errors"]["decision"])


def make_context(mode: str = "regular", **changes: object) -> Context:
    """A connection's context with a proxy's options."""
    opts = options.Options()
    # A context of mitmproxy's own test helpers would take the place of the one around.
    Proxyserver().load(_Loader(opts))
    opts.update(connection_strategy="lazy", rawtcp=False, keep_host_header=True, **changes)
    client = Client(
        peername=("192.0.2.1", 1234),
        sockname=("192.0.2.254", 8080),
        timestamp_start=NOW,
        state=ConnectionState.OPEN,
        proxy_mode=mode_specs.ProxyMode.parse(mode),
    )
    return Context(client, opts)


class _Loader:
    def __init__(self, opts: options.Options) -> None:
        self.add_option = opts.add_option


class Driver:
    """Feeds a layer, answers its hooks and opens its connections.

    Attributes:
        sent: what has been sent, by connection.
        opened: connections that were asked for.
        closed: connections that were closed, in order.
        hooks: names of the hooks, in order.
        wakeups: wakeups asked for and not yet given.
    """

    def __init__(
        self,
        top: layer.Layer,
        *,
        peer: str = "203.0.113.10",
        on_hook: Callable[[commands.StartHook], None] | None = None,
        refuse: str = "",
    ) -> None:
        self.top = top
        self.client = top.context.client
        self.sent: dict[Connection, bytes] = {}
        self.opened: list[Connection] = []
        self.closed: list[Connection] = []
        self.hooks: list[str] = []
        self.wakeups: list[commands.RequestWakeup] = []
        self.logged: list[str] = []
        self._peer = peer
        self._on_hook = on_hook
        self._refuse = refuse
        self.feed(events.Start())

    @property
    def to_client(self) -> bytes:
        """What the client has been sent."""
        return self.sent.get(self.client, b"")

    @property
    def to_server(self) -> bytes:
        """What the one connection to an origin has been sent."""
        (server,) = self.opened
        return self.sent.get(server, b"")

    def receive(self, data: bytes, connection: Connection | None = None) -> None:
        """Data arrives, from the client unless said otherwise."""
        self.feed(events.DataReceived(connection or self.client, data))

    def close(self, connection: Connection | None = None) -> None:
        """The peer closes."""
        connection = connection or self.client
        connection.state &= ~ConnectionState.CAN_READ
        self.feed(events.ConnectionClosed(connection))

    def wake(self) -> None:
        """The oldest wakeup is due."""
        self.feed(events.Wakeup(self.wakeups.pop(0)))

    def feed(self, event: events.Event) -> None:
        """Let one event run its course."""
        queue: deque[events.Event] = deque([event])
        while queue:
            for command in self.top.handle_event(queue.popleft()):
                queue.extend(self._react(command))

    def _react(self, command: commands.Command) -> Sequence[events.Event]:
        match command:
            case commands.SendData():
                assert command.connection.state & ConnectionState.CAN_WRITE, "sent on a closed connection"
                self.sent[command.connection] = self.sent.get(command.connection, b"") + command.data
            case commands.OpenConnection():
                self.opened.append(command.connection)
                if self._refuse:
                    command.connection.error = self._refuse
                    return [events.OpenConnectionCompleted(command, self._refuse)]
                command.connection.state = ConnectionState.OPEN
                assert command.connection.address is not None
                command.connection.peername = (self._peer, command.connection.address[1])
                return [events.OpenConnectionCompleted(command, None)]
            case commands.CloseConnection():
                command.connection.state = ConnectionState.CLOSED
                self.closed.append(command.connection)
            case commands.RequestWakeup():
                self.wakeups.append(command)
            case commands.StartHook():
                self.hooks.append(command.name)
                if self._on_hook is not None:
                    self._on_hook(command)
                if command.blocking:
                    return [events.HookCompleted(command)]
            case commands.Log():
                self.logged.append(command.message)
            case _:
                raise AssertionError(command)
        return []
