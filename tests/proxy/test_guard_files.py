"""The guard and known files: what becomes of a response, what is said of it, and what is learned."""

import json
import logging
from typing import Any, Literal

import pytest

from proxy.driver import NOW, failed, make_context, make_matcher
from proxy.test_guard import for_host
from proxy.test_guard_policy import SCHOOL, of
from proxy.test_guard_policy import guard as with_policy
from rows import each_row
from urlward.config import PageTable
from urlward.engine.verdict import Verdict
from urlward.feeds.learn import Learner, Match
from urlward.proxy.block_page import BlockPage
from urlward.proxy.guard import Guard
from urlward.proxy.head import read_request_head
from urlward.proxy.names import Names, head_of
from urlward.records.event import Event
from urlward.records.worker import KnownFile, Recording

LISTED = Verdict("block", "file", "H-7", "csam", "hotline")
MONITORED = LISTED._replace(action="monitor")
FILE = KnownFile("sha256", "cut", "image/jpeg", 4_000)
URL = "plain.example/a/picture.jpg"


class Learned(Learner):
    """A learner that keeps what it is given."""

    def __init__(self) -> None:
        self.matches: list[Match] = []

    def learn(self, match: Match) -> None:
        self.matches.append(match)


def guard(**changes: Any) -> Guard:
    matcher = make_matcher("blocked.example")
    return Guard(lambda: matcher, BlockPage(PageTable()), clock=lambda: NOW, **changes)


def met(g: Guard, verdict: Verdict = LISTED, file: KnownFile = FILE) -> int | None:
    """Status of the response in its place; None where it goes on."""
    context, request = make_context(), for_host("plain.example", "/a/picture.jpg")
    names = g.answer(request, context)
    assert isinstance(names, Names)
    answer = g.known_file(verdict, file, names, context.client, head_of(request))
    return None if answer is None else answer.status


@pytest.mark.parametrize(
    ("verdict", "action", "monitor", "becomes"),
    [
        (LISTED, "cut", False, "cut"),
        (LISTED, "learn", False, "learn"),
        (LISTED, "alert", False, "alert"),
        (LISTED, "cut", True, "alert"),
        (LISTED, "learn", True, "alert"),
        (MONITORED, "cut", False, "alert"),
    ],
)
async def test_what_becomes_of_it(
    verdict: Verdict,
    action: Literal["cut", "learn", "alert"],
    monitor: bool,
    becomes: str,
    recording: Recording,
    told: list[Event],
) -> None:
    learner = Learned()
    g = guard(recording=recording, learner=learner, monitor=monitor)
    assert met(g, verdict, FILE._replace(action=action)) == (451 if becomes == "cut" else None)
    (event,) = told
    assert (event.kind, event.stage, event.list, event.entry) == ("file", "body", "hotline", "H-7")
    assert event.verdict == ("block" if becomes == "cut" else "monitor"), "what happened"
    assert (event.client, event.protocol) == ("192.0.2.1", "http")
    assert json.loads(event.detail)["action"] == becomes
    assert len(event.digest) == 32
    assert "plain.example" not in repr(event)
    learned = [Match(URL, "hotline", "H-7", "csam", event.reference, port=80)] * (becomes != "alert")
    assert learner.matches == learned


def test_the_page_has_the_reference_of_the_event_and_the_group(
    told: list[Event], recording: Recording
) -> None:
    g = with_policy(recording=recording)
    context, request = of(SCHOOL), for_host("plain.example", "/a/picture.jpg")
    names = g.answer(request, context)
    assert isinstance(names, Names)
    answer = g.known_file(LISTED, FILE, names, context.client, head_of(request))
    assert answer is not None
    assert told[0].reference.encode() in answer.body
    assert b"Example School" in answer.body
    assert told[0].group == "school"


@each_row(
    ("mode", "tls", "address", "port"),
    [
        ("transparent", False, "192.0.2.66", 80),
        ("transparent", True, "192.0.2.66", 0),
        ("regular", False, "192.0.2.66", 80),
        ("reverse:http://192.0.2.66", False, "", 80),
    ],
)
def test_what_vouches_for_the_host_is_learned_with_it(mode: str, tls: bool, address: str, port: int) -> None:
    learner = Learned()
    context = make_context(mode)
    context.client.tls = tls
    names = Names(("plain.example",), (443 if tls else 80,), "192.0.2.66", "/a")
    guard(learner=learner).known_file(LISTED, FILE, names, context.client)
    assert [(match.address, match.port) for match in learner.matches] == [(address, port)]


