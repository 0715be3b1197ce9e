"""Exchanges of digests as feeds: asked at a server of ours, in the answers that their members get."""

import json
import logging
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.support import digest
from feeds.feed_support import Feed, feed
from rows import each_row
from urlward.config import FeedTable
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.feeds import exchange
from urlward.feeds.source import FeedOrigin, FetchError
from urlward.state.folder import local_key

pytest.importorskip("threatexchange")

SECRET = "open sesame"
BASIC = "Basic " + b64encode(f"member:{SECRET}".encode()).decode()


@dataclass(frozen=True)
class Asked:
    """One request to the server."""

    method: str
    path: str
    query: dict[str, str]
    fields: dict[str, str]
    body: dict[str, str]


@dataclass
class Server:
    """A server whose answers a test gives: content type and text, or a status."""

    url: str = ""
    answer: Callable[[Asked], str | int] = lambda _: 500
    asked: list[Asked] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            size = int(self.headers.get("content-length", 0))
            one = Asked(
                self.command,
                parts.path,
                {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()},
                {name.lower(): value for name, value in self.headers.items()},
                {name: values[0] for name, values in parse_qs(self.rfile.read(size).decode()).items()},
            )
            found.asked.append(one)
            said = found.answer(one)
            body = said.encode() if isinstance(said, str) else b""
            self.send_response(200 if isinstance(said, str) else said)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - as the base class has it

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        found.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield found
        listening.shutdown()
        thread.join()


def listed(one: Feed) -> Matcher:
    return Matcher([load(one.store.path.read_bytes(), local_key(one.state))])


def has(one: Feed, algorithm: str, number: int) -> str:
    """The id or keyed digest of the entry that lists an invented file; empty for none."""
    found = listed(one)
    if algorithm != "pdq":
        return found.check_file({algorithm: digest(algorithm, number)}).entry
    rows = [row for pictures in found.perceptual() for row, _ in pictures.near(digest("pdq", number))]
    return found.file_verdict(found.lists[0].name, rows[0]).entry if rows else ""


def of_hex(algorithm: str, number: int) -> str:
    return digest(algorithm, number).hex()


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# -- NCMEC


def image(name: str, **digests: str) -> str:
    found = "".join(f"<{kind}>{value}</{kind}>" for kind, value in digests.items())
    return (
        f'<image><member id="42">An invented one</member><id>{name}</id><classification>A1</classification>'
        f"<fingerprints>{found}</fingerprints></image>"
    )


def answered(*entries: str, following: str = "") -> str:
    paging = f"<paging><next>{following}</next></paging>" if following else ""
    return (
        '<?xml version="1.0"?><queryResult xmlns="https://hashsharing.ncmec.org/hashsharing/v2">'
        f'<images count="{len(entries)}" maxTimestamp="2026-11-25T15:10:00Z">{"".join(entries)}</images>'
        f"{paging}</queryResult>"
    )


@pytest.fixture
def ncmec(server: Server, tmp_path: Path) -> Feed:
    (tmp_path / "password").write_text(SECRET + "\n")
    return feed(
        tmp_path, exchange="ncmec", url=f"{server.url}/npo/", user="member",
        password_file=str(tmp_path / "password"), max_shrink=1.0, max_grow=9.0,
    )  # fmt: skip


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is in another time zone."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_ncmec_is_asked_for_what_has_changed(
    server: Server, ncmec: Feed, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = image("a", md5=of_hex("md5", 1).upper(), sha1=of_hex("sha1", 1), pdna="AAAA")
    server.answer = lambda _: answered(first, image("b", md5=of_hex("md5", 2), pdq=of_hex("pdq", 2)))
    assert ncmec.refresh().state == "new"
    assert (has(ncmec, "md5", 1), has(ncmec, "sha1", 1), has(ncmec, "pdq", 2)) == ("42-a", "42-a", "42-b")
    assert listed(ncmec).check_file({"md5": digest("md5", 1)}).category == "csam"
    [asked] = server.asked
    assert (asked.path, asked.fields["authorization"]) == ("/npo/v2/entries", BASIC)
    assert asked.query["from"] == "1970-01-01T00:00:00Z"
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 600)
    gone = '<deletedImage><member id="42"/><id>a</id></deletedImage>'
    server.answer = lambda _: answered(gone, image("c", md5=of_hex("md5", 3)))
    assert ncmec.refresh().state == "new"
    assert seconds(server.asked[1].query["from"]) == seconds(asked.query["to"]) - exchange._OVERLAP
    assert (has(ncmec, "md5", 1), has(ncmec, "md5", 2), has(ncmec, "md5", 3)) == ("", "42-b", "42-c")
    monkeypatch.setattr("time.time", lambda: now + 1200)
    server.answer = lambda _: answered()
    assert ncmec.refresh().state == "unchanged"
    assert len(server.asked) == 3


