"""Source of a feed: its origin with the secrets read, its recipe and URLs, and what a fetch can fail by.

A feed's address can be a secret in itself (some bodies put a subscriber's key into path or query), and so
can whatever a server or proxy answers with. Messages name scheme, host and port, of the feed, of its proxy or
of where a redirect led, and nothing else that another machine wrote.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from urlward.engine.artifact import HEADER_SIZE, VERSION
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.regular import open_given, without_bom
from urlward.state.folder import local_key
from urlward.state.keys import read_key

if TYPE_CHECKING:
    from urlward.config import Config, FeedTable

HEAD_ONLY = {"Range": f"bytes=0-{HEADER_SIZE - 1}", "Accept-Encoding": "identity"}
"""Fields that ask for an artifact's header; a server may give all of it."""

_MAX_SECRET = 65_536

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


class Validators(NamedTuple):
    """Cache validators of a feed's body (RFC 9110, section 8.8).

    Attributes:
        etag: value of ETag, or empty.
        last_modified: value of Last-Modified, or empty.
        of: digest of the URL that gave them, without its query; they are sent there alone. Where
            empty, they are sent to all on the way.
    """

    etag: str = ""
    last_modified: str = ""
    of: str = ""


NO_VALIDATORS = Validators()

HEAD_ONLY = {"Range": f"bytes=0-{HEADER_SIZE - 1}", "Accept-Encoding": "identity"}
"""Fields that ask for an artifact's header; a server may give all of it."""


@dataclass(frozen=True, slots=True)
class FeedOrigin:
    """Origin of a feed. What could be secret is not in its `repr`.

    Attributes:
        url: of http or https, without user information.
        user: for basic authentication (RFC 7617), with `password`.
        token: for bearer authentication (RFC 6750), in place of `user`.
        fields: further header fields with credentials, in place of both.
        client_cert: file of a certificate and its chain, PEM.
        client_key: file of its key, PEM; where not given, it is in the same file.
        ca: file of CAs to trust in place of the system's, PEM.
        proxy: ``http://[user:password@]host:port`` or https; None goes straight, whatever the environment.
        timeout: seconds for all of it, redirects too.
        connect_timeout: seconds for each connection, from the name to the end of TLS's handshake.
        max_bytes: of the body, decompressed and as it comes.
        private_redirects: whether a redirect may lead nearer, such as from the internet to a private network.
        nat64: prefixes under which the network reaches IPv4, beside the well-known one.
    """

    url: str = field(repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    client_cert: str | None = None
    client_key: str | None = None
    ca: str | None = None
    proxy: str | None = field(default=None, repr=False)
    timeout: float = 300.0
    connect_timeout: float = 10.0
    max_bytes: int = 1 << 28
    private_redirects: bool = False
    nat64: tuple[str, ...] = ()


def origin(
    feed: "FeedTable", environment: Mapping[str, str] = os.environ, *, nat64: Iterable[str] = ()
) -> FeedOrigin:
    """Origin to fetch a feed from. Secrets are read each time: they may be replaced while the filter runs.

    Raises:
        FetchError: one cannot be read; the message names its file or variable ("secret").
    """
    assert feed.url is not None
    return FeedOrigin(
        url=feed.url,
        user=feed.user,
        password=_secret(feed, "password", environment),
        token=_secret(feed, "token", environment),
        client_cert=feed.client_cert,
        client_key=feed.client_key,
        ca=feed.ca,
        proxy=feed.proxy,
        timeout=feed.timeout,
        connect_timeout=feed.connect_timeout,
        max_bytes=feed.max_size,
        private_redirects=feed.private_redirects,
        nat64=tuple(nat64),
    )


def beside(url: str, suffix: str) -> str:
    """URL of a file in the same place: the path with a suffix; a query stays behind it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path + suffix))


def text_key(config: "Config", state: Path) -> Key:
    """Key that texts are compiled under: that of the nodes which they are published for, else the state
    folder's own.

    Raises:
        StateError, KeyFileError: it is not to be had.
    """
    return local_key(state) if config.publish is None else read_key(Path(config.publish.key))


def recipe(feed: "FeedTable", key: Key) -> str:
    """Digest of all that a feed's artifact is made of besides the body, in hexadecimal."""
    parts = [
        VERSION, key.id.hex(), feed.url, feed.path, feed.format, feed.columns, feed.delimiter, feed.category,
        feed.key,
    ]  # fmt: skip
    parts += [feed.exchange] if feed.exchange else []
    parts += [list(feed.take)] if feed.take else []  # what others are made of stays as it was
    return _hash(key, json.dumps(parts).encode()).hexdigest()


def content(file: BinaryIO, key: Key, recipe: str) -> str:
    """Digest of a body that is text, in hexadecimal. Keyed, as everything that is made of entries' text."""
    h = _hash(key, recipe.encode())
    while chunk := file.read(1 << 20):
        h.update(chunk)
    return h.hexdigest()


def _hash(key: Key, data: bytes) -> "blake2b":
    return blake2b(data, key=key.secret, digest_size=16, person=b"urlward feed")


def _secret(
    feed: "FeedTable", kind: Literal["password", "token"], environment: Mapping[str, str]
) -> str | None:
    file, variable = getattr(feed, f"{kind}_file"), getattr(feed, f"{kind}_env")
    where = file or f"the variable {variable}"
    try:
        if file is not None:
            with open_given(Path(file)) as opened:
                value = without_bom(opened.read(_MAX_SECRET)).decode().rstrip("\r\n")
        elif variable is not None:
            value = environment[variable]
        else:
            return None
    except KeyError:
        raise FetchError(f"{kind}: {where} is not set", "secret") from None
    except UnicodeDecodeError:
        raise FetchError(f"{kind}: {where} is not UTF-8", "secret") from None
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or "not a file name"
        raise FetchError(f"{kind}: {where}: {why}", "secret") from e
    if not value or not value.isprintable():
        raise FetchError(f"{kind}: {where} is empty, or not text of one line", "secret")
    return value
