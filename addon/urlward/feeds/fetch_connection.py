"""HTTP connections for one request each: straight to the server, or by way of a proxy.

urllib3's connections without its pools, because nothing here is used twice, and because a pool's log
names each URL with its query.
"""

import logging
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote

from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.response import HTTPResponse
from urllib3.util import Url, parse_url

from urlward.feeds import fetch_tls
from urlward.feeds.fetch_deadline import Deadline, NarrowError, Scope, connect, reached, scope
from urlward.feeds.fetch_errors import FetchError, connection_error

FAILURES = (OSError, HTTPException, HTTPError, ValueError)
"""What sockets, http.client and urllib3 raise; ValueError for fields that are no HTTP."""

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"\[[0-9a-fA-F:.]+(?:%[\w.~%-]+)?\]|[\w.~!$&'()*+,;=%-]+")  # RFC 3986, section 3.2.2
_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})\b")

# It quotes the whole URL, and what a server sent, where fields are not well formed.
logging.getLogger("urllib3.connection").addFilter(lambda _: False)


def parse(text: str, what: str) -> Url:
    """Parse a URL of http or https with a host and no user information.

    Args:
        text: the URL.
        what: the message calls it.

    Raises:
        FetchError: anything else ("url").
    """
    try:
        url = parse_url(text)
    except LocationParseError:
        raise FetchError(f"{what}: not a URL", "url") from None
    if url.scheme not in _PORTS or not url.host:
        raise FetchError(f"{what}: neither http:// nor https:// and a host", "url")
    if not _HOST.fullmatch(url.host):
        # Not every release of urllib3 says so, and what http.client then does is another matter.
        raise FetchError(f"{what}: not a URL", "url")
    if url.auth is not None:
        raise FetchError(f"{what}: user information in it; credentials have settings of their own", "url")
    return url


def parse_proxy(text: str) -> tuple[Url, dict[str, str]]:
    """Parse a proxy's URL; returns it without its user information, and the fields that stand for that.

    Raises:
        FetchError: not a proxy of http or https ("settings").
    """
    try:
        url = parse_url(text)
    except LocationParseError:
        url = Url()
    # A path is half of a password with a slash in it, and what seems the host is a user.
    if url.scheme not in _PORTS or not url.host or url.request_uri != "/" or url.fragment is not None:
        raise FetchError(
            "proxy: not of the form http://[user:password@]host:port (with what is neither letter nor digit"
            " in a password as %XX)",
            "settings",
        )
    fields = {"Proxy-Authorization": basic(*_user(url.auth))} if url.auth is not None else {}
    return Url(url.scheme, None, url.host, url.port), fields


def _user(auth: str) -> tuple[str, str]:
    user, _, password = auth.partition(":")
    return unquote(user), unquote(password)


def basic(user: str, password: str) -> str:
    """Value of the field for basic credentials (RFC 7617, UTF-8)."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def place(url: Url) -> tuple[str, str, int]:
    """Origin of a URL: scheme, host and port (RFC 9110, section 4.3.1)."""
    scheme, host = url.scheme or "", (url.host or "").lower()
    return scheme, host.strip("[]"), url.port or _PORTS[scheme]


def peer(url: Url) -> str:
    """Scheme, host and port as text, for messages."""
    scheme, _, port = place(url)
    return f"{scheme}://{url.host}" + ("" if port == _PORTS[scheme] else f":{port}")


def _scope_of_name(url: Url) -> Scope:
    """Scope of a URL's host as far as it is known without DNS."""
    host = place(url)[1].rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return Scope.HOST
    with suppress(OSError):
        host = socket.inet_ntoa(socket.inet_aton(host))  # also 127.1 and 0x7f000001
    with suppress(ValueError):
        return scope(host)
    return Scope.GLOBAL


class _Plain(HTTPConnection):
    dial: Callable[[], socket.socket]

    def _new_conn(self) -> socket.socket:
        return self.dial()


class _Secure(HTTPSConnection):
    dial: Callable[[], socket.socket]

    def _new_conn(self) -> socket.socket:
        return self.dial()


_Connection = _Plain | _Secure