def test_pages_of_ncmec_are_gone_through(
    server: Server, ncmec: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(asked: Asked) -> str:
        if asked.query.get("start") == "1":
            return answered(image("b", md5=of_hex("md5", 2)))
        return answered(
            image("a", md5=of_hex("md5", 1)), following="/v2/entries?start=1&amp;size=1&amp;max=2"
        )

    # A range that is short is not asked for in parts.
    monkeypatch.setattr("time.time", lambda: 30.0)
    server.answer = answer
    assert ncmec.refresh().state == "new"
    assert (has(ncmec, "md5", 1), has(ncmec, "md5", 2)) == ("42-a", "42-b")


def test_an_entry_that_has_changed_while_ncmecs_clock_was_behind_is_told(
    server: Server, ncmec: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server says what has changed since a time of its own clock, here five minutes behind."""
    changed = {time.time() - 3_600: image("a", md5=of_hex("md5", 1))}

    def answer(asked: Asked) -> str:
        since, until = seconds(asked.query["from"]), seconds(asked.query["to"])
        return answered(*(entry for at, entry in changed.items() if since < at <= until))

    server.answer = answer
    now = time.time()
    assert ncmec.refresh().state == "new"
    changed[now - 295] = image("b", md5=of_hex("md5", 2))
    monkeypatch.setattr("time.time", lambda: now + 60)
    assert ncmec.refresh().state == "new"
    assert (has(ncmec, "md5", 1), has(ncmec, "md5", 2)) == ("42-a", "42-b")
    monkeypatch.setattr("time.time", lambda: now + 61)
    assert ncmec.refresh().state == "unchanged"


def test_what_a_clock_that_was_wrong_has_had_passed_over_is_asked_for(
    server: Server, ncmec: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda _: answered(image("a", md5=of_hex("md5", 1)))
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 86_400 * 365)
    assert ncmec.refresh().state == "new"
    monkeypatch.setattr("time.time", lambda: now)
    server.answer = lambda _: answered(image("b", md5=of_hex("md5", 2)))
    assert ncmec.refresh().state == "new"
    assert server.asked[-1].query["from"] == "1970-01-01T00:00:00Z"
    assert (has(ncmec, "md5", 1), has(ncmec, "md5", 2)) == ("42-a", "42-b")


def test_ncmec_is_gone_on_with_at_the_page_where_it_was_cut_short(
    server: Server, ncmec: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = "/v2/entries?start=1&amp;size=1&amp;max=2"
    failing = True

    def answer(asked: Asked) -> str | int:
        if "start" not in asked.query:
            return answered(image("a", md5=of_hex("md5", 1)), following=following)
        return 503 if failing else answered(image("b", md5=of_hex("md5", 2)))

    # A range that is short is not asked for in parts.
    monkeypatch.setattr("time.time", lambda: 30.0)
    server.answer = answer
    assert ncmec.refresh().reason == "server"
    failing = False
    # At once there is no range yet that ends before the one that was cut short: that begins again.
    assert ncmec.refresh().state == "new"
    assert ["start" in asked.query for asked in server.asked] == [False, True, False, True]
    server.asked.clear()
    (ncmec.state / "feeds" / "phish.exchange").unlink()
    failing = True
    ncmec.refresh()
    failing = False
    monkeypatch.setattr("time.time", lambda: 90.0)
    server.asked.clear()
    ncmec.refresh()
    assert "start" in server.asked[0].query
    assert (has(ncmec, "md5", 1), has(ncmec, "md5", 2)) == ("42-a", "42-b")


# -- StopNCII


def record(kind: str, value: str, status: str = "Active") -> dict[str, Any]:
    said = {"signalType": kind, "hashValue": value, "hashStatus": status}
    return {"lastModtimestamp": 1, "caseNumbers": {}, **said}


def page(*records: dict[str, Any], until: int, following: str | None = None) -> str:
    return json.dumps(
        {
            "count": len(records), "nextPageToken": following, "nextSetTimestamp": until,
            "hasMoreRecords": following is not None, "hashRecords": records,
        }
    )  # fmt: skip


@pytest.fixture
def stopncii(server: Server, tmp_path: Path) -> Feed:
    (tmp_path / "keys").write_text("function-key,subscription-key\n")
    return feed(
        tmp_path, exchange="stopncii", url=server.url, token_file=str(tmp_path / "keys"), max_shrink=1.0,
        max_grow=9.0,
    )  # fmt: skip


def test_stopncii_and_what_is_withdrawn(server: Server, stopncii: Feed) -> None:
    server.answer = lambda _: page(
        record("ImagePDQ", of_hex("pdq", 1)), record("VideoMD5", of_hex("md5", 2)), record("Text", "words"),
        record("URL", "http://page.example/x"), until=77,
    )  # fmt: skip
    assert stopncii.refresh(category="mine").state == "new"
    [asked] = server.asked
    assert (asked.path, asked.query["startTimestamp"]) == ("/FetchHashes", "10")
    assert asked.fields["x-functions-key"] == "function-key"
    assert asked.fields["ocp-apim-subscription-key"] == "subscription-key"
    assert has(stopncii, "pdq", 1)
    assert listed(stopncii).check_file({"md5": digest("md5", 2)}).category == "mine"
    assert listed(stopncii).check("page.example", "/x").blocked
    server.answer = lambda _: page(record("ImagePDQ", of_hex("pdq", 1), "Withdrawn"), until=78)
    assert stopncii.refresh().state == "new"
    assert server.asked[1].query["startTimestamp"] == "77"
    assert not has(stopncii, "pdq", 1)
    assert listed(stopncii).check_file({"md5": digest("md5", 2)}).category == "ncii"


def test_a_record_of_stopncii_counts_whatever_its_members_say_of_it(server: Server, stopncii: Feed) -> None:
    said = [{"source": "one", "feedbackValue": "Undefined", "tags": ["Tag-One"]}]
    more = {"CSPFeedbacks": said, "caseNumbers": ["none"], "lastModtimestamp": None}
    first, second = (record("VideoMD5", of_hex("md5", n)) | more for n in (1, 2))
    other = record("ImagePhotoDNA", "AAAA") | more
    server.answer = lambda _: page(first, other, second, until=50)
    assert stopncii.refresh().state == "new"
    assert has(stopncii, "md5", 1)
    assert has(stopncii, "md5", 2)
    server.answer = lambda _: page(
        first | {"hashStatus": "Withdrawn"}, second | {"hashStatus": "Unheard"}, until=60
    )
    assert stopncii.refresh().state == "new"
    assert not has(stopncii, "md5", 1)
    assert has(stopncii, "md5", 2)


def test_whatever_ends_a_fetch_the_next_goes_on_there(server: Server, stopncii: Feed) -> None:
    def answer(asked: Asked) -> str | int:
        if "nextPageToken" in asked.query:
            return 403
        return page(record("VideoMD5", of_hex("md5", 1)), until=50, following="more")

    server.answer = answer
    outcome = stopncii.refresh()
    assert (outcome.state, outcome.reason) == ("failed", "forbidden")
    assert not stopncii.store.path.exists()
    server.answer = lambda _: page(record("VideoMD5", of_hex("md5", 2)), until=60)
    assert stopncii.refresh().state == "new"
    assert server.asked[-1].query["startTimestamp"] == "50"
    assert has(stopncii, "md5", 1)
    assert has(stopncii, "md5", 2)


def test_what_is_kept_is_sealed_and_another_account_does_not_go_on_from_it(
    server: Server, stopncii: Feed, tmp_path: Path
) -> None:
    server.answer = lambda _: page(record("VideoMD5", of_hex("md5", 1)), until=50)
    stopncii.refresh()
    kept = tmp_path / "state" / "feeds" / "phish.exchange"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert of_hex("md5", 1).encode() not in kept.read_bytes()
    assert digest("md5", 1) not in kept.read_bytes()
    for spoil in (lambda: kept.write_bytes(b"x" * 99), kept.unlink):
        spoil()
        assert stopncii.refresh().state == "unchanged"
        assert server.asked[-1].query["startTimestamp"] == "10"
    stopncii.refresh(url=f"{server.url}/other")
    assert server.asked[-1].query["startTimestamp"] == "10"


def test_what_is_too_old_to_go_on_from_is_asked_for_anew(
    server: Server, stopncii: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda _: page(record("VideoMD5", of_hex("md5", 1)), until=50)
    stopncii.refresh()
    monkeypatch.setattr(exchange, "_STALE", -60)
    server.answer = lambda _: page(record("VideoMD5", of_hex("md5", 2)), until=60)
    assert stopncii.refresh().state == "new"
    assert server.asked[-1].query["startTimestamp"] == "10"
    assert not has(stopncii, "md5", 1)


# -- Tech Against Terrorism


def test_tech_against_terrorism(server: Server, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET)
    one = feed(
        tmp_path, exchange="tat", url=f"{server.url}/x", user="member",
        password_file=str(tmp_path / "password"), max_shrink=1.0, max_grow=9.0,
    )  # fmt: skip
    deleted, digests = set[str](), [("MD5", of_hex("md5", 1)), ("PDQ", of_hex("pdq", 2))]

    def answer(asked: Asked) -> str:
        if asked.method == "POST":
            return json.dumps({"token": "a-token"})
        results = [
            {
                "hash_digest": value, "algorithm": algorithm, "ideology": "all", "file_type": "mp4",
                "deleted": value in deleted, "updated_on": 1.0, "created_on": "2026-01-01", "id": number,
            }
            for number, (algorithm, value) in enumerate(digests)
        ]  # fmt: skip
        return json.dumps(
            {"count": 2, "next": None, "previous": None, "checkpoint": "9,2", "results": results}
        )

    server.answer = answer
    assert one.refresh().state == "new"
    post, get = server.asked
    assert (post.path, post.body["username"], post.body["password"]) == (
        "/x/token-auth/tcap/",
        "member",
        SECRET,
    )
    assert (get.path, get.fields["authorization"], get.query["after"]) == (
        "/x/api/hash-list/v2/all", "Bearer a-token", "",
    )  # fmt: skip
    assert listed(one).check_file({"md5": digest("md5", 1)}).category == "terrorism"
    assert has(one, "pdq", 2)
    deleted.add(of_hex("md5", 1))
    assert one.refresh().state == "new"
    assert server.asked[-1].query["after"] == "9,2"
    assert not has(one, "md5", 1)


@pytest.mark.parametrize(
    ("following", "asked_for"),
    [
        ("{url}/api/hash-list/v2/all?after=&limit=2&offset=2&order=asc", {"limit": "2", "offset": "2"}),
        ("{url}/api/hash-list/v2/all?after=9%2C2&order=asc", {"after": "9,2"}),
        ("http://behind.example/api/hash-list/v2/all?cursor=a%3D%26b", {"cursor": "a=&b"}),
        ("limit=2&offset=2", {"limit": "2", "offset": "2"}),
    ],
)
def test_pages_of_tech_against_terrorism_are_gone_through(
    server: Server, tmp_path: Path, following: str, asked_for: dict[str, str]
) -> None:
    """The place on the next page is asked for whatever it is called, and each parameter once."""
    (tmp_path / "password").write_text(SECRET)
    one = feed(
        tmp_path, exchange="tat", url=f"{server.url}/x", user="member",
        password_file=str(tmp_path / "password"), max_shrink=1.0, max_grow=9.0,
    )  # fmt: skip
    result = {
        "algorithm": "SHA-256", "ideology": "of its own", "file_type": "mp4", "deleted": False,
        "updated_on": 1.0, "id": 1, "unheard": True,
    }  # fmt: skip

    def answer(asked: Asked) -> str:
        if asked.method == "POST":
            return json.dumps({"token": "a-token"})
        last = asked.query.items() >= asked_for.items()
        results = [result | {"hash_digest": of_hex("sha256", 2 if last else 1)}]
        said = {"next": None if last else following.format(url=f"{server.url}/x"), "checkpoint": "9,2"}
        return json.dumps({"count": 2, "previous": None, "results": results} | said)

    server.answer = answer
    assert one.refresh().state == "new"
    pages = [asked for asked in server.asked if asked.method == "GET"]
    assert [asked.path for asked in pages] == ["/x/api/hash-list/v2/all"] * 2
    assert pages[1].query == {"order": "asc", "after": ""} | asked_for
    assert has(one, "sha256", 1)
    assert has(one, "sha256", 2)


def test_an_exchange_that_never_ends_is_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_LONGEST", 0.0)
    (tmp_path / "password").write_text(SECRET)
    one = feed(
        tmp_path, exchange="tat", url=f"{server.url}/x", user="member",
        password_file=str(tmp_path / "password"),
    )  # fmt: skip
    result = {
        "hash_digest": of_hex("md5", 1), "algorithm": "MD5", "ideology": "all", "file_type": "mp4",
        "deleted": False, "updated_on": 1.0, "created_on": "2026-01-01", "id": 1,
    }  # fmt: skip
    following = f"{server.url}/x/api/hash-list/v2/all?after=9"
    said = {"count": 1, "next": following, "previous": None, "checkpoint": "9,2", "results": [result]}
    server.answer = lambda asked: json.dumps({"token": "a-token"} if asked.method == "POST" else said)
    outcome = one.refresh()
    assert (outcome.state, outcome.reason) == ("failed", "timeout")
    assert len(server.asked) == 2
    one.refresh()
    assert server.asked[-1].query["after"] == "9,2"


@each_row("url", ["https://other.test/page/2", "http://member.test/page/2", "https://member.test:1/"])
def test_no_other_host_gets_the_credentials(url: str) -> None:
    with pytest.raises(FetchError, match="another host"):
        exchange._asked(FeedOrigin("https://member.test/x", token="secret"), url)


# -- each way to go wrong


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("<html>log in</html>", "protocol"),
        ("not XML", "protocol"),
        ("", "protocol"),
        (answered("<image><member id='x'/></image>"), "protocol"),
        (401, "unauthorized"),
        (404, "status"),
        (500, "server"),
        (answered(), "empty"),
    ],
)
def test_what_is_no_answer(
    server: Server, ncmec: Feed, caplog: pytest.LogCaptureFixture, answer: str | int, reason: str
) -> None:
    server.answer = lambda _: answer
    with caplog.at_level(logging.DEBUG):
        outcome = ncmec.refresh()
    assert (outcome.state, outcome.reason) == ("failed", reason)
    for said in (outcome.text, caplog.text):
        assert "log in" not in said
        assert SECRET not in said
        assert BASIC not in said


def test_an_answer_that_quotes_what_is_listed_is_not_quoted(server: Server, stopncii: Feed) -> None:
    server.answer = lambda _: json.dumps({"hashRecords": of_hex("md5", 1)})
    outcome = stopncii.refresh()
    assert outcome.reason == "protocol"
    assert of_hex("md5", 1) not in outcome.text


def test_more_than_a_feed_may_have(server: Server, stopncii: Feed) -> None:
    server.answer = lambda asked: page(
        *(record("VideoMD5", of_hex("md5", n)) for n in range(100)), until=1, following="endless"
    )
    assert stopncii.refresh(max_size=2000).reason == "too-large"


def test_credentials_go_over_tls_alone(ncmec: Feed) -> None:
    for table in (
        {"url": "http://exchange.example/"},
        {"url": "http://exchange.example/", "exchange": "tat"},
    ):
        assert ncmec.refresh(**table).reason == "secret"


def test_keys_that_are_none(server: Server, stopncii: Feed, tmp_path: Path) -> None:
    for text in ("one-key", "", "a,b c", ","):
        (tmp_path / "keys").write_text(text)
        assert stopncii.refresh().reason == "secret"
    assert not server.asked


def test_without_the_extra_it_says_so(server: Server, ncmec: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "threatexchange.exchanges.clients.ncmec", None)
    outcome = ncmec.refresh()
    assert outcome.reason == "settings"
    assert "extra `files`" in outcome.text


def test_an_attempt_keeps_nothing(server: Server, stopncii: Feed, tmp_path: Path) -> None:
    from urlward.feeds.refresh import attempt

    server.answer = lambda _: page(record("VideoMD5", of_hex("md5", 1)), until=50)
    (tmp_path / "state" / "feeds").mkdir(parents=True)
    local_key(tmp_path / "state")
    assert attempt(stopncii.table, stopncii.config, stopncii.state).state == "new"
    assert not (tmp_path / "state" / "feeds" / "phish.exchange").exists()


@each_row(
    ("keys", "told"),
    [
        ({"path": "/x"}, "exchange and path"),
        ({"url": "https://a.example/", "poll": 5, "user": "u", "password_env": "P"}, "exchange and poll"),
        (
            {"url": "https://a.example/", "format": "csv", "user": "u", "password_env": "P"},
            "exchange and format",
        ),
        ({"url": "https://a.example/"}, "exchange is given without user"),
        ({"url": "https://a.example/", "exchange": "stopncii"}, "without token_file"),
        ({"url": "https://a.example/", "exchange": "other"}, "exchange"),
    ],
)
def test_what_does_not_go_together(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        FeedTable(**{"name": "x", "exchange": "ncmec"} | keys)
