"""What the tests of replaying share: a list, odd spellings, and logs that are made of them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lists.support import SECRET, artifact
from urlward.engine.digest import Key
from urlward.engine.errors import UrlError
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher

DATA = Path(__file__).parents[1] / "data"
LOGS = DATA / "replay"
SAMPLE = Path(__file__).parents[2] / "lists" / "sample.txt"

NOW = 1_795_597_200.0
"""2026-11-25T09:00:00Z"""


def matcher_of(lines: Iterable[str]) -> Matcher:
    return Matcher([load(artifact(lines), Key(SECRET))])


def sample() -> Matcher:
    return matcher_of(SAMPLE.read_text().splitlines())


def spellings() -> list[str]:
    """URLs as nobody would write them, and what is refused."""
    vectors = [given for given, _ in json.loads((DATA / "canonicalization.json").read_text())["vectors"]]
    hosts = ["blocked.example", "BLOCKED.example", "sub.blocked.example.", "www.news.example", "exact.test"]
    hosts += [
        "www.exact.test",
        "exact.test:8080",
        "user:pw@exact.test",
        "192.0.2.66",
        "0xC0000242",
        "3221225794",
    ]
    hosts += [
        "[::ffff:192.0.2.66]",
        "[2001:db8:bad::1]",
        "hopping-name.co.test",
        "panel.test",
        "panel.test:8443",
    ]
    hosts += [
        "a.many.example",
        "mixed.example",
        "files.example",
        "forum.test",
        "unlisted.test",
        "old.example",
    ]
    hosts += ["unlisted.test:0", "unlisted.test:99999", "bad_host%00.test", "e%78act.test", "ex\u00e4ct.test"]
    paths = ["", "/", "/about", "/2026/listed-story.html", "/2026/./x/../listed-story.html?", "/listed?a=b#c"]
    paths += [
        "/2026%2flisted-story.html#top",
        "/private/a",
        "/private",
        "/view?a=1&topic=31337",
        "/some/page",
    ]
    paths += [
        "/view?topic=3133%37",
        "/x/gallery/do-not-visit/1",
        "/gallery/do%2Dnot-visit/",
        "/Login",
        "/login",
    ]
    paths += [
        "?topic=31337",
        "/%25%32%35%5c..\\login",
        "//gallery//do-not-visit//",
        "/\u00e9?\u00e9=1",
        "/a'b,c;d|e",
    ]
    schemes = ["http://", "https://", "HTTP://", "", "ws://", "ftp://", "http:\\\\"]
    made = [scheme + host + path for scheme in schemes for host in hosts for path in paths]
    return [*vectors, *made]


def expected(
    matcher: Matcher, urls: Sequence[str], now: float = NOW
) -> tuple[dict[tuple[str, ...], int], int]:
    """How many requests each entry decides, by `Matcher.check_url`, and how many URLs are none."""
    found: dict[tuple[str, ...], int] = {}
    bad = 0
    for url in urls:
        try:
            verdict = matcher.check_url(url.encode(errors="surrogateescape"), now)
        except UrlError:
            bad += 1
            continue
        if verdict.action != "pass":
            key = (verdict.action, verdict.list, verdict.category, verdict.kind, verdict.entry)
            found[key] = found.get(key, 0) + 1
    return found, bad


def squid(url: str, method: str = "GET", client: str = "192.0.2.10", time: float = NOW) -> str:
    return f"{time:.3f}     12 {client} TCP_MISS/200 512 {method} {url} - HIER_DIRECT/203.0.113.9 text/html"


def combined(
    target: str, site: str = "", client: str = "192.0.2.10", when: str = "25/Nov/2026:09:00:00 +0000"
) -> str:
    front = f"{site} " if site else ""
    return f'{front}{client} - - [{when}] "GET {target} HTTP/1.1" 200 512 "-" "Mozilla/5.0"'
