"""The guard with a policy: who is asking, and when, decides what becomes of what is listed."""

from itertools import product
from typing import Any

import pytest
from mitmproxy.proxy.context import Context

from proxy.driver import NOW, failed, make_context, make_matcher
from proxy.test_guard import for_host
from proxy.test_names import to
from rows import each_row
from urlward.config import Config, PageTable
from urlward.engine.matcher import Matcher
from urlward.policy.policy import Policy
from urlward.proxy.block_page import BlockPage, BlockResponse
from urlward.proxy.guard import DecisionLog, Guard
from urlward.proxy.head import read_request_head
from urlward.proxy.names import Names, Place

LINES = (
    "games.example category=games id=G-1",
    "csam.example category=csam id=G-2",
    "http://paged.example/listed category=games id=G-3",
    "192.0.2.66 category=games id=G-4",
    "*/x/y/* category=games id=G-5",
)
RULES: dict[str, Any] = {
    "group": [
        {
            "name": "free",
            "networks": ["203.0.113.1/32"],
            "rule": [{"categories": ["games"], "action": "allow"}],
        },
        {
            "name": "watched",
            "networks": ["203.0.113.2/32"],
            "rule": [{"action": "monitor"}],
        },
        {"name": "school", "networks": ["203.0.113.3/32"], "page": "school"},
        {
            "name": "nothing",
            "networks": ["203.0.113.4/32"],
            "rule": [{"action": "allow"}],
        },
    ],
    "pages": {"school": {"operator": "Example School"}},
}
FREE, WATCHED, SCHOOL, NOTHING, ANYONE = (f"203.0.113.{n}" for n in (1, 2, 3, 4, 9))


def page(operator: str) -> BlockPage:
    return BlockPage(PageTable(operator=operator))


def guard(**changes: Any) -> Guard:
    matcher = make_matcher(*LINES)
    policy = Policy(Config.model_validate(RULES))
    pages = {"school": page("Example School")}
    return Guard(lambda: matcher, page("Net"), policy=policy, pages=pages, clock=lambda: NOW, **changes)


def of(client: str, context: Context | None = None) -> Context:
    context = context or make_context()
    context.client.peername = (client, 1234)
    return context


