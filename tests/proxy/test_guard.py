import logging
import re
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.http import Request

from proxy.driver import NOW, failed, make_context, make_matcher, refused
from proxy.test_names import request, to
from rows import each_row
from urlward.config import PageTable
from urlward.engine.errors import UrlError
from urlward.proxy.block_page import BlockPage, BlockResponse
from urlward.proxy.guard import Guard
from urlward.proxy.head import read_request_head
from urlward.proxy.names import NO_NAMES, Names, Place, head_of

LINES = (
    "blocked.example id=E-1 category=phishing",
    "http://paged.example/listed id=E-2",
    "192.0.2.66 id=E-3",
    "@@http://blocked.example/about id=E-4",
    "http://old.example/ expires=2020-01-01 id=E-5",
    "http://ported.example/ port=8443",
    "http://mixed.example/a expires=2020-01-01",
    "http://mixed.example/b port=443 expires=2030-01-01",
    "whole.example id=W-1",
)


def guard(**changes: Any) -> Guard:
    matcher = make_matcher(*LINES)
    return Guard(lambda: matcher, BlockPage(PageTable()), clock=lambda: NOW, **changes)


def broken(**changes: Any) -> Guard:
    def fail() -> Any:
        raise RuntimeError("http://blocked.example/secret")

    return Guard(fail, BlockPage(PageTable()), clock=lambda: NOW, **changes)


def answered(answer: BlockResponse | Names) -> BlockResponse:
    assert isinstance(answer, BlockResponse)
    return answer


def for_host(host: str, path: str = "/", **changes: Any) -> Request:
    return request((b"Host", host.encode()), path=path.encode(), **changes)


PLAIN = head_of(for_host("plain.example"))


@each_row(
    ("host", "path", "status"),
    [
        ("plain.example", "/", None),
        ("blocked.example", "/", 451),
        ("blocked.example", "/about", None),
        ("paged.example", "/listed", 451),
        ("paged.example", "/other", None),
        ("old.example", "/", None),
        ("not a host", "/", 400),
    ],
)
def test_answer(host: str, path: str, status: int | None) -> None:
    answer = guard().answer(for_host(host, path), make_context())
    assert (answer.status if isinstance(answer, BlockResponse) else None) == status


@each_row("reader", ["flow", "own"])
@each_row(
    ("host", "path", "fields", "status"),
    [
        ("paged.example", "/", [("X-Original-URL", "/listed")], 451),
        ("paged.example", "/", [("X-Rewrite-URL", "http://plain.example/listed")], 451),
        ("paged.example", "/", [("x_rewrite_url", "listed?x")], 451),
        ("paged.example", "/", [("X.Original!URL", "/listed")], 451),
        ("plain.example", "/", [("X-Rewrite-Url", "/listed")], None),
        ("plain.example", "/", [("X-Forwarded-Host", "blocked.example:80")], 451),
        ("plain.example", "/", [("X-Forwarded-Host", "a b, blocked.example")], 451),
        ("plain.example", "/", [("X-Forwarded-Host", "a blocked.example")], 451),
        ("plain.example", "/", [("X.Forwarded.Host", "blocked.example\tb")], 451),
        (
            "plain.example",
            "/",
            [("Forwarded", 'for=192.0.2.1, for=_x;Host="blocked.example:80";proto=http')],
            451,
        ),
        ("plain.example", "/", [("Forwarded", "for=blocked.example;by=unknown")], None),
        ("plain.example", "/listed", [("X-Forwarded-Host", "paged.example")], 451),
        ("plain.example", "/", [("X-Forwarded-Host", "paged.example"), ("X-Original-URL", "/listed")], 451),
        ("plain.example", "/", [("X-Forwarded-Host", "plain.example, plain.example:80")], None),
        ("blocked.example", "/about", [("X-Original-URL", "/about")], None),
        ("blocked.example", "/about", [("X-Original-URL", "/")], 451),
        ("paged.example", "/", [("X-Original-URL", "/a"), ("X-Rewrite-URL", "/b")], 400),
        ("plain.example", "/", [("X-Forwarded-Host", "a,b,c,d,e,f,g,h,i")], 400),
    ],
)
def test_what_fields_tell_of_the_url_is_judged_as_well(
    host: str, path: str, fields: list[tuple[str, str]], status: int | None, reader: str
) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in fields]
    if reader == "flow":
        answer = guard().answer(request((b"Host", host.encode()), *pairs, path=path.encode()), make_context())
    else:
        lines = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
        head = read_request_head(
            b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (path.encode(), host.encode(), lines)
        )
        answer = guard().answer_head(head, Place(make_context()), make_context().client)
    assert (answer.status if isinstance(answer, BlockResponse) else None) == status
    if isinstance(answer, Names):
        assert (answer.hosts, answer.target) == ((host,), path), "it goes on under its own names"


