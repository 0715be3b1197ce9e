"""Who draws block pages learns nothing of which entry it was: all of a category are answered alike."""

from dataclasses import fields
from typing import Any

import pytest

from proxy.driver import NOW, make_matcher
from proxy.test_guard import answered
from proxy.test_names import to
from urlward.config import ObjectionsTable, PageTable
from urlward.proxy.block_page import BlockNotice, BlockPage, BlockResponse
from urlward.proxy.guard import Guard
from urlward.proxy.head import read_request_head
from urlward.proxy.names import Place

LINES = (
    "blocked.example id=E-1 category=phishing",
    "http://paged.example/listed id=E-a-much-longer-name category=phishing",
    "http://paged.example/dir/* id=E-3 category=phishing",
    "http://paged.example/view?topic=31337 id=E-4 category=phishing",
    "*/gallery/do-not-visit/* id=E-5 category=phishing",
    "192.0.2.66 id=E-6 category=phishing",
    "198.51.100.0/28 id=E-7 category=phishing",
    "http://panel.example/login port=8443 id=E-8 category=phishing",
)
REQUESTS = (
    ("blocked.example", "/"),
    ("a.sub.domain.blocked.example", "/a/long/path?and=query"),
    ("paged.example", "/listed"),
    ("paged.example", "/dir/below"),
    ("paged.example", "/view?topic=31337"),
    ("other.example", "/gallery/do-not-visit/1"),
    ("192.0.2.66", "/"),
    ("198.51.100.7", "/"),
    ("panel.example:8443", "/login"),
)
FORMS = ("text/html", "application/problem+json", "application/json", "text/plain", "")
REFERENCE = "0000-0000-0000"


class Watched(BlockPage):
    """Keeps what it is told, and says how often it rendered."""

    def __init__(self) -> None:
        self.notices: list[BlockNotice] = []
        self.rendered = 0
        super().__init__(PageTable(), objections=ObjectionsTable(url="http://gateway.example:8091/"))

    def render(self, notice: BlockNotice, **preferences: Any) -> BlockResponse:
        self.notices.append(notice)
        return super().render(notice, **preferences)

    def _page(self, *args: Any) -> str:
        self.rendered += 1
        return super()._page(*args)


@pytest.fixture
def page() -> Watched:
    return Watched()


@pytest.fixture
def guard(page: Watched) -> Guard:
    matcher = make_matcher(*LINES)
    return Guard(lambda: matcher, page, clock=lambda: NOW)


def ask(guard: Guard, page: Watched, number: int, accept: str) -> tuple[object, ...]:
    """What a request gets, with its reference made the same for all."""
    host, path = REQUESTS[number]
    raw = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n".encode()
    context = to("203.0.113.80")
    response = answered(guard.answer_head(read_request_head(raw), Place(context), context.client))
    reference = page.notices[-1].reference.encode()
    assert reference in response.body
    body = response.body.replace(reference, REFERENCE.encode())
    return response.status, response.reason, response.headers, body


@pytest.mark.parametrize("accept", FORMS)
def test_all_entries_of_a_category_are_answered_in_the_same_bytes(
    guard: Guard, page: Watched, accept: str
) -> None:
    answers = {ask(guard, page, number, accept) for number in range(len(REQUESTS))}
    assert len(answers) == 1


@pytest.mark.parametrize("accept", FORMS)
def test_the_page_is_told_nothing_of_the_entry(guard: Guard, page: Watched, accept: str) -> None:
    for number in range(len(REQUESTS)):
        ask(guard, page, number, accept)
    # All that a page is made of; a field more here would be one that might tell entries apart.
    assert {field.name for field in fields(BlockNotice)} == {"reference", "list_name", "category"}
    assert {(notice.list_name, notice.category) for notice in page.notices} == {("test", "phishing")}
    references = [notice.reference for notice in page.notices]
    assert len(set(references)) == len(references)


@pytest.mark.parametrize("accept", FORMS)
def test_every_page_but_the_first_of_all_takes_the_same_steps(
    guard: Guard, page: Watched, accept: str
) -> None:
    ask(guard, page, 0, accept)
    rendered, misses = page.rendered, page._skeleton.cache_info().misses
    for number in range(1, len(REQUESTS)):
        ask(guard, page, number, accept)
    # Nothing is rendered for an entry that is asked for the first time: its page is not slower than the next.
    assert page.rendered == rendered
    assert page._skeleton.cache_info().misses == misses


def test_a_reference_has_nothing_to_do_with_the_entry(guard: Guard, page: Watched) -> None:
    drawn = []
    for number in (0, 0, 1, 1):
        ask(guard, page, number, "text/html")
        drawn.append(page.notices[-1].reference)
    assert len(set(drawn)) == 4
    assert {len(reference) for reference in drawn} == {len(REFERENCE)}
