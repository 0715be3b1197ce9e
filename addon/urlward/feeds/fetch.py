"""Fetching a feed over HTTP(S): one exchange, to its end or within its limits.

What comes is the body's content in memory, decompressed, or the word that nothing changed. Nothing is
written to disk, and nothing is logged; whether to try again, and when, is the caller's to decide.

urllib3 speaks HTTP, TLS and the proxies' tunnels: by its connections without its pools, because nothing here
is used twice, and because a pool's log names each URL with its query. Ours is what it does not bound:

- the time of a whole exchange. A socket's own timeout begins anew with each byte, and looking up a name
  cannot be interrupted at all. So names are looked up in a thread that may be left behind, and a timer ends
  the connection under whoever waits on it;
- where a redirect may lead: to a place that is as safe, so never from https to http, and never from the
  internet into a private network or to this machine. Credentials go to the origin that they were given for,
  and to no other, not even later on the way.
"""

import hashlib
import logging
import os
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, IncompleteRead
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import unquote, urljoin

from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.response import HTTPResponse
from urllib3.util import Url, parse_url
from werkzeug.http import parse_date, parse_dict_header

from urlward.engine.nat64 import WELL_KNOWN, WELL_KNOWN_NAT64, Nat64
from urlward.engine.scope import Scope, scope
from urlward.feeds.body import ACCEPTED, BodyLimits, content
from urlward.feeds.source import NO_VALIDATORS, FeedOrigin, FetchError, Reason, Validators
from urlward.feeds.tls import context, proxy_context
from urlward.lists import memfd

MAX_REDIRECTS = 5

_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}
_CONDITIONS = {"If-None-Match", "If-Modified-Since"}
_REDIRECTS = (301, 302, 303, 307, 308)
_STATUSES: dict[int, tuple[Reason, str]] = {
    401: ("unauthorized", "the credentials are missing or wrong"),
    403: ("forbidden", "these credentials, or this address, may not have it"),
    407: ("proxy", "the proxy wants other credentials"),
    429: ("rate-limited", "asked too often"),
}
_HOST = re.compile(r"\[[0-9a-fA-F:.]+(?:%[\w.~%-]+)?\]|[\w.~!$&'()*+,;=%-]+")  # RFC 3986, section 3.2.2
_TOKEN = re.compile(r"[\x21-\x7e]+")
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_SECONDS = re.compile(r"\s*(\d+)\s*", re.ASCII)
_MOST = 2**31
"""Seconds: what a number too large counts as (RFC 9111, section 1.2.2)."""

_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})\b")

_FAILURES = (OSError, HTTPException, HTTPError, ValueError)
"""What sockets, http.client and urllib3 raise; ValueError for fields that are no HTTP."""

type Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]

# It quotes the whole URL, and what a server sent, where fields are not well formed.
logging.getLogger("urllib3.connection").addFilter(lambda _: False)


@dataclass(frozen=True, slots=True)
class Answer:
    """Response of a feed's server.

    Attributes:
        kind: ``new`` has a body, ``unchanged`` is a 304, ``absent`` a 404 or 410.
        fd: of memory with the body, decompressed, at its beginning; the caller closes it.
        size: of it, bytes.
        validators: for the next time.
        fresh_for: seconds that it need not be asked again, not bounded; None where nothing is said.
        url: where the answer came from in the end; as secret as the feed's own.
    """

    kind: Literal["new", "unchanged", "absent"]
    fd: int | None
    size: int
    validators: Validators
    fresh_for: float | None
    url: str = field(repr=False)


def fetch(
    origin: FeedOrigin,
    validators: Validators = NO_VALIDATORS,
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    body: bytes | None = None,
) -> Answer:
    """Fetch a feed, if it has changed.

    It blocks its thread, for `FeedOrigin.timeout` at the longest.

    Args:
        origin: of the feed.
        validators: of what is there already, from the answer that gave it.
        headers: fields that are sent too, wherever a redirect leads; nothing secret. With a ``Range``, the
            body may be that part (206, RFC 9110, section 15.3.7) or the whole: the server decides.
        body: of a form, which is sent with POST, and to no other place; None for a GET.

    Raises:
        FetchError: there is none, or not within the limits.
    """
    try:
        return _Exchange(origin, validators, headers, body).run()
    except (HTTPException, HTTPError):
        # What their releases refuse, and where, differs; a server has a hand in it.
        raise FetchError("a URL or an answer that is not HTTP", "protocol") from None
    except OSError as e:
        # Not the network's, which are told apart where they happen.
        raise FetchError(f"this machine: {e.strerror or 'out of resources'}", "system") from None