def test_fields_that_are_judged_again_take_no_more_room_than_they_came_in() -> None:
    lines = b"\r\n".join(b"Forwarded: %d" % n for n in range(900))
    head = read_request_head(b"GET / HTTP/1.1\r\nHost: plain.example\r\n%b\r\n\r\n" % lines)
    names = guard().answer_head(head, Place(make_context()), make_context().client)
    assert isinstance(names, Names)
    assert isinstance(names.forwarded, bytes), "a thousand parts take ten times that"
    assert len(names.forwarded) < len(lines)


def test_what_cannot_be_read_is_counted_once() -> None:
    g = guard()
    for host in ("plain.example", "blocked.example", "a b"):
        g.answer(for_host(host), make_context())
    assert (refused(g), failed(g)) == (1, 0)


def test_a_block_is_one_line_without_the_url(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = guard().answer(for_host("blocked.example", "/some/path"), make_context())
    line = (
        r"2027-01-15T08:00:00\.000Z block client=192\.0\.2\.1:1234 list=test entry=E-1 category=phishing "
        r"reference=([0-9A-Z-]+)"
    )
    (message,) = [record.message for record in caplog.records if record.name == "urlward"]
    match = re.fullmatch(line, message)
    assert match is not None, message
    assert match[1].encode() in answered(answer).body


def test_the_destination_address_counts() -> None:
    answer = guard().answer(for_host("plain.example"), to("192.0.2.66"))
    assert answered(answer).status == 451


@each_row(
    ("sni", "address", "listed", "none"),
    [
        ("plain.example", "192.0.2.7", "relay", "relay"),
        ("paged.example", "192.0.2.7", "intercept", "relay"),
        ("blocked.example", "192.0.2.7", "intercept", "refuse"),
        (None, "192.0.2.7", "relay", "relay"),
        (None, "192.0.2.66", "intercept", "refuse"),
        (None, "paged.example", "intercept", "relay"),
        ("plain.example", None, "relay", "relay"),
        ("a b", "192.0.2.7", "relay", "relay"),
        ("blocked.example:443", "192.0.2.7", "intercept", "refuse"),
    ],
)
def test_tls(sni: str | None, address: str | None, listed: str, none: str) -> None:
    context, name = to(address, 443), sni.encode() if sni else None
    assert guard().tls(context, name)[0] == listed
    assert guard(intercept="none").tls(context, name)[0] == none
    assert guard(intercept="all").tls(context, name)[0] == "intercept"


@each_row(
    ("sni", "port", "mode", "what"),
    [
        (b"old.example", 443, "transparent", "relay"),
        (b"ported.example", 443, "transparent", "relay"),
        (b"ported.example", 8443, "transparent", "intercept"),
        # Which port its client means is not known before its request.
        (b"ported.example", 443, "reverse:https://192.0.2.7", "intercept"),
        (b"mixed.example", 443, "transparent", "intercept"),
        (b"mixed.example", 8443, "transparent", "relay"),
    ],
)
def test_a_host_with_no_entry_in_force_for_its_port_is_not_decrypted(
    sni: bytes, port: int, mode: str, what: str
) -> None:
    decision, names = guard().tls(to("192.0.2.7", port, mode), sni)
    assert decision == what
    reviewed = guard().review(names, to("192.0.2.7", port, mode).client)
    assert reviewed == ("cut" if what == "intercept" else "passes")


def test_addresses() -> None:
    g, context = guard(), to("192.0.2.7")
    assert g.lists_any_address()
    assert g.address_allowed(context, NO_NAMES, "192.0.2.7")
    assert not g.address_allowed(context, NO_NAMES, "192.0.2.66")
    assert g.lists_address("192.0.2.66", 80, context.client)
    assert not g.lists_address("192.0.2.7", 80, context.client)
    assert g.answer_connected(PLAIN, NO_NAMES, context.client, "192.0.2.7", 80) is None
    answer = g.answer_connected(
        head_of(for_host("plain.example")), NO_NAMES, context.client, "192.0.2.66", 80
    )
    assert answered(answer).status == 451


@pytest.mark.parametrize(("field", "status"), [(b"X-Original-URL", 451), (b"X-Other-URL", None)])
def test_a_page_on_the_address_that_a_name_leads_to_is_asked_for_by_a_field(
    field: bytes, status: int | None
) -> None:
    matcher, context = make_matcher("http://192.0.2.7/page"), make_context()
    g = Guard(lambda: matcher, BlockPage(PageTable()), clock=lambda: NOW)
    asked = request((b"Host", b"plain.example"), (field, b"/page"))
    names = g.answer(asked, context)
    assert isinstance(names, Names)
    answer = g.answer_connected(head_of(asked), names, context.client, "192.0.2.7", 80)
    assert (answer and answer.status) == status


@pytest.mark.parametrize("on_error", ["block", "pass"])
def test_what_cannot_be_judged_once_its_address_is_known_is_no_fault(
    on_error: str,
) -> None:
    matcher, context = make_matcher("http://192.0.2.7/page"), make_context()
    g = Guard(lambda: matcher, BlockPage(PageTable()), clock=lambda: NOW, on_error=on_error)
    asked = for_host("plain.example", "/" + "%x" * 5000)
    names = g.answer(asked, context)
    assert isinstance(names, Names)
    answer = g.answer_connected(head_of(asked), names, context.client, "192.0.2.7", 80)
    assert answered(answer).status == 400
    assert (refused(g), failed(g)) == (1, 0)


@pytest.mark.parametrize("on_error", ["block", "pass"])
def test_a_fault_is_one_line_with_a_count(on_error: str, caplog: pytest.LogCaptureFixture) -> None:
    g, context = broken(on_error=on_error), to("192.0.2.7")
    passes = on_error == "pass"
    answer = g.answer(for_host("plain.example"), context)
    assert (answer == NO_NAMES) if passes else (answered(answer).status == 503)
    assert g.tls(context, b"plain.example")[0] == ("relay" if passes else "refuse")
    assert g.address_allowed(context, NO_NAMES, "192.0.2.7") is passes
    assert g.lists_address("192.0.2.7", 80, context.client) is not passes
    connected = g.answer_connected(
        head_of(for_host("plain.example")), NO_NAMES, context.client, "192.0.2.7", 80
    )
    assert (connected is None) is passes
    assert g.lists_any_address()
    outcome = "passed" if passes else "blocked"
    ends = [f"count={n} request={outcome}" for n in range(1, 6)]
    assert [m[-len(e) :] for m, e in zip(caplog.messages, ends, strict=True)] == ends
    assert all(" error client=192.0.2.1:1234 error=RuntimeError at=" in m for m in caplog.messages)
    assert "secret" not in caplog.text
    assert "blocked.example" not in caplog.text


@pytest.mark.parametrize("on_error", ["block", "pass"])
def test_a_request_of_mitmproxys_that_cannot_be_looked_at_is_a_fault(on_error: str) -> None:
    request = for_host("plain.example")
    request.data.timestamp_start = None  # type: ignore[assignment]
    answer = guard(on_error=on_error).answer(request, make_context())
    assert answer is NO_NAMES if on_error == "pass" else answered(answer).status == 503


@pytest.mark.parametrize("on_error", ["block", "pass"])
def test_a_block_whose_page_fails_is_a_block(
    on_error: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def fail(*_: object, **__: object) -> None:
        raise UrlError("even one of ours")

    monkeypatch.setattr(BlockPage, "render", fail)
    answer = guard(on_error=on_error).answer(for_host("blocked.example"), make_context())
    assert answered(answer).status == 451
    reference = re.search(rb"[0-9A-Z]{4}-[0-9A-Z-]+", answered(answer).body)
    assert reference is not None
    assert f"reference={reference[0].decode()}" in caplog.text


def test_a_broken_log_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(logging.getLogger("urlward"), "log", fail)
    answer = guard(on_error="pass").answer(for_host("blocked.example"), make_context())
    assert answered(answer).status == 451
    answer = broken().answer(for_host("plain.example"), make_context())
    assert answered(answer).status == 503


def test_an_answer_to_head_has_no_body() -> None:
    for g, host in ((guard(), "blocked.example"), (guard(), "a b"), (broken(), "plain.example")):
        answer = g.answer(for_host(host, method=b"HEAD"), make_context())
        assert answered(answer).body == b""
        assert int(dict(answered(answer).headers)[b"Content-Length"]) > 0


# -- a network that is only monitored


def words(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What has been said, and of which entry."""
    return [" ".join(re.sub(r"^\S+ (\S+) .* entry=(\S+) .*$", r"\1 \2", m).split()) for m in caplog.messages]


@each_row(
    ("host", "path", "address", "entry"),
    [
        ("plain.example", "/", None, ""),
        ("blocked.example", "/", None, "E-1"),
        ("blocked.example", "/about", None, ""),
        ("paged.example", "/listed", None, "E-2"),
        ("plain.example", "/", "192.0.2.66", "E-3"),
    ],
)
def test_monitored_requests_pass(
    host: str, path: str, address: str | None, entry: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    g, context = guard(monitor=True), to(address)
    head = read_request_head(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    found = [
        g.answer(for_host(host, path), context if address else make_context()),
        g.answer_head(head, Place(context), context.client),
    ]
    for names in found:
        assert isinstance(names, Names)
        assert (names.hosts[0], names.target, names.told) == (host, path, bool(entry))
    assert words(caplog) == [f"would-block {entry}"] * 2 * bool(entry)
    assert not [secret for secret in (host, path, "192.0.2.66") if secret != "/" and secret in caplog.text]


def test_what_cannot_be_read_or_judged_is_refused_while_monitoring() -> None:
    g = guard(monitor=True)
    assert answered(g.answer(for_host("a b"), make_context())).status == 400
    assert g.tls(to("192.0.2.7", 443), b"a b" * 1000)[0] == "refuse"
    assert g.relayed(Names(("a b" * 1000,), (), "", ""), make_context().client) is None
    assert answered(broken(monitor=True).answer(for_host("plain.example"), make_context())).status == 503


@each_row("changes", [{}, {"intercept": "none"}, {"tls_block": "alert"}, {"intercept": "all"}])
@each_row(
    ("sni", "address", "what", "entry"),
    [
        ("plain.example", "192.0.2.7", "relay", ""),
        ("paged.example", "192.0.2.7", "intercept", ""),
        # For the page alone it would be decrypted otherwise.
        ("other.example", "192.0.2.66", "relay", "E-3"),
        ("whole.example", "192.0.2.7", "relay", "W-1"),
        # There are pages to be seen, unless the connection would have been refused.
        ("blocked.example", "192.0.2.7", "intercept", "E-1"),
    ],
)
def test_monitored_tls(
    sni: str, address: str, what: str, entry: str, changes: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    g, context = guard(monitor=True, **changes), to(address, 443)
    match changes:
        case {"intercept": "none"}:
            what = "relay"
        case {"intercept": "all"}:
            what = "intercept"
        case {"tls_block": "alert"} if entry:
            what = "relay"
    decision, names = g.tls(context, sni.encode() if sni else None)
    assert decision == what
    # Inside, each request is told for itself.
    entry = entry if what == "relay" else ""
    assert words(caplog) == [f"would-block {entry}"] * bool(entry)
    assert names.told is bool(entry)


def test_addresses_that_names_lead_to_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    g, context = guard(monitor=True), to("plain.example", 443)
    client = context.client
    assert not g.lists_address("192.0.2.66", 80, client)
    assert caplog.messages == []
    request, names = for_host("plain.example"), Names(("plain.example",), (80,), "", "/")
    for told in (False, True):
        names = names._replace(told=told)
        assert g.address_allowed(context, names, "192.0.2.66")
        assert g.answer_connected(head_of(request), names, client, "192.0.2.66", 80) is None
        assert words(caplog) == ["would-block E-3"] * 2


def test_what_is_neither_http_nor_tls_is_told_and_relayed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    listed, other = (Names((host,), (22,), "", "") for host in ("blocked.example", "plain.example"))
    client = make_context().client
    assert guard().relayed(other, client) is other
    assert guard().relayed(listed, client) is None
    assert guard(monitor=True).relayed(listed, client) == listed._replace(told=True)
    assert words(caplog) == ["block E-1", "would-block E-1"]


def test_a_tunnel_that_is_told_is_not_told_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    g, context = guard(monitor=True), to("whole.example", 443)
    context.layers.append(SimpleNamespace(told=True))  # type: ignore[arg-type]
    decision, names = g.tls(context, b"whole.example")
    assert (decision, names.told) == ("relay", True)
    head = read_request_head(b"GET / HTTP/1.1\r\nHost: whole.example\r\n\r\n")
    g.answer_head(head, Place(context), context.client)
    assert caplog.messages == []


def test_review(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client = make_context().client
    listed, other = (Names((host,), (80,), "", "/") for host in ("blocked.example", "plain.example"))
    for g, outcome in ((guard(), "cut"), (guard(monitor=True), "told")):
        assert g.review(other, client) == "passes"
        assert g.review(listed, client) == outcome
        # Where monitoring has just ended, what has been told is cut all the same.
        assert g.review(listed, client, told=True) == outcome
        assert g.review(listed._replace(told=True), client) == outcome
    assert words(caplog) == ["cut E-1"] * 3 + ["would-cut E-1"]


def test_what_cannot_be_judged_is_cut_where_its_host_comes_to_be_listed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, unjudged = make_context().client, "/" + "%" * 300
    names = Names(("paged.example",), (80,), "", unjudged)
    assert guard(on_error="pass").review(names, client) == "cut"
    assert guard(monitor=True).review(names, client) == "passes"
    assert caplog.messages == []


# -- connections that arrive where none is relayed unread


@each_row(
    ("changes", "plain", "blocked"),
    [
        ({}, "intercept", "intercept"),
        ({"tls_block": "alert"}, "intercept", "refuse"),
        ({"intercept": "none"}, "relay", "refuse"),
        ({"intercept": "all"}, "intercept", "intercept"),
        ({"monitor": True}, "intercept", "intercept"),
        ({"monitor": True, "intercept": "none"}, "relay", "relay"),
    ],
)
def test_whatever_the_sni(changes: dict[str, Any], plain: str, blocked: str) -> None:
    strict, usual = guard(intercept_port=8090, **changes), guard(**changes)
    there, elsewhere, nowhere = (
        to("192.0.2.7", 443, mode) for mode in ("transparent@8090", "transparent@8080", "transparent")
    )
    for sni, what in ((b"plain.example", plain), (None, plain), (b"whole.example", blocked)):
        assert strict.tls(there, sni)[0] == what
        for context in (elsewhere, nowhere):
            assert strict.tls(context, sni)[0] == usual.tls(context, sni)[0]
        assert usual.tls(nowhere, sni)[0] == usual.tls(there, sni)[0]
