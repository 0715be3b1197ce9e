"""Responses that the filter gives itself, and their form on the wire."""

from email.utils import formatdate
from http import HTTPStatus

from urlward.proxy.block_page import BlockResponse

ACCESS_DENIED = bytes([21, 3, 3, 0, 2, 2, 49])
"""TLS record: fatal alert access_denied (RFC 8446 section 6.2)."""


def plain(
    status: int, text: str, *, head: bool = False, more: tuple[tuple[bytes, bytes], ...] = ()
) -> BlockResponse:
    """A line of text.

    Args:
        status: its code.
        text: of ASCII, without the line's end.
        head: whether the request was HEAD, whose answer has no body.
        more: fields.
    """
    body = f"{text}\n".encode("ascii", "replace")
    return BlockResponse(
        status,
        HTTPStatus(status).phrase,
        (
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", b"%d" % len(body)),
            (b"Cache-Control", b"no-store"),
            *more,
        ),
        b"" if head else body,
    )


def unreachable(reason: str = "", *, tls: bool, head: bool = False) -> BlockResponse:
    """The response to a request whose origin cannot be reached.

    Args:
        reason: what is wrong with the origin's certificate; empty where something else is.
        tls: whether the origin was connected to, and TLS with it failed.
        head: whether the request was HEAD.
    """
    if reason:
        return plain(502, f"The certificate of the origin is not valid: {reason}.", head=head)
    if tls:
        return plain(502, "The origin and the filter could not agree on a TLS connection.", head=head)
    return plain(502, "The origin does not answer.", head=head)


def on_wire(answer: BlockResponse, *, keep_alive: bool) -> bytes:
    """A response serialised as HTTP/1.1."""
    fields = b"".join(b"%b: %b\r\n" % field for field in answer.headers)
    return b"HTTP/1.1 %d %b\r\n%bDate: %b\r\nConnection: %b\r\n\r\n%b" % (
        answer.status,
        answer.reason.encode(),
        fields,
        formatdate(usegmt=True).encode(),
        b"keep-alive" if keep_alive else b"close",
        answer.body,
    )
