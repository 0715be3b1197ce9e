"""Protocol of a connection and decision on it, from the first bytes of its client."""

import re
from typing import Literal, NamedTuple

from mitmproxy.proxy import mode_specs

from urlward.proxy.client_hello import (
    OLD_HELLO_SEEN,
    ClientHelloError,
    may_be_client_hello,
    may_be_old_client_hello,
    read_client_hello,
)
from urlward.proxy.framing import MAX_REQUEST_LINE, PASSED_OVER
from urlward.proxy.guard import Guard
from urlward.proxy.mitm import HttpProxy, HttpUpstreamProxy
from urlward.proxy.names import NO_NAMES, Context, Names, names_of_tls, sni_of
from urlward.proxy.tls import MOST_HELLO

# What an origin could read as a request line, if a lenient one: a word, blanks, and a target of any form;
# behind GET anything, since Python's servers take `GET page` for HTTP/0.9.
_COULD_BE = re.compile(
    rb"(?:(?i:GET)[\x00-\x20\x85\xa0]+[^\x00-\x20\x85\xa0]"
    rb"|[!-~]+[\x00-\x20\x85\xa0]+(?:[/*\\%]|[A-Za-z][A-Za-z0-9+.-]*:))"
).match
_COULD_BEGIN = re.compile(rb"(?:[!-~]+(?:[\x00-\x20\x85\xa0]+[A-Za-z0-9+.-]*)?)?").fullmatch

# The PROXY protocol, https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, in either version.
_PROXY_HEADERS = (b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n")

# Record types and versions of TLS that can be ended here, and by mitmproxy.
_ENDED_TLS = (b"\x16\x03\x00", b"\x16\x03\x01", b"\x16\x03\x02", b"\x16\x03\x03")


class Decision(NamedTuple):
    """Decision on a connection: wait, relay, refuse, close, or read as HTTP or TLS.

    Attributes:
        what: ``wait`` for more bytes; ``relay`` unread; ``refuse`` with an alert; ``close``; read as
            ``http``; or ``tls``, to be ended here for what is inside it.
        names: what it is relayed under.
        sni: the server name of TLS that is to be ended, as sent.
    """

    what: Literal["wait", "relay", "refuse", "close", "http", "tls"]
    names: Names = NO_NAMES
    sni: bytes | None = None


WAIT, REFUSE, CLOSE = Decision("wait"), Decision("refuse"), Decision("close")
HTTP = Decision("http")


def decide(context: Context, data: bytes, guard: Guard, *, relays_other: bool, for_origin: bool) -> Decision:
    """Decide on a TCP connection.

    Args:
        context: of the connection.
        data: what the client has sent.
        guard: decides on names.
        relays_other: whether what is neither HTTP nor TLS is relayed, and not read as HTTP and refused.
        for_origin: whether what begins here is not spoken to the proxy itself.
    """
    if may_be_client_hello(data):
        try:
            client_hello = read_client_hello(data)
        except ClientHelloError:
            guard.refused("peek")
            return REFUSE
        if client_hello is None:
            return WAIT  # nothing yet, or the first bytes of what may be a ClientHello
        for_origin = for_origin and _is_tls_for_origin(context)
        decision, names = guard.tls(context, client_hello.sni) if for_origin else ("intercept", NO_NAMES)
        if decision != "intercept":
            return Decision("relay", names) if decision == "relay" else REFUSE
        if not data.startswith(_ENDED_TLS) or len(data) > MOST_HELLO:
            guard.refused("peek")
            return REFUSE
        return Decision("tls", sni=client_hello.sni)
    if relays_other and for_origin:
        if may_be_old_client_hello(data):
            if len(data) < OLD_HELLO_SEEN:
                return WAIT
            guard.refused("peek")
            return REFUSE
        proxied = begins_proxy_header(data)
        if proxied:
            guard.refused("peek")
            return CLOSE
        kind = "unknown" if proxied is None else kind_of(data)
        if kind == "unknown":
            return WAIT
        if kind == "other":
            names = names_of_tls(context, sni_of(context))._replace(tls=False)
            relayed = guard.relayed(names, context.client)
            return CLOSE if relayed is None else Decision("relay", relayed)
    return HTTP


def _is_tls_for_origin(context: Context) -> bool:
    """Whether TLS that begins here is meant for an origin, not for the proxy itself."""
    if context.client.tls:
        return False
    mode = context.client.proxy_mode
    return not isinstance(mode, mode_specs.ReverseMode) or mode.scheme == "https"


def is_for_origin(context: Context) -> bool:
    """Whether what begins in one of mitmproxy's layers is not spoken to the proxy itself."""
    return not context.layers or not isinstance(context.layers[-1], HttpProxy | HttpUpstreamProxy)


def kind_of(data: bytes) -> Literal["http", "other", "unknown"]:
    """Detect the protocol of a client's first bytes.

    Returns:
        ``other`` only where no origin would find a request in them, ``unknown`` where there are too few. What
        may still become a request when it should have, is ``http``.
    """
    text = data.lstrip(PASSED_OVER)
    if _COULD_BE(text.lstrip(b"\0" + PASSED_OVER)) or b"HTTP/" in data[:MAX_REQUEST_LINE]:
        return "http"
    if not _COULD_BEGIN(text) or b"\n" in text:
        return "other"
    return "unknown" if len(data) < MAX_REQUEST_LINE else "http"


def begins_proxy_header(data: bytes) -> bool | None:
    """Whether a client's first bytes begin a header of the PROXY protocol; None where there are too few.

    Only a proxy speaks it. A server that takes it, from anybody, finds HTTP or TLS behind it.
    """
    if data.startswith(_PROXY_HEADERS):
        return True
    return None if any(header.startswith(data) for header in _PROXY_HEADERS) else False
