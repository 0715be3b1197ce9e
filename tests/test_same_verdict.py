"""Every way to ask says the same of a URL: the proxy, `urlward check`, its explanation (and the dashboard's
check, which is both), and `urlward lab replay`; and what the proxy blocks comes to it: DNS steers the host,
and its TLS is not relayed unread.
"""

import os
import random
import re
from collections.abc import Iterator

import pytest

from engine.test_exact import browser, every_form
from proxy.driver import NOW, make_matcher
from proxy.test_names import to
from urlward.config import PageTable
from urlward.dns.judge import Faults, Judge
from urlward.engine.errors import EntryError
from urlward.engine.grammar import parse_line
from urlward.engine.matcher import Matcher
from urlward.lists.explain import Checker
from urlward.proxy.block_page import BlockPage, BlockResponse
from urlward.proxy.guard import DecisionLog, Guard
from urlward.proxy.head import read_request_head
from urlward.proxy.names import Place
from urlward.replay.formats import FORMATS
from urlward.replay.judge import LogJudge

NAMES = (
    "a.test", "www.a.test", "b.a.test", "www.b.a.test", "a.co.uk", "b.example", "a_b.example",
    "xn--b-hka.test", "B.Example",
)  # fmt: skip
ADDRESSES = ("192.0.2.7", "192.0.2.8", "[2001:db8::7]", "[64:ff9b::c000:207]", "[::ffff:192.0.2.8]")
BEHIND = ("", "", "", "", "/", "/x", "/x/y.html", ".", ";x", "%2f", "/..", "/x/..", "/./", "?x=1", "//")
KINDS = {"http": 80, "https": 443}


def entries(rng: random.Random, targets: list[str]) -> Iterator[str]:
    """Lines of every kind, on few hosts and targets, so that they meet."""
    for _ in range(rng.choice((10, 30, 80))):
        allow = rng.choice(("", "", "", "@@"))
        host, target = rng.choice((*NAMES, *NAMES, *ADDRESSES)), rng.choice(targets)
        path = target.partition("?")[0]
        more = rng.choice(
            ("", "", "", " nocase", " port=443", " port=8443", " expires=2020-01-01", " subdomains")
        )
        match rng.randrange(12):
            case 0:
                yield f"{allow}{host}"
            case 1:
                yield f"0.0.0.0 {host}"
            case 2:
                yield f"{allow}{rng.choice(('a.*', 'b.*', '192.0.2.0/29', '2001:db8::/64'))}"
            case 3:
                yield f"{allow}http://{host}{path.rstrip('/')}/*{more}"
            case 4 if path.strip("/"):
                yield f"{allow}*/{path.strip('/')}/*{more}"
            case 5:
                yield f"{allow}http://{host}:8443{target}"
            case _:
                yield f"{allow}http://{host}{target}{more}"


def read(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        try:
            parse_line(line)
        except EntryError:
            continue
        yield line


class Ways:
    """The ways to ask, over one list."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.guard = Guard(lambda: matcher, BlockPage(PageTable()), clock=lambda: NOW)
        self.checker = Checker(matcher, None, "", NOW)
        self.dns = Judge(lambda: matcher, Faults(), lambda: NOW)

    def of_proxy(self, host: str, port: int, target: str, *, explicit: bool) -> str:
        """What becomes of a request."""
        address = host.strip("[]") if host in ADDRESSES else None if explicit else "198.51.100.9"
        context = to(address, port, sni=host if port == 443 and host not in ADDRESSES else None)
        named = host if port in KINDS.values() else f"{host}:{port}"
        head = read_request_head(f"GET {target} HTTP/1.1\r\nHost: {named}\r\n\r\n".encode("latin-1"))
        answer = self.guard.answer_head(head, Place(context, https=port == 443), context.client)
        if isinstance(answer, BlockResponse):
            return "block" if answer.status == 451 else "error"
        return "pass"

    def of_replay(self, url: str) -> str:
        tally = LogJudge(self.matcher, NOW).judge(FORMATS["urls"], f"{url}\n")
        return next((action for action, *_ in tally.verdicts), "error" if tally.not_judged else "pass")

    def of_tls(self, host: str, port: int) -> str:
        return self.guard.tls(to("198.51.100.9", port), host.encode())[0]


def agree(rng: random.Random, rounds: int, monkeypatch: pytest.MonkeyPatch) -> int:
    kinds: list[str] = []
    monkeypatch.setattr(DecisionLog, "hit", lambda _, hit: kinds.append(hit.verdict.kind))
    pool = [target for target in every_form(rng) if "*" not in target and "#" not in target]
    blocked = 0
    for _ in range(rounds):
        targets = [*rng.sample(pool, 12), "/", "/a", "/a/", "/a/b.html"]
        lines = list(read(entries(rng, targets)))
        ways = Ways(make_matcher(*lines))
        for _ in range(60):
            scheme, port = rng.choice((*KINDS.items(), ("http", 8443), ("https", 8443)))
            host = rng.choice((*NAMES, *NAMES, *ADDRESSES))
            target = str(browser(rng.choice(targets)))
            target += rng.choice(BEHIND) if "?" not in target else ""
            named = host if port == KINDS[scheme] else f"{host}:{port}"
            url = f"{scheme}://{named}{target}"
            kinds.clear()
            told = ways.of_proxy(host, port, target, explicit=rng.random() < 0.3)
            checked = ways.checker.check(url)["verdict"]
            said = url, lines
            assert told == ("pass" if checked == "allow" else checked), said
            assert ways.of_replay(url) == checked, said
            if checked != "error":
                assert ways.checker.explain(url)[0].verdict.action == checked, said
            if host in ADDRESSES:
                continue
            if told == "block" and kinds != ["path"] and not re.match("//|/%2", target):
                blocked += 1
                assert ways.dns.find([host.lower()]), said
                assert ways.of_tls(host, port) != "relay", said
            if not ways.dns.find([host.lower()]):
                assert ways.of_tls(host, port) == "relay", said
    return blocked


def test_every_way_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agree(random.Random(1), 8, monkeypatch) > 50


@pytest.mark.long
def test_every_way_says_the_same_of_much_more(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = os.environ.get("URLWARD_SEED") or str(random.randrange(1 << 32))
    print(f"URLWARD_SEED={seed}")
    assert agree(random.Random(seed), 50, monkeypatch) > 400
