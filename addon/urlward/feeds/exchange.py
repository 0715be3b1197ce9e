"""Exchanges of digests: databases that members of a hotline or of an industry ask for what has changed.

The clients are those of Meta's ``threatexchange`` (extra ``files``), which know what each exchange's answers
mean and in which steps it is asked; each request is made as of any feed (`urlward.feeds.fetch`). An exchange
says what is new and what is gone, and may take hours to tell all of it. So what it has said is kept beside
the feed's artifact, sealed under the local key, with the place to go on from; whatever ends a fetch, the next
one goes on there.

It runs in a process that ends with the refresh.
"""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree as ET

from urlward.engine.dates import time_text
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, UrlError
from urlward.feeds.fetch import fetch, parse, peer
from urlward.feeds.guards import RefusedError
from urlward.feeds.source import FeedOrigin, FetchError
from urlward.lists import memfd
from urlward.lists.formats.format import DIGESTS, NotTakenError
from urlward.lists.formats.write import attributes, file_digest, page
from urlward.regular import read_regular
from urlward.state.folder import locked, write_private

if TYPE_CHECKING:
    from urlward.config import FeedTable

SUFFIX = ".exchange"
"""Of the file in the state folder that has what an exchange has said."""

_VERSION = 1
_MOST = 1 << 32
"""Bytes of what is kept at most."""

_LONGEST = 1_800.0
"""Seconds that a fetch may go on, page after page; the next goes on where it was."""

_WRITE = 300.0
"""Seconds between two times that what an exchange says is kept, while it says more."""

_STALE = 30 * 86_400
"""Seconds after which StopNCII is asked for everything again."""

_MARGIN = 5
"""Seconds before now up to which NCMEC is asked."""

_OVERLAP = 600
"""Seconds that NCMEC is asked for twice: its clock, by which it says when an entry has changed, may be behind
this machine's. An entry that is told again is the same one."""

type Update = tuple[dict[str, list[str] | None], Any]
"""Names of entries to their subjects in the grammar, None for those that are gone; and where to go on."""


class DigestExchange(NamedTuple):
    """One kind of exchange.

    Attributes:
        category: of its entries, where the feed says none.
        updates: what has changed since a place that it gave, or all that there is where that is None.
        names: whether an entry's name is a reference that may be said.
    """

    category: str
    updates: Callable[[FeedOrigin, Any], Iterator[Update]]
    names: bool = False


class ExchangeState(NamedTuple):
    """Digests that an exchange has named so far, and the place to go on from.

    Attributes:
        place: to go on from; None at the beginning.
        entries: by name.
    """

    place: Any
    entries: dict[str, list[str]]


def fetched(feed: "FeedTable", origin: FeedOrigin, path: Path, key: Key, *, keeps: bool) -> int:
    """Ask an exchange what has changed; returns a descriptor of memory with all that it lists, as lines of
    the grammar. The caller closes it.

    Args:
        feed: whose `exchange` names it.
        origin: of it.
        path: of what is kept of it.
        key: that this is sealed under.
        keeps: whether anything is kept.

    Raises:
        FetchError: it could not be asked for all; what it has said is kept.
        RefusedError: it says more than the feed's `max_size`.
        StateError: that cannot be written.
    """
    exchange = EXCHANGES[str(feed.exchange)]
    of = blake2b(repr((feed.exchange, feed.url, feed.user)).encode(), digest_size=16).hexdigest()
    kept = _read(path, key, of, str(feed.exchange))
    place, entries = kept
    size, began = sum(map(_size, entries.values())), time.monotonic()
    written = began
    try:
        for changed, reached in _answers(exchange, origin, place):
            for name, subjects in changed.items():
                size -= _size(entries.pop(name, ()))
                if subjects:
                    entries[name] = subjects
                    size += _size(subjects)
            place = reached
            if size > feed.max_size:
                raise RefusedError("too-large", f"more than max_size, {feed.max_size} bytes")
            if keeps and time.monotonic() > written + _WRITE:
                _write(path, key, of, ExchangeState(place, entries))
                written = time.monotonic()
            if time.monotonic() > began + _LONGEST:
                where = peer(parse(origin.url, "the feed's URL"))
                raise FetchError(
                    f"{where}: has more after {_LONGEST / 60:.0f} minutes; asked on later", "timeout"
                )
    finally:
        if keeps:
            _write(path, key, of, ExchangeState(place, entries))
    return _lines(entries, exchange, feed.category or exchange.category)


def _size(subjects: Sequence[str]) -> int:
    return sum(map(len, subjects))


def _answers(exchange: DigestExchange, origin: FeedOrigin, place: Any) -> Iterator[Update]:
    where = peer(parse(origin.url, "the feed's URL"))
    try:
        yield from exchange.updates(origin, place)
    except FetchError:
        raise
    except ImportError as e:
        text = f"an exchange needs the extra `files`, which is not installed: {e.name} is not there"
        raise FetchError(text, "settings") from None
    except Exception:  # noqa: BLE001 - whatever the client makes of it, and its text quotes the answer
        raise FetchError(f"{where}: an answer that is none of this exchange", "protocol") from None


