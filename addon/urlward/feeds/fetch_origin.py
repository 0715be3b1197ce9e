"""Origin of a feed: URL, proxy, TLS and credentials."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from urllib3.util import Url

from urlward.feeds.fetch_connection import basic, peer
from urlward.feeds.fetch_errors import FetchError

_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of a feed. What could be secret is not in its `repr`.

    Attributes:
        url: of http or https, without user information.
        user: for basic authentication (RFC 7617), with `password`.
        token: for bearer authentication (RFC 6750), in place of `user`.
        client_cert: file of a certificate and its chain, PEM.
        client_key: file of its key, PEM; where not given, it is in the same file.
        ca: file of CAs to trust in place of the system's, PEM.
        proxy: ``http://[user:password@]host:port`` or https; None goes straight, whatever the environment.
        timeout: seconds for all of it, redirects too.
        connect_timeout: seconds for each connection, from the name to the end of TLS's handshake.
        max_bytes: of the body, decompressed and as it comes.
        private_redirects: whether a redirect may lead nearer, such as from the internet to a private network.
    """

    url: str = field(repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    client_cert: str | None = None
    client_key: str | None = None
    ca: str | None = None
    proxy: str | None = field(default=None, repr=False)
    timeout: float = 300.0
    connect_timeout: float = 10.0
    max_bytes: int = 1 << 28
    private_redirects: bool = False


def credentials(origin: Origin, url: Url) -> dict[str, str]:
    """Header field with the credentials.

    Raises:
        FetchError: not usable, or anyone on the way could read it ("secret").
    """
    given = [origin.user, origin.password, origin.token, origin.client_cert, origin.client_key]
    if all(value is None for value in given):
        return {}
    if url.scheme == "http" and (origin.proxy is not None or not _is_loopback(url.host or "")):
        raise FetchError(f"{peer(url)}: credentials are not sent without TLS: use https", "secret")
    if origin.client_key is not None and origin.client_cert is None:
        raise FetchError(f"{peer(url)}: the client's key has no certificate", "secret")
    if origin.token is not None:
        if origin.user is not None or origin.password is not None:
            raise FetchError(f"{peer(url)}: both a token and a user are given", "secret")
        if not _TOKEN.fullmatch(origin.token):
            raise FetchError(f"{peer(url)}: the token is empty or has characters that none has", "secret")
        return {"Authorization": f"Bearer {origin.token}"}
    if origin.user is not None:
        if ":" in origin.user:
            raise FetchError(f"{peer(url)}: a user's name has no colon", "secret")
        try:
            return {"Authorization": basic(origin.user, origin.password or "")}
        except UnicodeEncodeError:
            raise FetchError(f"{peer(url)}: user or password is not UTF-8", "secret") from None
    if origin.password is not None:
        raise FetchError(f"{peer(url)}: a password without a user", "secret")
    return {}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
