"""Lists that come and go: ``[[feed]]``, lists that are fetched or watched, and ``[publish]``, where lists are
published, and the canaries on which a new one is tried first.
"""

from collections import Counter
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from urlward.config.tables import (
    SHAREABLE,
    Bytes,
    FileName,
    Seconds,
    Signer,
    Table,
    Variable,
    place_name,
    spelt,
)

HOUR = 3_600.0

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[
    str, spelt(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits and ._-, no . or - first")
]

_PAIRS = (
    ("url", "path"),
    ("password_file", "password_env"),
    ("token_file", "token_env"),
    ("token_file", "user"),
    ("token_env", "user"),
)
"""Keys of which a feed has one at most."""

_NEEDS = {
    "password_file": "user",
    "password_env": "user",
    "client_key": "client_cert",
}
"""Keys that say nothing without another."""

_OF_URLS = (
    "user", "password_file", "password_env", "token_file", "token_env",
    "client_cert", "client_key", "ca", "proxy",
)  # fmt: skip
"""Keys that say nothing of a path."""

TAKEN = ("allows", "own-entries", "protected")
"""Names of lists of the filter's own."""


class FeedTable(Table):
    """``[[feed]]``: one list that is fetched, or watched where it lies.

    Attributes:
        name: what the list is called in logs, verdicts and the state folder.
        url: where it is fetched from, or
        path: the file or folder that is watched.
        exchange: the exchange of digests that is at the URL (`urlward.feeds.exchange`); none where not given.
        format: of its text (`urlward.lists.formats`); an artifact is known by itself.
        columns: for formats with columns: which column holds what.
        delimiter: between columns.
        category: of entries that have none.
        take: categories of the source's own that are taken; those that its format says where not given.
        interval: seconds between two refreshes.
        poll: seconds between two looks at whether its server has another artifact; none where not given.
        jitter: share of `interval` by which each moves at random, so that not all clients come at once.
        timeout: seconds that a whole fetch may take.
        connect_timeout: seconds that a connection may take.
        max_size: bytes that a body may have once it is decompressed.
        user, password_file, password_env: basic authentication; the password is in the file, or in the
            environment variable.
        token_file, token_env: bearer authentication, likewise.
        client_cert, client_key: PEM files; the key may stand in the certificate's.
        ca: PEM file of the authorities that the server's certificate may be of; the system's otherwise.
        proxy: URL of the proxy to fetch through.
        private_redirects: whether a server may redirect to an address of a private network, or of this
            machine, that is not itself at such.
        max_errors: bad lines that a text may have; as for lists where not given.
        max_shrink: share of its entries that a refresh may take away.
        max_grow: share that it may add.
        min_entries: entries that a list must have.
        stale_after: seconds without a successful refresh after which there is an alarm.
        trust: public keys (files, or 64 hexadecimal digits) and files of rotation statements; where there are
            some, nothing is taken but artifacts signed so.
        key: key file of its artifacts; the lists' key otherwise.
        grace: seconds that an artifact is taken, and stays in force, beyond its validity.
        delta: whether deltas are asked for.
        use: what its entries do.
        protect: whether protected hosts are kept from it.
        paused: whether it is left as it is: nothing is fetched, and its last list stays in force.
    """

    name: Annotated[Name, SHAREABLE]
    url: str | None = None
    path: FileName | None = None
    exchange: Literal["ncmec", "stopncii", "tat"] | None = None
    format: Annotated[str, SHAREABLE] = "auto"
    columns: dict[str, str] = Field(default={})
    delimiter: Annotated[str, SHAREABLE, Field(min_length=1, max_length=1)] = ","
    category: str = ""
    take: tuple[str, ...] = Field(default=(), strict=False)
    interval: Annotated[Seconds, Field(ge=1, le=30 * 24 * HOUR)] = 6 * HOUR
    poll: Annotated[Seconds, Field(ge=0.5, le=HOUR)] | None = None
    jitter: Annotated[Share, Field(le=0.5)] = 0.1
    timeout: Annotated[Seconds, Field(gt=0, le=24 * HOUR)] = 300.0
    connect_timeout: Annotated[Seconds, Field(gt=0, le=600)] = 10.0
    max_size: Annotated[Bytes, Field(ge=1)] = 512 << 20
    user: str | None = None
    password_file: FileName | None = None
    password_env: Variable | None = None
    token_file: FileName | None = None
    token_env: Variable | None = None
    client_cert: FileName | None = None
    client_key: FileName | None = None
    ca: FileName | None = None
    proxy: str | None = None
    private_redirects: bool = False
    max_errors: Annotated[str | None, SHAREABLE] = None
    max_shrink: Annotated[Share, Field(le=1)] = 0.2
    max_grow: Share = 1.0
    min_entries: Annotated[int, Field(ge=1)] = 1
    stale_after: Annotated[Seconds, Field(gt=0)] | None = None
    trust: tuple[Signer, ...] = Field(default=(), strict=False)
    key: FileName | None = None
    grace: Annotated[Seconds, Field(ge=0)] = 7 * 24 * HOUR
    delta: bool = True
    use: Literal["block", "monitor", "allow"] = "block"
    protect: bool = True
    paused: bool = False

    @property
    def stale_limit(self) -> float:
        """`stale_after`; where not given four intervals, an hour at least."""
        return max(4 * self.interval, HOUR) if self.stale_after is None else self.stale_after

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        for one, other in _PAIRS:
            if {one, other} <= given:
                raise ValueError(f"{one} and {other} are both given: one of them only")
        for one, other in _NEEDS.items():
            if one in given and other not in given:
                raise ValueError(f"{one} is given without {other}")
        if not {"url", "path"} & given:
            raise ValueError("url or path is needed")
        if self.user is not None and not {"password_file", "password_env"} & given:
            raise ValueError("user is given without password_file or password_env")
        if self.path is not None and self.poll is not None:
            raise ValueError("poll and path are both given: a path is looked at every second as it is")
        if self.path is not None and (of_urls := sorted(given & {*_OF_URLS})):
            raise ValueError(f"{of_urls[0]} and path are both given: a path is not fetched")
        if self.exchange is not None:
            self._check_exchange(given)
        if self.url is not None:
            _check_url("url", self.url)
        if self.proxy is not None:
            _check_url("proxy", self.proxy)
        return self

    def _check_exchange(self, given: set[str]) -> None:
        for key in ("path", "poll"):
            if key in given:
                raise ValueError(f"exchange and {key} are both given: an exchange is asked at its url")
        if self.format != "auto" or self.columns:
            raise ValueError("exchange and format are both given: an exchange has its own")
        if self.exchange == "stopncii" and not {"token_file", "token_env"} & given:
            raise ValueError("exchange is given without token_file or token_env")
        if self.exchange != "stopncii" and self.user is None:
            raise ValueError("exchange is given without user")


def check_names(feeds: tuple[FeedTable, ...]) -> tuple[FeedTable, ...]:
    """Check that each feed has a name of its own.

    Raises:
        ValueError: two have the same.
    """
    for n, feed in enumerate(feeds):
        if feed.name in TAKEN:
            raise ValueError(f"feed.{n} is called {feed.name}, as a list of the filter's own is")
    for name, count in Counter(feed.name for feed in feeds).items():
        if count > 1:
            first, second, *_ = (n for n, feed in enumerate(feeds) if feed.name == name)
            raise ValueError(f"feed.{first} and feed.{second} have the same name, {name}")
    return feeds


def _check_url(key: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise ValueError(f"{key} is not an http:// or https:// URL")
    if key == "url" and "@" in parts.netloc:
        raise ValueError(f"{key} holds credentials: use user and password_file, so that they stay unsaid")
    if parts.fragment:
        raise ValueError(f"{key} has a fragment, which is not sent")


_HOUR = 3_600.0


def _node(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in url or "?" in url or "#" in url or not url.isprintable():
        raise ValueError("not an http:// or https:// address of a node's dashboard")
    return url.rstrip("/")


class PublishCanaryTable(Table):
    """``[[publish.canary]]``: a node that has new lists first, and is asked how it fares.

    Attributes:
        url: of its dashboard.
        token_file: file with the token of a viewer.
        ca: PEM file of the authorities that its certificate may be of; the system's otherwise.
    """

    url: Annotated[str, AfterValidator(_node)]
    token_file: FileName
    ca: FileName | None = None


class PublishTable(Table):
    """``[publish]``: lists for other nodes.

    Attributes:
        to: folder, or ``s3://BUCKET/PREFIX``.
        key: file of the key that texts are compiled under.
        sign: file of the private key that every list is signed with.
        valid_for: seconds for which each is valid; without end where not given.
        keep: earlier versions of each list that are kept, and lead to the present one by a delta.
        lease: seconds after which another publisher takes the place of one that is silent.
        observe: seconds for which canaries have a new list before all have it.
        max_rise: times its own rate before to which a canary's blocks, faults and objections may rise.
        canary: nodes that have new lists first.
    """

    to: Annotated[str | None, AfterValidator(place_name)] = None
    key: FileName
    sign: FileName
    valid_for: Annotated[Seconds, Field(ge=60)] | None = None
    keep: Annotated[int, Field(ge=1, le=50)] = 5
    lease: Annotated[Seconds, Field(ge=1, le=_HOUR)] = 30.0
    observe: Annotated[Seconds, Field(ge=1, le=30 * 24 * _HOUR)] = _HOUR / 2
    max_rise: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    canary: tuple[PublishCanaryTable, ...] = Field(default=(), strict=False)