def _lines(entries: Mapping[str, list[str]], exchange: DigestExchange, category: str) -> int:
    fd = memfd.new()
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            for name in sorted(entries):
                more = attributes(name if exchange.names else "", category)
                for subject in entries[name]:
                    file.write(f"{subject}{more}\n".encode())
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read(path: Path, key: Key, of: str, exchange: str) -> ExchangeState:
    """What is kept; nothing where that is of another exchange, damaged, or too old to go on from."""
    with suppress(OSError, ArtifactError, ValueError, KeyError, TypeError, zlib.error):
        said = json.loads(zlib.decompress(key.unseal(read_regular(path, _MOST))))
        stale = exchange == "stopncii" and said["at"] + _STALE < time.time()
        if said["version"] == _VERSION and said["of"] == of and not stale:
            return ExchangeState(said["place"], dict(said["entries"]))
    return ExchangeState(None, {})


def _write(path: Path, key: Key, of: str, kept: ExchangeState) -> None:
    said = {"version": _VERSION, "of": of, "at": int(time.time()), **kept._asdict()}
    data = key.seal(zlib.compress(json.dumps(said, separators=(",", ":")).encode(), 1))
    with locked(path.parent):
        write_private(path, data, path.parent.parent)


def _asked(
    origin: FeedOrigin,
    url: str,
    params: Mapping[str, Any] | None = None,
    *,
    form: Mapping[str, Any] | None = None,
) -> bytes:
    """The body of an answer.

    Args:
        origin: how it is asked, with all credentials.
        url: what is asked for; an answer may have named it, but no other host than the configured one.
        params: of the URL.
        form: what is sent.

    Raises:
        FetchError: there is none.
    """
    where, base = parse(url, "where an answer goes on"), parse(origin.url, "the feed's URL")
    if (where.scheme, where.host, where.port) != (base.scheme, base.host, base.port):
        raise FetchError(
            f"{peer(base)}: its answer goes on at another host, which gets no credentials", "protocol"
        )
    if params:
        url += ("&" if "?" in url else "?") + urlencode(params)
    body = None if form is None else urlencode(form).encode()
    answer = fetch(replace(origin, url=url), body=body)
    if answer.fd is None:
        raise FetchError(f"{peer(where)}: status 404 or 410: no such exchange", "status")
    with os.fdopen(answer.fd, "rb") as file:
        return file.read()


def _subjects(digests: Mapping[str, str | None]) -> list[str]:
    """Subjects of the digests that entries can have, by algorithm; others are left out."""
    found = []
    for algorithm in DIGESTS:
        with suppress(NotTakenError):
            if digest := digests.get(algorithm):
                found.append(file_digest(algorithm, digest.strip()))
    return found


def _ncmec(origin: FeedOrigin, place: Any) -> Iterator[Update]:
    """NCMEC's hash sharing API: https://report.cybertip.org/hashsharing/v2/documentation.pdf."""
    from threatexchange.exchanges.clients.ncmec import hash_api
    from threatexchange.exchanges.impl import ncmec_api

    base = origin.url.rstrip("/")

    class NcmecClient(hash_api.NCMECHashAPI):
        def get_entries(
            self, *, start_timestamp: int = 0, end_timestamp: int = 0, next_: str = ""
        ) -> hash_api.GetEntriesResponse:
            # In UTC, which is where its own goes by the machine's time zone.
            times = {"from": time_text(start_timestamp), "to": time_text(end_timestamp)}
            asked = (base + next_, {}) if next_ else (f"{base}/{self.VERSION}/entries", times)
            root = ET.fromstring(_asked(origin, *asked))  # noqa: S314 - expat bounds what entities make
            for element in root.iter():
                element.tag = element.tag.rpartition("}")[2]
            if root.tag != "queryResult":  # as a page is that is XML too, which would say that nothing is new
                raise ValueError
            return hash_api.GetEntriesResponse.from_xml(hash_api._XMLWrapper(root), int(time.time()))

    class NcmecApi(ncmec_api.NCMECSignalExchangeAPI):
        def get_client(self, environment: Any) -> hash_api.NCMECHashAPI:
            return NcmecClient(self._username, self._password, environment)

    checkpoint = None
    # A place that is yet to come is of a clock that was wrong: nothing would be asked for until then.
    if place is not None and (clock := int(time.time())) >= place[0]:
        since, paging = place
        if paging is None:
            since = max(since - _OVERLAP, 0)
        elif paging[1] >= clock - _MARGIN:
            paging = None  # its client goes on in no range that ends later than it asks at all
        checkpoint = ncmec_api.NCMECCheckpoint(since, paging and ncmec_api._NCMECPagingInfo(*paging))
    environment: Any = SimpleNamespace(value=base)
    collab = ncmec_api.NCMECCollabConfig(name="urlward", environment=environment)
    for delta in NcmecApi(collab, origin.user or "", origin.password or "").fetch_iter((), checkpoint):
        now, page_ = delta.checkpoint, delta.checkpoint.paging_info
        paging = None if page_ is None else [page_.paging_url, page_.paging_end_ts, page_.paging_url_ts]
        changed = {
            name: None if entry is None or entry.deleted else _subjects(entry.fingerprints)
            for name, entry in delta.updates.items()
        }
        yield changed, [now.get_entries_max_ts, paging]