class _Exchange:
    def __init__(
        self, origin: FeedOrigin, validators: Validators, headers: Mapping[str, str], form: bytes | None
    ) -> None:
        self._origin = origin
        self._form = form
        self._validators = validators
        self._headers = headers
        self._url = parse(origin.url, "the feed's URL")
        self._credentials = credentials(origin, self._url, sent=form is not None)
        self._proxy: Url | None = None
        self._proxy_fields: dict[str, str] = {}
        if origin.proxy is not None:
            self._proxy, self._proxy_fields = parse_proxy(origin.proxy)
        self._proxy_config = ProxyConfig(
            None if self._proxy is None else proxy_context(origin.ca),
            use_forwarding_for_https=False,
            assert_hostname=None,
            assert_fingerprint=None,
        )
        # How near a redirect may lead: no nearer than the first server is, which the operator has named. One
        # on the internet has no business with what listens in our network, or on this machine alone. What
        # counts is the address that is connected to, since a name may have another each time.
        self._least: Scope | None = Scope.HOST if origin.private_redirects else None
        self._nat64 = Nat64((WELL_KNOWN, *origin.nat64))
        self._deadline = Deadline(origin.timeout, peer(self._url), "not done")

    def run(self) -> Answer:
        url, at_home = self._url, True
        tls = self._tls(at_home)
        for _ in range(MAX_REDIRECTS + 1):
            fields = self._fields(url, at_home)
            with self._get(url, fields, tls) as response:
                if response.status == 304 and not _CONDITIONS.isdisjoint(fields):
                    return self._unchanged(url, response)
                if response.status not in _REDIRECTS:
                    return self._answer(url, response)
                if self._form is not None:
                    raise FetchError(f"{peer(url)}: a redirect of what is sent is not followed", "redirect")
                location = response.headers.get("location")
            target = _target(url, location)
            if at_home and place(target) != place(url):
                at_home = False
                tls = self._tls(at_home)
            url = target
        raise FetchError(f"{peer(self._url)}: more than {MAX_REDIRECTS} redirects", "redirect")

    def _tls(self, at_home: bool) -> ssl.SSLContext:
        ours = self._origin
        return context(ours.ca, ours.client_cert, ours.client_key) if at_home else context(ours.ca)

    def _fields(self, url: Url, at_home: bool) -> dict[str, str]:
        fields = {"User-Agent": "urlward", "Accept": "*/*", "Accept-Encoding": ACCEPTED, **self._headers}
        known = self._validators
        if known.of in ("", _digest(url)):
            if _ETAG.fullmatch(known.etag):
                fields["If-None-Match"] = known.etag
            if parse_date(known.last_modified):
                fields["If-Modified-Since"] = known.last_modified
        if self._form is not None:
            fields["Content-Type"] = "application/x-www-form-urlencoded"
        return {**fields, **self._credentials} if at_home else fields

    @contextmanager
    def _get(self, url: Url, fields: Mapping[str, str], tls: ssl.SSLContext) -> Iterator[HTTPResponse]:
        """Send the request and yield its response, whose body can be read until the deadline."""
        within = Deadline(self._origin.connect_timeout, peer(url), "no connection", within=self._deadline)
        try:
            connection = self._connection(url, tls)
        except _FAILURES:
            raise FetchError(f"{peer(url)}: not a host", "url") from None
        with closing(connection):
            self._connect(connection, url, within)
            connection.timeout = self._deadline.left()
            target = url.request_uri
            if self._proxy is not None and url.scheme == "http":
                target, fields = url._replace(fragment=None).url, {**fields, **self._proxy_fields}
            with self._deadline.cutting(connection.sock):
                try:
                    connection.request(
                        "GET" if self._form is None else "POST",
                        target,
                        body=self._form,
                        headers=fields,
                        preload_content=False,
                        decode_content=False,
                    )
                    response = connection.getresponse()
                except _FAILURES as e:
                    raise failure(e, peer(url)) from None
                self._deadline.left()  # http.client takes a head that is cut off for a whole one
                yield response

    def _connection(self, url: Url, tls: ssl.SSLContext) -> "_Plain | _Secure":
        scheme, host, port = place(url)
        if self._proxy is None:
            return _Plain(host, port) if scheme == "http" else _Secure(host, port, ssl_context=tls)
        by, its_host, its_port = place(self._proxy)
        if scheme == by == "http":
            return _Plain(its_host, its_port, proxy=self._proxy)
        secure = _Secure(
            its_host, its_port, proxy=self._proxy, proxy_config=self._proxy_config, ssl_context=tls
        )
        if scheme == "https":
            secure.set_tunnel(host, port, self._proxy_fields, by)
        return secure

    def _connect(self, connection: "_Plain | _Secure", url: Url, within: "Deadline") -> None:
        try:
            connection.sock = self._dial(url, within)
            with within.cutting(connection.sock):
                connection.timeout = within.left()
                connection.connect()
        except FetchError as e:
            if self._proxy is None or e.reason != "dns":
                raise
            raise FetchError(f"proxy {e}", "proxy") from None
        except _FAILURES as e:
            raise self._no_connection(e, connection, url) from None
        within.left()
        secured: Any = connection.sock  # of ssl, or of urllib3 where it is TLS within TLS
        if type(secured) is not socket.socket:
            # An end of data that the server has not signed could be anyone's doing.
            secured.suppress_ragged_eofs = False

    def _dial(self, url: Url, within: "Deadline") -> socket.socket:
        if self._proxy is None:
            least = Scope.HOST if self._least is None else self._least
            sock = connect(*place(url)[1:], within, least, self._nat64)
            self._least = reached(sock, self._nat64) if self._least is None else self._least
            return sock
        # Of what a proxy connects to we see the URL alone.
        found = _scope_of_name(url, self._nat64)
        if self._least is not None and found < self._least:
            raise too_near(within)
        self._least = found if self._least is None else self._least
        return connect(*place(self._proxy)[1:], within)

    def _no_connection(self, error: Exception, connection: "_Plain | _Secure", url: Url) -> FetchError:
        in_tunnel = isinstance(error, ssl.SSLError) and connection.proxy_is_verified is not None
        if self._proxy is None or in_tunnel:
            return failure(error, peer(url))
        if refused := _REFUSED.match(str(error)):
            text = f"proxy {peer(self._proxy)}: refuses the tunnel with status {refused[1]}"
            return FetchError(text, "proxy")
        return FetchError(f"proxy {failure(error, peer(self._proxy))}", "proxy")

    def _unchanged(self, url: Url, response: HTTPResponse) -> Answer:
        new, old = _validators(url, response.headers), self._validators
        kept = Validators(new.etag or old.etag, new.last_modified or old.last_modified, new.of)
        return Answer("unchanged", None, 0, kept, fresh_for(response.headers), url.url)

    def _answer(self, url: Url, response: HTTPResponse) -> Answer:
        status, fields = response.status, response.headers
        if status in (404, 410):
            return Answer("absent", None, 0, NO_VALIDATORS, fresh_for(fields), url.url)
        made = status == 201 and self._form is not None
        if status != 200 and not made and not (status == 206 and "Range" in self._headers):
            reason, words = _STATUSES.get(status, ("server" if status >= 500 else "status", ""))
            message = f"{peer(url)}: status {status}" + (f": {words}" if words else "")
            raise FetchError(message, reason, retry_after=retry_after(fields), status=status)
        fd, size = self._body(url, response)
        return Answer("new", fd, size, _validators(url, fields), fresh_for(fields), url.url)

    def _body(self, url: Url, response: HTTPResponse) -> tuple[int, int]:
        guard = BodyLimits(peer(url), self._origin.max_bytes, self._deadline.left)
        length, coding = response.headers.get("content-length"), response.headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise guard.error("a transfer coding that was not asked for", "protocol")
        if length is not None and coding is None:
            if not _LENGTH.fullmatch(length):
                raise guard.error("its Content-Length is no number", "protocol")
            guard.announced(int(length))
        fd = memfd.new()
        try:
            encoding = response.headers.get("content-encoding", "")
            with os.fdopen(fd, "wb", closefd=False) as file:
                for chunk in content(_chunks(response, peer(url)), encoding, guard):
                    file.write(chunk)
                size = file.tell()
            if not size and length is None and coding is None:
                # What http.client makes of a head that was cut off, too.
                raise guard.error("the answer ends too early", "truncated")
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd, size


