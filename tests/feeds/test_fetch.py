import dataclasses
import errno
import gzip
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from e2e.support import RawOrigin, answer_anything
from feeds.fetch_support import (
    LIST,
    PASSWORD,
    SECRETS,
    TOKEN,
    USER,
    Server,
    answering,
    body,
    head,
    know_no_names,
    memory_descriptors,
    refusal,
    set_proxies,
)
from rows import each_row
from urlward.feeds import fetch as fetching
from urlward.feeds.fetch import Answer, fetch
from urlward.feeds.source import FeedOrigin, Validators
from urlward.lists import memfd


class TestBody:
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_comes_as_it_is(self, feeds: Server, scheme: str) -> None:
        answer = fetch(feeds.origin("/list.txt", getattr(feeds, scheme)))
        assert body(answer) == LIST
        assert answer.validators.etag
        assert answer.validators.last_modified
        assert answer.fresh_for is None
        assert answer.url == feeds.url("/list.txt", getattr(feeds, scheme))

    def test_begins_at_its_beginning(self, feeds: Server) -> None:
        answer = fetch(feeds.origin("/list.txt"))
        assert answer.fd is not None
        assert os.lseek(answer.fd, 0, os.SEEK_CUR) == 0
        os.close(answer.fd)

    def test_encoded_on_the_way(self, feeds: Server) -> None:
        assert body(fetch(feeds.origin("/gzip/list.txt"))) == LIST
        assert feeds.seen("/gzip/list.txt")["encodings"] == "gzip, zstd"

    def test_compressed_file(self, feeds: Server) -> None:
        (feeds.folder / "www/feed.gz").write_bytes(gzip.compress(LIST))
        assert body(fetch(feeds.origin("/feed.gz"))) == LIST

    def test_compressed_file_that_is_said_to_be_encoded(self, feeds: Server) -> None:
        (feeds.folder / "www/labelled.gz").write_bytes(gzip.compress(LIST))
        assert body(fetch(feeds.origin("/labelled/labelled.gz"))) == LIST

    def test_empty(self, feeds: Server) -> None:
        (feeds.folder / "www/empty.txt").write_bytes(b"")
        assert body(fetch(feeds.origin("/empty.txt"))) == b""

    def test_chunked(self) -> None:
        chunks = b"5;x=y\r\na.tes\r\n3\r\nt\nb\r\n0\r\nTrailer: 1\r\n\r\n"
        with answering(head(Transfer_Encoding="chunked"), chunks) as url:
            assert body(fetch(FeedOrigin(url))) == b"a.test\nb"

    def test_until_the_connection_ends(self) -> None:
        with answering(head(), b"a.test\n") as url:
            assert body(fetch(FeedOrigin(url))) == b"a.test\n"

    def test_larger_than_its_bounds(self, feeds: Server) -> None:
        assert refusal(feeds.origin("/list.txt", max_bytes=len(LIST) - 1)).reason == "too-large"
        assert refusal(feeds.origin("/gzip/list.txt", max_bytes=len(LIST) - 1)).reason == "too-large"
        assert body(fetch(feeds.origin("/list.txt", max_bytes=len(LIST)))) == LIST

    def test_request_says_little(self, feeds: Server) -> None:
        body(fetch(feeds.origin("/list.txt"), headers={"X-More": "1"}))
        seen = feeds.seen("/list.txt")
        assert (seen["agent"], seen["more"], seen["authorization"]) == ("urlward", "1", "")
        assert seen["host"] == f"127.0.0.1:{feeds.https}"

    def test_environment_does_not_count(self, feeds: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        set_proxies(monkeypatch)
        assert body(fetch(feeds.origin("/list.txt"))) == LIST


class TestConditional:
    def test_unchanged(self, feeds: Server) -> None:
        first = fetch(feeds.origin("/fresh/list.txt"))
        body(first)
        again = fetch(feeds.origin("/fresh/list.txt"), first.validators)
        assert again == Answer("unchanged", None, 0, first.validators, 500.0, feeds.url("/fresh/list.txt"))
        seen = feeds.seen("/fresh/list.txt")
        assert (seen["status"], seen["etag"]) == ("304", first.validators.etag)
        assert seen["since"] == first.validators.last_modified

    def test_changed(self, feeds: Server) -> None:
        path = feeds.folder / "www/changing.txt"
        path.write_bytes(b"a.test\n")
        first = fetch(feeds.origin("/changing.txt"))
        assert body(first) == b"a.test\n"
        path.write_bytes(b"b.test\nc.test\n")
        assert body(fetch(feeds.origin("/changing.txt"), first.validators)) == b"b.test\nc.test\n"

    def test_fields_of_a_304_are_newer(self) -> None:
        date = "Wed, 25 Nov 2026 13:40:35 GMT"
        with answering(head("304 Not Modified", ETag='"2"')) as url:
            kept = fetch(FeedOrigin(url), Validators('"1"', date)).validators
        assert (kept.etag, kept.last_modified) == ('"2"', date)

    def test_unasked_for_304(self) -> None:
        with answering(head("304 Not Modified")) as url:
            assert refusal(FeedOrigin(url)).reason == "status"

    def test_validators_go_where_they_came_from_alone(self, feeds: Server) -> None:
        first = fetch(feeds.origin("/away"))
        body(first)
        assert fetch(feeds.origin("/away"), first.validators).kind == "unchanged"
        assert feeds.seen("/away")["etag"] == ""
        # The same file, yet another URL: what it would answer is not about what we have.
        body(fetch(feeds.origin("/login"), first.validators))
        assert feeds.seen("/login.html")["etag"] == ""

    def test_what_is_no_validator_is_not_sent(self, feeds: Server) -> None:
        body(fetch(feeds.origin("/list.txt"), Validators("no quotes\r\nX-More: 1", "yesterday")))
        seen = feeds.seen("/list.txt")
        assert (seen["etag"], seen["since"], seen["more"]) == ("", "", "")


class TestFreshness:
    def test_age_counts(self, feeds: Server) -> None:
        answer = fetch(feeds.origin("/fresh/list.txt"))
        body(answer)
        assert answer.fresh_for == 500.0

    def test_expires(self, feeds: Server) -> None:
        answer = fetch(feeds.origin("/expires/list.txt"))
        body(answer)
        assert answer.fresh_for == 600.0


class TestStatus:
    @each_row(
        ("status", "reason"),
        [
            (401, "unauthorized"),
            (403, "forbidden"),
            (429, "rate-limited"),
            (418, "status"),
            (204, "status"),
            (500, "server"),
            (503, "server"),
        ],
    )
    def test_is_the_reason(self, feeds: Server, status: int, reason: str) -> None:
        error = refusal(feeds.origin(f"/{status}"))
        assert (error.reason, error.status) == (reason, status)
        assert str(error).startswith(f"https://127.0.0.1:{feeds.https}: status {status}")

    @pytest.mark.parametrize("status", [404, 410])
    def test_absent(self, feeds: Server, status: int) -> None:
        answer = fetch(feeds.origin(f"/{status}"), Validators('"1"', ""))
        assert (answer.kind, answer.fd, answer.validators) == ("absent", None, Validators())

    def test_retry_after(self, feeds: Server) -> None:
        assert refusal(feeds.origin("/429")).retry_after == 120.0
        assert (refusal(feeds.origin("/503")).retry_after or 0) > 86400
        assert refusal(feeds.origin("/500")).retry_after is None


class TestCredentials:
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_basic(self, feeds: Server, scheme: str) -> None:
        origin = feeds.origin("/basic/list.txt", getattr(feeds, scheme), user=USER, password=PASSWORD)
        assert body(fetch(origin)) == LIST
        assert refusal(dataclasses.replace(origin, password="731337")).reason == "unauthorized"
        assert refusal(dataclasses.replace(origin, user=None, password=None)).reason == "unauthorized"

    def test_bearer(self, feeds: Server) -> None:
        assert body(fetch(feeds.origin("/bearer/list.txt", token=TOKEN))) == LIST
        assert refusal(feeds.origin("/bearer/list.txt", token="731337")).reason == "unauthorized"

    @pytest.mark.parametrize("one_file", [False, True])
    def test_client_certificate(self, feeds: Server, one_file: bool) -> None:
        files = (
            {"client_cert": "both.pem"}
            if one_file
            else {"client_cert": "client.pem", "client_key": "client.key"}
        )
        more = {name: str(feeds.folder / file) for name, file in files.items()}
        assert body(fetch(feeds.origin("/mutual/list.txt", **more))) == LIST
        assert refusal(feeds.origin("/mutual/list.txt")).reason == "forbidden"


class TestRedirect:
    def test_is_followed(self, feeds: Server) -> None:
        answer = fetch(feeds.origin("/five"))
        assert body(answer) == LIST
        assert answer.url == feeds.url("/list.txt", feeds.other)

    def test_once_too_often(self, feeds: Server) -> None:
        before = len(feeds.requests())
        assert refusal(feeds.origin("/loop")).reason == "redirect"
        assert len([r for r in feeds.requests()[before:] if r["uri"] == "/loop"]) == 6

    def test_to_a_login_page(self, feeds: Server) -> None:
        answer = fetch(feeds.origin("/login"))
        assert body(answer).startswith(b"<!DOCTYPE html>")
        assert answer.url.endswith("/login.html")

    def test_credentials_do_not_go_along(self, feeds: Server) -> None:
        certificate = str(feeds.folder / "both.pem")
        body(fetch(feeds.origin("/away", user=USER, password=PASSWORD, client_cert=certificate)))
        assert "subscriber-cert" in feeds.seen("/away")["client"]
        assert feeds.seen("/away")["authorization"].startswith("Basic ")
        seen = feeds.seen("/list.txt")
        assert (seen["port"], seen["authorization"], seen["client"]) == (str(feeds.other), "", "")

    def test_credentials_stay_within_the_origin(self, feeds: Server) -> None:
        refused = refusal(feeds.origin("/loop", token=TOKEN))
        assert refused.reason == "redirect"
        assert feeds.seen("/loop")["authorization"] == f"Bearer {TOKEN}"

    def test_credentials_do_not_come_back(self, feeds: Server) -> None:
        body(fetch(feeds.origin("/back", token=TOKEN)))
        seen = feeds.seen("/list.txt")
        assert (seen["uri"], seen["authorization"]) == ("/list.txt?home", "")

    @each_row("path", ["/plain", "/file", "/userinfo", "/nowhere"])
    def test_is_not_followed_there(self, feeds: Server, path: str) -> None:
        assert refusal(feeds.origin(path)).reason == "redirect"

    @each_row("location", ["http://[::1", "http:///x", "//", "http://a b/", "\xff:", "https://h:99999/"])
    def test_to_what_is_no_url(self, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
        know_no_names(monkeypatch)
        with answering(head("302 Found", Location=location, Content_Length=0)) as url:
            assert refusal(FeedOrigin(url)).reason in ("redirect", "dns")


FAR, NEAR = "127.0.0.2", "127.0.0.1"
"""Addresses that stand for one on the internet, and one of this machine."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names stand for: the first of each list from then on, the last one for good."""
    found: dict[str, list[str]] = {}

    def resolve(host: str, port: int, _: object) -> list[fetching.Address]:
        addresses = found.get(host, [host])
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return [(socket.AF_INET, (address, port))]

    real = fetching.scope
    monkeypatch.setattr(fetching, "resolve", resolve)
    monkeypatch.setattr(
        fetching,
        "scope",
        lambda address, nat64: fetching.Scope.GLOBAL if address == FAR else real(address, nat64),
    )
    return found


class TestNearer:
    """Redirects to where only this machine, or this network, gets."""

    @contextmanager
    def leading(self, there: str) -> Iterator[tuple[str, RawOrigin]]:
        """A server far away that redirects to one that is near."""
        with RawOrigin(answer_anything, host=NEAR) as near:
            location = f"http://{there}:{near.port}/secret"
            with answering(head("302 Found", Location=location, Content_Length=0), host=FAR) as url:
                yield url, near

    @pytest.mark.parametrize("there", [NEAR, "inside.test", "2130706433"])
    def test_is_not_followed(self, there: str, names: dict[str, list[str]]) -> None:
        names |= {"inside.test": [NEAR], "2130706433": [NEAR]}
        with self.leading(there) as (url, near):
            error = refusal(FeedOrigin(url))
            assert error.reason == "redirect"
            assert str(error) == (
                f"http://{there}:{near.port}: "
                "a redirect into a private network or to this machine is not followed"
            )
            assert near.connections == 0

    def test_under_a_name_that_has_moved(self, names: dict[str, list[str]]) -> None:
        """The first address passes for a look at the name; the second is connected to."""
        names["feed.test"] = [FAR, NEAR]
        with self.leading("feed.test") as (url, near):
            assert refusal(FeedOrigin(url.replace(FAR, "feed.test"))).reason == "redirect"
            assert near.connections == 0

    def test_from_as_near(self, names: dict[str, list[str]]) -> None:
        with RawOrigin(answer_anything) as near:
            location = f"http://{NEAR}:{near.port}/"
            with answering(head("302 Found", Location=location, Content_Length=0)) as url:
                assert body(fetch(FeedOrigin(url))) == b"origin\n"

    def test_where_the_operator_says_so(self, names: dict[str, list[str]]) -> None:
        with self.leading(NEAR) as (url, _):
            assert body(fetch(FeedOrigin(url, private_redirects=True))) == b"origin\n"

    @each_row(
        "there", ["127.0.0.1", "127.1", "localhost", "x.localhost.", "[::1]", "169.254.169.254", "0x7f.1"]
    )
    def test_by_way_of_a_proxy(self, there: str) -> None:
        """Which looks names up by itself; what the URL says is all that there is to go by."""
        answer = head("302 Found", Location=f"http://{there}/", Content_Length=0)
        with answering(answer) as proxy:
            error = refusal(FeedOrigin("http://feed.test/", proxy=proxy.rpartition("/")[0]))
            assert error.reason == "redirect"
            assert "private network" in str(error)


class TestMachine:
    def test_has_no_memory_left(self, feeds: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        def full() -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(memfd, "new", full)
        error = refusal(feeds.origin("/list.txt"))
        assert (error.reason, str(error)) == ("system", "this machine: No space left on device")


class TestSecrets:
    def test_not_in_what_is_logged(self, feeds: Server, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        more = {"user": USER, "password": PASSWORD}
        body(fetch(feeds.origin("/basic/list.txt?key=731337", **more)))
        refusal(feeds.origin("/basic/../401?key=731337", **more))
        # A line that is no field, which urllib3 warns of with the whole URL.
        with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n731337\r\n\r\n", b"ok") as url:
            with_answer = fetch(FeedOrigin(url, **more))
            body(with_answer)
        for secret in SECRETS:
            assert secret not in caplog.text
            assert secret not in repr(with_answer)
            assert secret not in repr(feeds.origin("/?key=731337", proxy="http://u:731337@127.0.0.1", **more))

    def test_not_in_the_words_of_a_server(self) -> None:
        for status in ("401 731337", "500 731337", "302 731337", "200 731337\r\nContent-Length: 731337,1"):
            with answering(head(status)) as url:
                refusal(FeedOrigin(url))

    def test_memory_is_given_back(self, feeds: Server) -> None:
        before = memory_descriptors()
        body(fetch(feeds.origin("/list.txt")))
        refusal(feeds.origin("/list.txt", max_bytes=10))
        assert memory_descriptors() <= before
