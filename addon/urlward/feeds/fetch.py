"""Fetching a feed over HTTP(S): one exchange, to its end or within its limits.

What comes is the body's content in memory, decompressed, or the word that nothing changed. Nothing is
written to disk, and nothing is logged; whether to try again, and when, is the caller's to decide.

A redirect is followed where it leads to a place that is as safe: never from https to http, and never from
the internet into a private network or to this machine. Credentials go to the origin that they were given
for, and to no other, not even later on the way.
"""

import hashlib
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from types import MappingProxyType
from typing import Literal
from urllib.parse import urljoin

from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse
from urllib3.util import Url
from werkzeug.http import parse_date

from urlward.feeds import fetch_fields, fetch_tls
from urlward.feeds.fetch_body import ACCEPTED, Guard, content
from urlward.feeds.fetch_connection import FAILURES, Way, parse, peer, place
from urlward.feeds.fetch_deadline import Deadline
from urlward.feeds.fetch_errors import FetchError, Reason, body_error
from urlward.feeds.fetch_origin import Origin, credentials
from urlward.lists import memfd

__all__ = ["MAX_REDIRECTS", "Answer", "FetchError", "Origin", "Reason", "Validators", "fetch"]

MAX_REDIRECTS = 5

_CHUNK = 1 << 16
_CONDITIONS = {"If-None-Match", "If-Modified-Since"}
_REDIRECTS = (301, 302, 303, 307, 308)
_STATUSES: dict[int, tuple[Reason, str]] = {
    401: ("unauthorized", "the credentials are missing or wrong"),
    403: ("forbidden", "these credentials, or this address, may not have it"),
    407: ("proxy", "the proxy wants other credentials"),
    429: ("rate-limited", "asked too often"),
}
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Validators:
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
        content_type: as the server says.
    """

    kind: Literal["new", "unchanged", "absent"]
    fd: int | None
    size: int
    validators: Validators
    fresh_for: float | None
    url: str = field(repr=False)
    content_type: str = ""


def fetch(
    origin: Origin,
    validators: Validators = Validators(),
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """Fetch a feed, if it has changed.

    It blocks its thread, for `Origin.timeout` at the longest.

    Args:
        origin: of the feed.
        validators: of what is there already, from the answer that gave it.
        headers: fields that are sent too, wherever a redirect leads; nothing secret. With a ``Range``, the
            body may be that part (206, RFC 9110, section 15.3.7) or the whole: the server decides.

    Raises:
        FetchError: there is none, or not within the limits.
    """
    try:
        return _Exchange(origin, validators, headers).run()
    except (HTTPException, HTTPError):
        # What their releases refuse, and where, differs; a server has a hand in it.
        raise FetchError("a URL or an answer that is not HTTP", "protocol") from None
    except OSError as e:
        # Not the network's, which are told apart where they happen.
        raise FetchError(f"this machine: {e.strerror or 'out of resources'}", "system") from None


class _Exchange:
    def __init__(self, origin: Origin, validators: Validators, headers: Mapping[str, str]) -> None:
        self._origin = origin
        self._validators = validators
        self._headers = headers
        self._url = parse(origin.url, "the feed's URL")
        self._credentials = credentials(origin, self._url)
        self._way = Way(origin.proxy, origin.ca, origin.connect_timeout, nearer=origin.private_redirects)
        self._deadline = Deadline(origin.timeout, peer(self._url), "not done")

    def run(self) -> Answer:
        url, at_home = self._url, True
        tls = self._tls(at_home)
        for _ in range(MAX_REDIRECTS + 1):
            fields = self._fields(url, at_home)
            with self._way.get(url, fields, tls, self._deadline) as response:
                if response.status == 304 and not _CONDITIONS.isdisjoint(fields):
                    return self._unchanged(url, response)
                if response.status not in _REDIRECTS:
                    return self._answer(url, response)
                location = response.headers.get("location")
            target = _target(url, location)
            if at_home and place(target) != place(url):
                at_home = False
                tls = self._tls(at_home)
            url = target
        raise FetchError(f"{peer(self._url)}: more than {MAX_REDIRECTS} redirects", "redirect")

    def _tls(self, at_home: bool) -> ssl.SSLContext:
        ours = self._origin
        if not at_home:
            return fetch_tls.context(ours.ca)
        return fetch_tls.context(ours.ca, ours.client_cert, ours.client_key)

    def _fields(self, url: Url, at_home: bool) -> dict[str, str]:
        fields = {"User-Agent": "urlward", "Accept": "*/*", "Accept-Encoding": ACCEPTED, **self._headers}
        known = self._validators
        if known.of in ("", _digest(url)):
            if _ETAG.fullmatch(known.etag):
                fields["If-None-Match"] = known.etag
            if parse_date(known.last_modified):
                fields["If-Modified-Since"] = known.last_modified
        return {**fields, **self._credentials} if at_home else fields

    def _unchanged(self, url: Url, response: HTTPResponse) -> Answer:
        new, old = _validators(url, response.headers), self._validators
        kept = Validators(new.etag or old.etag, new.last_modified or old.last_modified, new.of)
        return Answer("unchanged", None, 0, kept, fetch_fields.fresh_for(response.headers), url.url)

    def _answer(self, url: Url, response: HTTPResponse) -> Answer:
        status, fields = response.status, response.headers
        fresh_for = fetch_fields.fresh_for(fields)
        if status in (404, 410):
            return Answer("absent", None, 0, Validators(), fresh_for, url.url)
        if status != 200 and not (status == 206 and "Range" in self._headers):
            raise _status_error(url, status, fetch_fields.retry_after(fields))
        fd, size = self._body(url, response)
        kept = _validators(url, fields)
        return Answer("new", fd, size, kept, fresh_for, url.url, fields.get("content-type", ""))

    def _body(self, url: Url, response: HTTPResponse) -> tuple[int, int]:
        guard = Guard(peer(url), self._origin.max_bytes, self._deadline.left)
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


def _chunks(response: HTTPResponse, name: str) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK, decode_content=False):
            yield chunk
    except FAILURES as e:
        raise body_error(e, name) from None


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


def _status_error(url: Url, status: int, retry_after: float | None) -> FetchError:
    reason, words = _STATUSES.get(status, ("server" if status >= 500 else "status", ""))
    message = f"{peer(url)}: status {status}" + (f": {words}" if words else "")
    return FetchError(message, reason, retry_after=retry_after, status=status)


def _validators(url: Url, fields: Mapping[str, str]) -> Validators:
    etag, date = fields.get("etag", ""), fields.get("last-modified", "")
    return Validators(etag if _ETAG.fullmatch(etag) else "", date if parse_date(date) else "", _digest(url))


def _digest(url: Url) -> str:
    whole = url._replace(query=None, fragment=None).url
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()