class _Plain(HTTPConnection):
    """Connection over its `sock`, which is connected already."""

    def _new_conn(self) -> socket.socket:
        return self.sock


class _Secure(HTTPSConnection):
    """TLS over its `sock`, which is connected already."""

    def _new_conn(self) -> socket.socket:
        return self.sock


def _chunks(response: HTTPResponse, name: str) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK, decode_content=False):
            yield chunk
    except _FAILURES as e:
        raise failure(e, name, in_body=True) from None


def _target(url: Url, location: str | None) -> Url:
    """Target of a redirect."""
    if not location:
        raise FetchError(f"{peer(url)}: a redirect to nowhere", "redirect")
    try:
        target = parse(urljoin(url.url, location), "its target")
    except (FetchError, ValueError) as e:
        why = e if isinstance(e, FetchError) else "its target: not a URL"
        raise FetchError(f"{peer(url)}: a redirect is not followed; {why}", "redirect") from None
    if url.scheme == "https" and target.scheme == "http":
        raise FetchError(f"{peer(url)}: a redirect from https to {peer(target)} is not followed", "redirect")
    return target


def _validators(url: Url, fields: Mapping[str, str]) -> Validators:
    etag, date = fields.get("etag", ""), fields.get("last-modified", "")
    return Validators(etag if _ETAG.fullmatch(etag) else "", date if parse_date(date) else "", _digest(url))