def _stopncii(origin: FeedOrigin, place: Any) -> Iterator[Update]:
    """StopNCII.org. What somebody has withdrawn is told by its status."""
    from threatexchange.exchanges.clients.stopncii.api import (
        StopNCIIAPI,
        StopNCIICaseStatus,
        StopNCIIEndpoint,
        StopNCIISignalType,
    )

    function_key, comma, subscription_key = (origin.token or "").partition(",")
    if not comma:
        raise FetchError("token: needs the keys of function and subscription, a comma between", "secret")
    keys = {"x-functions-key": function_key, "Ocp-Apim-Subscription-Key": subscription_key}
    asked = replace(origin, token=None, fields=tuple(keys.items()))
    base = origin.url.rstrip("/")

    class StopNciiClient(StopNCIIAPI):
        def _get(self, endpoint: StopNCIIEndpoint, **params: Any) -> Any:
            said = json.loads(_asked(asked, f"{base}/{endpoint.value}", params))
            for record in said["hashRecords"]:
                # What is of no use here, such as what members think of it, may have words that the client
                # does not know: it would pass over the record, and what is withdrawn would stay in force.
                record |= {"lastModtimestamp": 0, "caseNumbers": {}, "CSPFeedbacks": []}
            return said

    algorithms = {StopNCIISignalType.ImagePDQ: "pdq", StopNCIISignalType.VideoMD5: "md5"}
    gone = (StopNCIICaseStatus.Withdrawn, StopNCIICaseStatus.Deleted)
    client = StopNciiClient(subscription_key, function_key, base_url_override=base)
    for answer in client.fetch_hashes_iter(StopNCIIAPI.DEFAULT_START_TIME if place is None else place):
        changed: dict[str, list[str] | None] = {}
        for record in answer.hashRecords:
            name, subjects = f"{record.signalType.value} {record.hashValue}", list[str]()
            if record.signalType in algorithms:
                subjects = _subjects({algorithms[record.signalType]: record.hashValue})
            elif record.signalType == StopNCIISignalType.URL:
                with suppress(NotTakenError, UrlError):
                    subjects = [page(record.hashValue)]
            changed[name] = None if record.hashStatus in gone else subjects
        yield changed, answer.nextSetTimestamp


def _tat(origin: FeedOrigin, place: Any) -> Iterator[Update]:
    """Tech Against Terrorism: https://terrorismanalytics.org/docs/hash-list-v1."""
    from threatexchange.exchanges.clients.techagainstterrorism.api import (
        TATEndpoint,
        TATHashListAPI,
        TATHashListEntry,
    )

    bare = replace(origin, user=None, password=None)

    class TatClient(TATHashListAPI):
        BASE_URL = origin.url.rstrip("/") + "/"

        def _get(self, full_url: str | None = None, auth_token: str | None = None, **params: Any) -> Any:
            # Its client puts the whole URL that a page names as the next behind the one that it asks, where a
            # server finds some of its parameters, and others twice.
            url, _, following = str(full_url).partition("?")
            query = dict(parse_qsl(following.rpartition("?")[2]))
            said = json.loads(_asked(replace(bare, token=auth_token), url, params | query))
            # Nor does it take an entry that has more to say than it knows.
            said["results"] = [
                {each.name: entry.get(each.name) for each in fields(TATHashListEntry)}
                for entry in said["results"]
            ]
            return said

        def _post(self, endpoint: TATEndpoint, data: Any = None) -> Any:
            return json.loads(_asked(bare, self.BASE_URL + endpoint.value, form=data))

    client = TatClient(origin.user or "", origin.password or "")
    for answer in client.fetch_hashes_iter(place or ""):
        changed: dict[str, list[str] | None] = {}
        for entry in answer.results:
            algorithm = entry.algorithm.lower().replace("-", "")
            name = f"{algorithm} {entry.hash_digest}"
            changed[name] = None if entry.deleted else _subjects({algorithm: entry.hash_digest})
        place = answer.checkpoint or place
        yield changed, place


EXCHANGES: Mapping[str, DigestExchange] = {
    "ncmec": DigestExchange("csam", _ncmec, names=True),
    "stopncii": DigestExchange("ncii", _stopncii),
    "tat": DigestExchange("terrorism", _tat),
}
"""Exchanges by what a feed calls them (`urlward.config.feeds.FeedTable`)."""