@each_row(
    ("client", "games", "csam"),
    [
        (ANYONE, 451, 451),
        (SCHOOL, 451, 451),
        (FREE, None, 451),
        (WATCHED, None, None),
        (NOTHING, None, None),
    ],
)
def test_each_by_its_group(client: str, games: int | None, csam: int | None) -> None:
    g = guard()
    for host, path, status in (
        ("games.example", "/", games),
        ("csam.example", "/", csam),
        ("paged.example", "/listed", games),
        ("paged.example", "/other", None),
        ("plain.example", "/x/y/z", games),
        ("plain.example", "/", None),
    ):
        answer = g.answer(for_host(host, path), of(client))
        assert (answer.status if isinstance(answer, BlockResponse) else None) == status, (host, path)
        # The way of plain HTTP, which asks the matcher itself where nothing is on the host.
        head = read_request_head(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        place = Place(make_context())
        place.address = ""
        answer = g.answer_head(head, place, of(client).client)
        assert (answer.status if isinstance(answer, BlockResponse) else None) == status, (host, path)
    assert failed(g) == 0


@each_row(("client", "blocked"), [(ANYONE, True), (FREE, False), (WATCHED, False)])
def test_addresses_too(client: str, blocked: bool) -> None:
    g = guard()
    answer = g.answer(for_host("plain.example"), of(client, to("192.0.2.66")))
    assert isinstance(answer, BlockResponse) is blocked
    assert g.lists_address("192.0.2.66", 80, of(client).client) is blocked
    names = Names((), (), "", "", True)
    assert g.address_allowed(of(client, to("192.0.2.66")), names, "192.0.2.66") is not blocked


@each_row(
    ("host", "decisions"),
    [
        # Of the page, of the host whole: who would be shown a block page is decrypted, as is who may have
        # something there to be seen.
        ("paged.example", {ANYONE: "intercept", FREE: "intercept", WATCHED: "intercept", NOTHING: "relay"}),
        ("games.example", {ANYONE: "intercept", FREE: "relay", WATCHED: "relay", NOTHING: "relay"}),
        ("plain.example", {ANYONE: "relay", FREE: "relay", WATCHED: "relay", NOTHING: "relay"}),
    ],
)
def test_tls(host: str, decisions: dict[str, str]) -> None:
    g = guard()
    assert {client: g.tls(of(client), host.encode())[0] for client in decisions} == decisions


def test_a_blocked_address_blocks_what_its_name_alone_would_not() -> None:
    matcher = make_matcher("games.example category=games id=G-1", "192.0.2.67 category=csam id=A-1")
    rules = {
        "name": "all",
        "networks": ["0.0.0.0/0"],
        "rule": [{"categories": ["games"], "action": "monitor"}],
    }
    policy = Policy(Config.model_validate({"group": [rules]}))
    watching = Guard(lambda: matcher, page("Net"), policy=policy, clock=lambda: NOW)
    assert isinstance(watching.answer(for_host("games.example"), of(ANYONE)), Names)
    answer = watching.answer(for_host("games.example"), of(ANYONE, to("192.0.2.67")))
    assert isinstance(answer, BlockResponse)


def test_what_is_monitored_is_said_once_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    g = guard()
    names = g.tls(of(WATCHED), b"games.example")[1]
    assert names.told
    assert g.review(names, of(WATCHED).client) == "told"
    assert g.review(names, of(WATCHED).client, told=True) == "told"
    assert [m.split()[1] for m in caplog.messages] == ["would-block"]
    assert caplog.messages[0].endswith(" group=watched")


@each_row(("client", "review"), [(ANYONE, "cut"), (FREE, "passes"), (WATCHED, "told"), (NOTHING, "passes")])
def test_what_is_under_way_is_judged_by_its_client(client: str, review: str) -> None:
    names = Names(("games.example",), (80,), "", "/")
    assert guard().review(names, of(client).client) == review


def test_what_is_relayed_unread_is_cut_where_pages_of_any_category_are_blocked() -> None:
    matcher = make_matcher(*LINES)
    rules = [{"categories": ["games"], "action": "block"}, {"action": "monitor"}]
    policy = Policy(Config.model_validate({"rule": rules}))
    g = Guard(lambda: matcher, page("Net"), policy=policy, clock=lambda: NOW)
    names = Names(("paged.example",), (443,), "", "", tls=True)
    assert g.review(names, of(ANYONE).client) == "cut"


@each_row(("client", "review"), [(ANYONE, "cut"), (WATCHED, "told"), (NOTHING, "passes")])
def test_what_is_relayed_unread_is_cut_where_pages_count(client: str, review: str) -> None:
    names = Names(("paged.example",), (443,), "", "", True)
    assert guard().review(names, of(client).client) == review


def test_the_groups_page() -> None:
    g = guard()
    for client, operator in ((SCHOOL, b"Example School"), (ANYONE, b"Net")):
        answer = g.answer(for_host("csam.example"), of(client))
        assert isinstance(answer, BlockResponse)
        assert operator in answer.body


def test_a_fault_in_the_policy_blocks() -> None:
    class Broken(Policy):
        def view(self, client: str, now: float) -> Any:
            raise RuntimeError("no view")

    matcher = make_matcher(*LINES)
    g = Guard(lambda: matcher, page("Net"), policy=Broken(Config()), clock=lambda: NOW)
    answer = g.answer(for_host("games.example"), of(ANYONE))
    assert isinstance(answer, BlockResponse)
    assert answer.status == 503
    assert g.tls(of(ANYONE), b"games.example")[0] == "refuse"
    assert isinstance(g.answer(for_host("plain.example"), of(ANYONE)), Names), "nothing was to be asked"


@each_row(
    "lines",
    [
        ["@@http://paged.example/listed"],
        ["@@http://paged.example/listed", "http://other.example/listed"],
        ["@@paged.example", "http://paged.example/listed"],
    ],
)
def test_exceptions_are_no_reason_to_decrypt(lines: list[str]) -> None:
    matcher = make_matcher(*lines)
    g = Guard(lambda: matcher, page("Net"), clock=lambda: NOW)
    decision, names = g.tls(of(ANYONE), b"paged.example")
    assert decision == "relay"
    assert g.review(names, of(ANYONE).client) == "passes"


def test_an_excused_page_of_a_host_blocked_whole_is_reached_over_tls() -> None:
    matcher = make_matcher("@@http://paged.example/listed", "paged.example")
    g = Guard(lambda: matcher, page("Net"), clock=lambda: NOW)
    assert g.tls(of(ANYONE), b"paged.example")[0] == "intercept"
    assert not isinstance(g.answer(for_host("paged.example", "/listed"), of(ANYONE)), BlockResponse)


TLS_LINES = (
    *LINES,
    "198.51.100.0/24 category=games",
    "2001:db8::/32 port=8443",
    "brand.* category=games",
    "http://sub.example/x subdomains",
    "@@excused.example",
    "@@192.0.2.66 port=8443",
    "http://old.example/x expires=2020-01-01",
    "over.example expires=2020-01-01",
)
SNIS = (
    None, b"quiet.example", b"games.example", b"a.games.example", b"paged.example", b"www.sub.example",
    b"a.brand.test", b"excused.example", b"old.example", b"over.example", b"192.0.2.66", b"a b", b"a..b",
    b"a\xff", b"games.example.",
)  # fmt: skip
DESTINATIONS = (
    None, "192.0.2.7", "192.0.2.66", "198.51.100.9", "2001:db8::9", "::ffff:192.0.2.66", "quiet.example",
    "games.example", "paged.example",
)  # fmt: skip


@each_row("port", [443, 8443])
@each_row(
    ("changes", "found"),
    [
        ({"intercept": "listed"}, {"relay", "intercept"}),
        ({"intercept": "none"}, {"relay", "refuse"}),
        ({"intercept": "all"}, {"intercept"}),
        ({"intercept": "listed", "tls_block": "alert"}, {"relay", "intercept", "refuse"}),
        ({"intercept": "all", "tls_block": "alert"}, {"relay", "intercept", "refuse"}),
        ({"monitor": True}, {"relay", "intercept"}),
    ],
)
def test_one_look_decides_on_tls_as_all_of_them_do(
    changes: dict[str, Any],
    found: set[str],
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says the same of it, too."""
    said: list[Any] = []
    monkeypatch.setattr(DecisionLog, "hit", lambda _, hit: said.append((hit.verdict, hit.would)))
    matcher = make_matcher(*TLS_LINES)
    policy = Policy(Config.model_validate(RULES))
    g = Guard(lambda: matcher, page("Net"), policy=policy, clock=lambda: NOW, **changes)
    clients = product((FREE, WATCHED, ANYONE), DESTINATIONS)
    contexts = [of(client, to(destination, port)) for client, destination in clients]

    def decided() -> list[Any]:
        said.clear()
        decisions = [g.tls(context, sni) for context, sni in product(contexts, SNIS)]
        return [decisions, *said]

    once = decided()
    monkeypatch.setattr(Matcher, "is_quiet", lambda *_: False)
    assert decided() == once
    assert {decision for decision, _ in once[0]} == found


def test_what_is_quiet_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    g = guard()
    with monkeypatch.context() as none:
        for look in ("check_host", "check_address", "lists_below"):
            none.setattr(Matcher, look, lambda *_: pytest.fail("another look"))
        assert g.tls(of(ANYONE, to("192.0.2.7", 443)), b"quiet.example")[0] == "relay"
    assert g.tls(of(ANYONE, to("192.0.2.66", 443)), b"quiet.example")[0] == "intercept"
    quiet = make_matcher("other.example")
    monkeypatch.setattr(g, "matcher", lambda: quiet)
    assert g.tls(of(ANYONE, to("192.0.2.66", 443)), b"quiet.example")[0] == "relay", "of other lists"