def _digest(url: Url) -> str:
    whole = url._replace(query=None, fragment=None).url
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()


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
    bare = Url(url.scheme, None, url.host, url.port)
    if url.auth is None:
        return bare, {}
    user, _, password = url.auth.partition(":")
    return bare, {"Proxy-Authorization": _basic(unquote(user), unquote(password))}


def credentials(origin: FeedOrigin, url: Url, *, sent: bool = False) -> dict[str, str]:
    """Header fields with the credentials.

    Args:
        origin: has them.
        url: where they are sent.
        sent: whether something is sent besides, which may have some in it.

    Raises:
        FetchError: not usable, or anyone on the way could read it ("secret").
    """
    given = [origin.user, origin.password, origin.token, origin.client_cert, origin.client_key]
    wrong = ""
    if all(value is None for value in given) and not origin.fields and not sent:
        return {}
    if url.scheme == "http" and (origin.proxy is not None or not _is_loopback(place(url)[1])):
        wrong = "credentials are not sent without TLS: use https"
    elif origin.client_key is not None and origin.client_cert is None:
        wrong = "the client's key has no certificate"
    elif origin.token is not None:
        if origin.user is not None or origin.password is not None:
            wrong = "both a token and a user are given"
        elif not _TOKEN.fullmatch(origin.token):
            wrong = "the token is empty or has characters that none has"
    elif not all(_TOKEN.fullmatch(value) for _, value in origin.fields):
        wrong = "a key is empty or has characters that none has"
    elif origin.user is None and origin.password is not None:
        wrong = "a password without a user"
    elif ":" in (origin.user or ""):
        wrong = "a user's name has no colon"
    if wrong:
        raise FetchError(f"{peer(url)}: {wrong}", "secret")
    if origin.token is not None:
        return {"Authorization": f"Bearer {origin.token}"}
    if origin.user is None:
        return dict(origin.fields)
    try:
        return {"Authorization": _basic(origin.user, origin.password or "")}
    except UnicodeEncodeError:
        raise FetchError(f"{peer(url)}: user or password is not UTF-8", "secret") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _basic(user: str, password: str) -> str:
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