@each_row(
    ("request_line", "length", "learned"),
    [("GET", 0, True), ("POST", 0, False), ("POST", 5, False), ("GET", 5, False), ("TRACE", 0, False)],
)
@each_row("field", ["X-Forwarded-Host: plain.example", "X-Original-URL: /b"])
def test_what_servers_give_back_is_not_learned(
    request_line: str, length: int, learned: bool, field: str
) -> None:
    """A client that sends a known file to a service that answers by it, or has it answer with another page,
    would have that blocked for all."""
    learner = Learned()
    head = read_request_head(
        f"{request_line} /a HTTP/1.1\r\nHost: plain.example\r\nContent-Length: {length}\r\n"
        f"{field}\r\n\r\n".encode()
    )
    names = Names(("plain.example",), (80,), "192.0.2.66", "/a", forwarded=field.encode())
    answer = guard(learner=learner).known_file(LISTED, FILE, names, make_context().client, head)
    assert answer is not None, "it is cut all the same"
    assert bool(learner.matches) is (learned and "plain" in field)


@each_row(
    ("mode", "hosts", "learned"),
    [
        # Host field, absolute form or SNI, destination: of a CDN's address many hosts can be had.
        ("regular", ("plain.example", "other.example"), False),
        ("transparent", ("plain.example", "other.example", "192.0.2.66"), False),
        ("regular", ("plain.example", "Plain.Example."), True),
        ("regular", ("plain.example",), True),
        ("transparent", ("plain.example", "192.0.2.66"), True),
        ("transparent", ("192.0.2.66",), True),
        ("transparent", ("192.0.2.7", "192.0.2.66"), True),  # which leads nowhere else, and so is not learned
        ("transparent", ("plain.example", "plain.example", "192.0.2.66"), True),
        ("reverse:http://origin.example", ("plain.example", "origin.example"), True),
        ("reverse:http://origin.example", ("plain.example", "other.example", "origin.example"), False),
    ],
)
def test_names_that_do_not_agree_are_not_learned(mode: str, hosts: tuple[str, ...], learned: bool) -> None:
    """A client names a server of its own beside somebody's host that has the same address."""
    learner = Learned()
    names = Names(hosts, (80,), "192.0.2.66", "/a")
    answer = guard(learner=learner).known_file(LISTED, FILE, names, make_context(mode).client)
    assert answer is not None, "it is cut all the same"
    assert bool(learner.matches) is learned


@each_row(
    ("target", "learned"),
    [
        ("/mine/../theirs", False),
        ("/mine/%2e%2E/theirs", False),
        ("/mine/..%2ftheirs", False),
        ("/mine/%252e%252e%255ctheirs", False),
        ("/mine/..;/theirs", False),
        ("/mine/..", False),
        ("/a/..b/.c/d..", True),
        ("/a?to=/../b", True),
        ("/a%20b/c;d", True),
    ],
)
def test_what_is_learned_is_what_was_asked_for(target: str, learned: bool) -> None:
    """A host that keeps many people's pages may lead a path with dot segments to whose it begins with."""
    learner = Learned()
    names = Names(("plain.example",), (80,), "192.0.2.66", target)
    guard(learner=learner).known_file(LISTED, FILE, names, make_context().client)
    assert bool(learner.matches) is learned


def test_the_folder_of_a_stream_is_learned() -> None:
    learner = Learned()
    met(guard(learner=learner), LISTED, FILE._replace(folder=True))
    assert [match.folder for match in learner.matches] == [True]


def test_a_head_of_our_own_path_is_answered() -> None:
    head = read_request_head(b"GET /a HTTP/1.1\r\nHost: plain.example\r\n\r\n")
    names = Names(("plain.example",), (80,), "", "/a")
    for request in (head, None):
        answer = guard().known_file(LISTED, FILE, names, make_context().client, request)
        assert answer is not None
        assert (answer.status, b"Reference" in answer.body) == (451, True)


def test_it_is_one_line_without_the_url(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    met(guard())
    met(guard(), Verdict("monitor"), KnownFile("classifier", "alert", score=0.97))
    first, second = caplog.messages
    assert first.startswith(
        "2027-01-15T08:00:00.000Z file client=192.0.2.1:1234 list=hotline entry=H-7 category=csam reference="
    )
    assert first.endswith(" algorithm=sha256 action=cut")
    assert " list=- entry=- category=- " in second
    assert second.endswith(" algorithm=classifier action=alert")
    assert "plain.example" not in caplog.text


def test_a_fault_leaves_the_decision_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Learned):
        def learn(self, match: Match) -> None:
            raise RuntimeError(match.url)

    g = guard(learner=Failing())
    assert met(g) == 451
    assert met(g, LISTED, FILE._replace(action="learn")) is None
    assert failed(g) == 2
    assert "plain.example" not in caplog.text
