import logging
import re
from typing import Any

import pytest
from mitmproxy.http import Request

from proxy.driver import NOW, make_context, make_matcher
from proxy.test_names import request, to
from urlward.engine.errors import UrlError
from urlward.proxy.block_page import BlockPage, BlockPageSettings, BlockResponse
from urlward.proxy.guard import Guard, timestamp
from urlward.proxy.names import NO_NAMES, Names

LINES = (
    "blocked.example id=E-1 category=phishing",
    "http://paged.example/listed id=E-2",
    "192.0.2.66 id=E-3",
    "@@http://blocked.example/about id=E-4",
    "http://old.example/ expires=2020-01-01 id=E-5",
)


def guard(**changes: Any) -> Guard:
    matcher = make_matcher(*LINES)
    return Guard(lambda: matcher, BlockPage(BlockPageSettings()), clock=lambda: NOW, **changes)


def broken(**changes: Any) -> Guard:
    def fail() -> Any:
        raise RuntimeError("http://blocked.example/secret")

    return Guard(fail, BlockPage(BlockPageSettings()), clock=lambda: NOW, **changes)


def answered(answer: BlockResponse | Names) -> BlockResponse:
    assert isinstance(answer, BlockResponse)
    return answer


def for_host(host: str, path: str = "/", **changes: Any) -> Request:
    return request((b"Host", host.encode()), path=path.encode(), **changes)


@pytest.mark.parametrize(
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


def test_every_request_is_counted_once() -> None:
    g = guard()
    for host in ("plain.example", "blocked.example", "a b"):
        g.answer(for_host(host), make_context())
    assert (g.counts.requests, g.counts.blocked, g.counts.refused, g.counts.errors) == (3, 1, 1, 0)


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


@pytest.mark.parametrize(
    ("sni", "address", "listed", "none"),
    [
        ("plain.example", "192.0.2.7", "relay", "relay"),
        ("paged.example", "192.0.2.7", "intercept", "relay"),
        ("blocked.example", "192.0.2.7", "intercept", "refuse"),
        (None, "192.0.2.7", "relay", "relay"),
        (None, "192.0.2.66", "intercept", "refuse"),
        (None, "paged.example", "intercept", "relay"),
        ("plain.example", None, "relay", "relay"),
        ("a b", "192.0.2.7", "refuse", "refuse"),
    ],
)
def test_tls(sni: str | None, address: str | None, listed: str, none: str) -> None:
    context = to(address, 443)
    assert guard().tls(context, sni)[0] == listed
    assert guard(intercept="none").tls(context, sni)[0] == none
    assert guard(intercept="all").tls(context, sni)[0] == "intercept"


def test_addresses() -> None:
    g, context = guard(), to("192.0.2.7")
    assert g.lists_any_address()
    assert g.address_allowed(context, "192.0.2.7")
    assert not g.address_allowed(context, "192.0.2.66")
    assert g.lists_address("192.0.2.66", 80, context.client)
    assert not g.lists_address("192.0.2.7", 80, context.client)
    assert g.answer_connected(for_host("plain.example"), context.client, "192.0.2.7", 80) is None
    answer = g.answer_connected(for_host("plain.example"), context.client, "192.0.2.66", 80)
    assert answered(answer).status == 451


@pytest.mark.parametrize("on_error", ["block", "pass"])
def test_a_fault_is_one_line_with_a_count(on_error: str, caplog: pytest.LogCaptureFixture) -> None:
    g, context = broken(on_error=on_error), to("192.0.2.7")
    passes = on_error == "pass"
    answer = g.answer(for_host("plain.example"), context)
    assert (answer == NO_NAMES) if passes else (answered(answer).status == 503)
    assert g.tls(context, "plain.example")[0] == ("relay" if passes else "refuse")
    assert g.address_allowed(context, "192.0.2.7") is passes
    assert g.lists_address("192.0.2.7", 80, context.client) is not passes
    connected = g.answer_connected(for_host("plain.example"), context.client, "192.0.2.7", 80)
    assert (connected is None) is passes
    assert g.lists_any_address()
    outcome = "passed" if passes else "blocked"
    ends = [f"count={n} request={outcome}" for n in range(1, 6)]
    assert [m[-len(e) :] for m, e in zip(caplog.messages, ends, strict=True)] == ends
    assert all(" error client=192.0.2.1:1234 error=RuntimeError at=" in m for m in caplog.messages)
    assert "secret" not in caplog.text
    assert "blocked.example" not in caplog.text


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


def test_timestamp() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_800_000_000.25) == "2027-01-15T08:00:00.250Z"
