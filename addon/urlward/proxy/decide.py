"""What a connection is, and what becomes of it, by the first bytes of its client."""

from typing import Literal, NamedTuple

from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.tls import parse_client_hello

from urlward.proxy.guard import Guard
from urlward.proxy.kind import kind_of
from urlward.proxy.names import NO_NAMES, Names, names_of_tls

_MAX_CLIENT_HELLO = 1 << 16
_MAX_RECORDS = 128


class Decision(NamedTuple):
    """What becomes of a connection.

    Attributes:
        what: ``wait`` for more bytes; ``relay`` unread; ``refuse`` with an alert; ``close``; read as
            ``http``; or ``tls``, to be ended here for what is inside it.
        names: what it is relayed under.
    """

    what: Literal["wait", "relay", "refuse", "close", "http", "tls"]
    names: Names = NO_NAMES


WAIT, REFUSE, CLOSE = Decision("wait"), Decision("refuse"), Decision("close")
HTTP, TLS = Decision("http"), Decision("tls")


def decide(context: Context, data: bytes, guard: Guard, *, relays_other: bool) -> Decision:
    """Decide on a TCP connection.

    Args:
        context: of the connection.
        data: what the client has sent.
        guard: decides on names.
        relays_other: whether what is neither HTTP nor TLS is relayed, and not read as HTTP and refused.
    """
    if len(data) < 3 and b"\x16\x03".startswith(data[:2]):
        return WAIT  # nothing yet, or the first bytes of what may be a ClientHello
    if starts_like_tls_record(data):
        whole = _is_whole(data)
        if whole is not True:
            return WAIT if whole is None else REFUSE
        return _decide_tls(context, data, guard) if _is_tls_for_origin(context) else TLS
    if relays_other and _is_for_origin(context):
        kind = kind_of(data)
        if kind == "unknown":
            return WAIT
        if kind == "other":
            names = names_of_tls(context, context.client.sni)._replace(tls=False)
            relayed = guard.relayed(names, context.client)
            return CLOSE if relayed is None else Decision("relay", relayed)
    return HTTP


def _is_whole(data: bytes) -> bool | None:
    """Whether a ClientHello has come whole; None where it has not yet, False where it never will.

    It is parsed once, however many pieces it comes in.
    """
    position = size = have = 0
    for _ in range(_MAX_RECORDS):
        if len(data) < position + 5:
            return None
        length = int.from_bytes(data[position + 3 : position + 5])
        if data[position] != 22 or not length:
            return False
        start, position = position + 5, position + 5 + length
        if not have:
            if len(data) < start + 4:
                return None if length >= 4 else False
            size = 4 + int.from_bytes(data[start + 1 : start + 4])
            if data[start] != 1 or size > _MAX_CLIENT_HELLO:
                return False
        have += length
        if have >= size:
            return True if len(data) >= position else None
    return False


def _decide_tls(context: Context, data: bytes, guard: Guard) -> Decision:
    try:
        client_hello = parse_client_hello(data)
    except ValueError:
        return REFUSE
    if client_hello is None:
        return REFUSE
    decision, names = guard.tls(context, client_hello.sni)
    if decision == "relay":
        return Decision("relay", names)
    return TLS if decision == "intercept" else REFUSE


def _is_tls_for_origin(context: Context) -> bool:
    """Whether TLS that begins here is meant for an origin, not for the proxy itself."""
    if context.client.tls or not _is_for_origin(context):
        return False
    mode = context.client.proxy_mode
    return not isinstance(mode, mode_specs.ReverseMode) or mode.scheme == "https"


def _is_for_origin(context: Context) -> bool:
    """Whether what begins here is not spoken to the proxy itself."""
    return not context.layers or not isinstance(
        context.layers[-1], (modes.HttpProxy, modes.HttpUpstreamProxy)
    )