class Way:
    """Route to the servers of one exchange: straight or by a proxy, and which redirects are allowed.

    The first is the one that the operator names; the others are where it sends us. They are not to be nearer
    than it is: a server on the internet has no business with what listens in our network, or on this machine
    alone. What counts is the address that is connected to, since a name may have another each time. Of what a
    proxy connects to we see the URL alone.

    Args:
        proxy: the proxy's URL, or None to go straight.
        ca: file of the CAs to trust in place of the system's.
        connect_timeout: seconds for name, TCP, tunnel and TLS together.
        nearer: whether the others may be nearer after all.

    Raises:
        FetchError: the proxy's URL, or the file, is not usable ("settings").
    """

    def __init__(
        self, proxy: str | None, ca: str | None, connect_timeout: float, *, nearer: bool = False
    ) -> None:
        self._first: Scope | None = Scope.HOST if nearer else None
        self._proxy: Url | None = None
        self._proxy_fields: dict[str, str] = {}
        self._proxy_config: ProxyConfig | None = None
        if proxy is not None:
            self._proxy, self._proxy_fields = parse_proxy(proxy)
            self._proxy_config = ProxyConfig(
                fetch_tls.proxy_context(ca),
                use_forwarding_for_https=False,
                assert_hostname=None,
                assert_fingerprint=None,
            )
        self._connect_timeout = connect_timeout

    @contextmanager
    def get(
        self, url: Url, fields: Mapping[str, str], tls: ssl.SSLContext, deadline: Deadline
    ) -> Iterator[HTTPResponse]:
        """Send a GET and yield its response, whose body can be read until the deadline.

        Args:
            url: of http or https.
            fields: of the request.
            tls: for https.
            deadline: of all that is done within.

        Raises:
            FetchError: no answer.
        """
        try:
            connection = self._connection(url, tls)
        except FAILURES:
            raise FetchError(f"{peer(url)}: not a host", "url") from None
        try:
            self._connect(connection, url, deadline)
            connection.timeout = deadline.left()
            with deadline.cutting(connection.sock):
                response = self._ask(connection, url, fields)
                deadline.left()  # http.client takes a head that is cut off for a whole one
                yield response
        finally:
            connection.close()

    def _connection(self, url: Url, tls: ssl.SSLContext) -> _Connection:
        scheme, host, port = place(url)
        if self._proxy is None:
            return _Plain(host, port) if scheme == "http" else _Secure(host, port, ssl_context=tls)
        by, proxy_host, proxy_port = place(self._proxy)
        if scheme == by == "http":
            return _Plain(proxy_host, proxy_port, proxy=self._proxy)
        secure = _Secure(
            proxy_host, proxy_port, proxy=self._proxy, proxy_config=self._proxy_config, ssl_context=tls
        )
        if scheme == "https":
            secure.set_tunnel(host, port, self._proxy_fields, by)
        return secure

    def _connect(self, connection: _Connection, url: Url, deadline: Deadline) -> None:
        within = Deadline(self._connect_timeout, peer(url), "no connection", within=deadline)
        connection.timeout = within.left()
        with ExitStack() as cuts:

            def dial() -> socket.socket:
                sock = self._dial(url, within)
                try:
                    cuts.enter_context(within.cutting(sock))
                except BaseException:
                    sock.close()
                    raise
                return sock

            connection.dial = dial
            try:
                connection.connect()
            except NarrowError:
                raise FetchError(
                    f"{peer(url)}: a redirect into a private network or to this machine is not followed",
                    "redirect",
                ) from None
            except FetchError as e:
                if self._proxy is None or e.reason != "dns":
                    raise
                raise FetchError(f"proxy {e}", "proxy") from None
            except FAILURES as e:
                raise self._failure(e, connection, url) from None
            within.left()
        if not isinstance(connection.sock, socket.socket) or isinstance(connection.sock, ssl.SSLSocket):
            secured: Any = connection.sock  # or urllib3's of TLS within TLS
            # An end of data that the server has not signed could be anyone's doing.
            secured.suppress_ragged_eofs = False

    def _dial(self, url: Url, deadline: Deadline) -> socket.socket:
        _, host, port = place(self._proxy or url)
        if self._proxy is not None:
            found = _scope_of_name(url)
            if self._first is None:
                self._first = found
            elif found < self._first:
                raise NarrowError(f"{url.host}: too near", "redirect")
            return connect(host, port, deadline)
        sock = connect(host, port, deadline, Scope.HOST if self._first is None else self._first)
        if self._first is None:
            self._first = reached(sock)
        return sock

    def _failure(self, error: Exception, connection: _Connection, url: Url) -> FetchError:
        if self._proxy is None:
            return connection_error(error, peer(url))
        if isinstance(error, ssl.SSLError) and connection.proxy_is_verified is not None:
            return connection_error(error, peer(url))  # inside the tunnel
        refused = _REFUSED.match(str(error))
        if refused:
            return FetchError(
                f"proxy {peer(self._proxy)}: refuses the tunnel with status {refused[1]}", "proxy"
            )
        return FetchError(f"proxy {connection_error(error, peer(self._proxy))}", "proxy")

    def _ask(self, connection: _Connection, url: Url, fields: Mapping[str, str]) -> HTTPResponse:
        target = url.request_uri
        if self._proxy is not None and url.scheme == "http":
            target = url._replace(fragment=None).url
            fields = {**fields, **self._proxy_fields}
        try:
            connection.request("GET", target, headers=fields, preload_content=False, decode_content=False)
            return connection.getresponse()
        except FAILURES as e:
            raise connection_error(e, peer(url)) from None
