"""Errors of fetching a feed, in words that may stand in a log.

A feed's address can be a secret in itself (some bodies put a subscriber's key into path or query), and
so can whatever a server or proxy answers with. Messages name scheme, host and port, of the feed, of its
proxy or of where a redirect led, and nothing else that another machine wrote.
"""

import ssl
from http.client import HTTPException, IncompleteRead
from typing import Literal

from urllib3.exceptions import HTTPError

from urlward.engine.errors import UrlwardError

Reason = Literal[
    "url",  # not http or https, with user information in it, or not a URL
    "secret",  # credentials that are not usable, or would go over the network in clear
    "settings",  # a CA file, proxy or limit that is not usable
    "dns",  # no address for the host
    "refused",  # no connection, or it was ended before an answer
    "timeout",  # longer than `timeout`, or no connection within `connect_timeout`
    "tls",  # no common TLS, or the server refused ours
    "certificate",  # the server's certificate is expired, for another name, or of an unknown CA
    "proxy",  # the proxy cannot be reached, or refuses
    "protocol",  # the answer is not HTTP
    "redirect",  # too many, to nowhere, from https to http, or from the internet to a private network
    "unauthorized",  # 401
    "forbidden",  # 403
    "rate-limited",  # 429
    "server",  # 5xx
    "status",  # any other that is not 200, 304, 404 or 410
    "truncated",  # the body, or the compressed data in it, ends too early
    "corrupt",  # the compressed data is damaged
    "unsupported",  # compressed in a way that is not read here
    "too-large",  # more than `max_bytes`
    "bomb",  # decompresses to many times its size
    "system",  # no memory, files or the like left on this machine
]


class FetchError(UrlwardError):
    """A feed could not be fetched.

    Attributes:
        reason: which kind of fault.
        retry_after: seconds that the server asks to wait (RFC 9110, section 10.2.3), not bounded.
        status: of the answer, where there was one.
    """

    def __init__(
        self, message: str, reason: Reason, *, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.retry_after = retry_after
        self.status = status


def connection_error(error: Exception, peer: str) -> FetchError:
    """Error for a failure before there was a response.

    Args:
        error: of a socket, of TLS, of http.client or urllib3.
        peer: scheme, host and port.
    """
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchError(f"{peer}: its certificate does not verify: {cause.verify_message}", "certificate")
    if isinstance(cause, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return FetchError(f"{peer}: the connection was ended before an answer", "refused")
    if isinstance(cause, ssl.SSLError):
        return FetchError(f"{peer}: TLS failed: {_tls_words(cause)}", "tls")
    if isinstance(cause, TimeoutError):
        return FetchError(f"{peer}: no answer in time", "timeout")
    if isinstance(cause, OSError):
        return FetchError(f"{peer}: {cause.strerror or 'the connection failed'}", "refused")
    return FetchError(f"{peer}: the answer is not HTTP/1.1", "protocol")


def body_error(error: Exception, peer: str) -> FetchError:
    """Error for a failure in the middle of a body."""
    cause = _cause(error)
    if isinstance(cause, TimeoutError):
        return FetchError(f"{peer}: no more of the body in time", "timeout")
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return FetchError(f"{peer}: TLS failed: {_tls_words(cause)}", "tls")
    if isinstance(cause, OSError | IncompleteRead):
        return FetchError(f"{peer}: the body ends too early", "truncated")
    return FetchError(f"{peer}: the answer is not HTTP/1.1", "protocol")


def _cause(error: Exception) -> Exception:
    """Find the system's or http.client's error that urllib3 has wrapped."""
    while isinstance(error, HTTPError) and not isinstance(error, HTTPException):
        inner = next((value for value in reversed(error.args) if isinstance(value, Exception)), None)
        inner = inner or (error.__cause__ if isinstance(error.__cause__, Exception) else None)
        if inner is None or inner is error:
            break
        error = inner
    return error


def _tls_words(error: ssl.SSLError) -> str:
    return str(getattr(error, "reason", None) or "no reason given").lower().replace("_", " ")