def retry_after(fields: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks to wait: a number of them, or a date; None where it has neither."""
    value = fields.get("retry-after", "")
    seconds = _seconds(value)
    return _until(value, time.time()) if seconds is None else seconds


def fresh_for(fields: Mapping[str, str]) -> float | None:
    """Seconds that an answer is fresh: 0 where it must be asked for anew, None where nothing is said.

    As a private cache has it (RFC 9111, section 4.2), so s-maxage does not count.
    """
    cache = parse_dict_header(fields.get("cache-control", "").lower())
    if "no-store" in cache or cache.get("no-cache", "") is None:
        return 0.0
    lifetime = _seconds(cache.get("max-age"))
    if lifetime is None and "expires" in fields:
        date = parse_date(fields.get("date"))
        # A date that is none, such as 0, is in the past.
        lifetime = _until(fields["expires"], date.timestamp() if date else time.time()) or 0.0
    if lifetime is None:
        return None
    return max(0.0, lifetime - (_seconds(fields.get("age")) or 0.0))


def _until(value: str, start: float) -> float | None:
    date = parse_date(value)
    return max(0.0, date.timestamp() - start) if date else None


def _seconds(value: str | None) -> float | None:
    match = _SECONDS.fullmatch(value or "")
    if match is None:
        return None
    return float(_MOST if len(match[1]) > len(str(_MOST)) else min(int(match[1]), _MOST))


def failure(error: Exception, name: str, *, in_body: bool = False) -> FetchError:
    """Error for a failure of a connection.

    Args:
        error: of a socket, of TLS, of http.client or urllib3.
        name: scheme, host and port.
        in_body: whether a response had begun.
    """
    cause = _cause(error)
    reason: Reason
    match cause:
        case ssl.SSLCertVerificationError():
            reason, text = "certificate", f"its certificate does not verify: {cause.verify_message}"
            if cause.verify_code in _UNKNOWN_CA:
                text += " (a CA of one's own is named by `ca`)"
        case TimeoutError():
            reason, text = "timeout", f"{'no more of the body' if in_body else 'no answer'} in time"
        case ssl.SSLError() if not isinstance(cause, ssl.SSLEOFError):
            words = str(getattr(cause, "reason", None) or "no reason given").lower().replace("_", " ")
            reason, text = "tls", f"TLS failed: {words}"
        case OSError() | IncompleteRead() if in_body:
            reason, text = "truncated", "the body ends too early"
        case ssl.SSLEOFError() | ConnectionResetError() | BrokenPipeError():
            reason, text = "refused", "the connection was ended before an answer"
        case OSError():
            reason, text = "refused", cause.strerror or "the connection failed"
        case _:
            reason, text = "protocol", "the answer is not HTTP/1.1"
    return FetchError(f"{name}: {text}", reason)


_UNKNOWN_CA = (18, 19, 20, 21)
"""Codes of OpenSSL for certificates whose issuer is not known (X509_STORE_CTX_get_error(3))."""


def _cause(error: Exception) -> Exception:
    """Find the system's or http.client's error that urllib3 has wrapped."""
    while isinstance(error, HTTPError) and not isinstance(error, HTTPException):
        inner = next((value for value in reversed(error.args) if isinstance(value, Exception)), None)
        inner = inner or (error.__cause__ if isinstance(error.__cause__, Exception) else None)
        if inner is None or inner is error:
            break
        error = inner
    return error


def reached(sock: socket.socket, nat64: Nat64 = WELL_KNOWN_NAT64) -> Scope:
    """The scope of what a connection has reached: any address of this machine is as good as loopback."""
    address, ours = sock.getpeername()[0], sock.getsockname()[0]
    return Scope.HOST if address == ours else scope(address, nat64)


def _scope_of_name(url: Url, nat64: Nat64) -> Scope:
    """Scope of a URL's host as far as it is known without DNS."""
    host = place(url)[1].rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return Scope.HOST
    with suppress(OSError):
        host = socket.inet_ntoa(socket.inet_aton(host))  # also 127.1 and 0x7f000001
    with suppress(ValueError):
        return scope(host, nat64)
    return Scope.GLOBAL


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
        self.peer = peer
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


def too_near(deadline: Deadline) -> FetchError:
    """Error for a host whose addresses are all of a scope that it must not have."""
    text = f"{deadline.peer}: a redirect into a private network or to this machine is not followed"
    return FetchError(text, "redirect")


def connect(
    host: str, port: int, deadline: Deadline, least: Scope = Scope.HOST, nat64: Nat64 = WELL_KNOWN_NAT64
) -> socket.socket:
    """Open a TCP connection to the first of a host's addresses that accepts one.

    Args:
        host, port: of what.
        deadline: by when.
        least: addresses of a narrower scope are left alone.
        nat64: as of `scope`.

    Raises:
        FetchError: no address ("dns"), only narrower ones ("redirect"), or not in time ("timeout").
        OSError: the last address's fault.
    """
    addresses = [
        (family, address)
        for family, address in resolve(host, port, deadline)
        if scope(address[0], nat64) >= least
    ]
    failed: Exception = too_near(deadline)
    for number, (family, address) in enumerate(addresses):
        with ExitStack() as closed:
            sock = closed.enter_context(socket.socket(family, socket.SOCK_STREAM))
            try:
                # One that swallows everything leaves time for the others.
                sock.settimeout(deadline.left() / (len(addresses) - number))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(deadline.left())
            except OSError as e:
                failed = deadline.error() if isinstance(e, TimeoutError) else e
                continue
            if reached(sock, nat64) >= least:
                closed.pop_all()
                return sock
            failed = too_near(deadline)
    raise failed


def resolve(host: str, port: int, deadline: Deadline) -> list[Address]:
    """Resolve a host's addresses, the system's way.

    Raises:
        FetchError: none ("dns"), or not in time ("timeout").
    """
    found: list[Address] = []
    failed = ["no address"]

    def ask() -> None:
        try:
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append((family, address))  # type: ignore[arg-type]
        except OSError as e:
            failed[0] = e.strerror or os.strerror(e.errno or 0)
        except UnicodeError:
            failed[0] = "not a host name"

    thread = threading.Thread(target=ask, name="urlward-resolve", daemon=True)
    thread.start()
    thread.join(deadline.left())
    if thread.is_alive():
        raise deadline.error()
    if not found:
        raise FetchError(f"{host}: {failed[0]}", "dns")
    return found
