"""The matcher says of every request what a naive one says, whatever shape the automata are forced into."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from engine import reference
from engine.reference import SUFFIXES, Rule
from engine.support import OTHER_SECRET, build, examples, key
from urlward.engine.digest import Key, Tokens
from urlward.engine.errors import UrlError
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.engine.readings import target_readings
from urlward.engine.verdict import PASS, Verdict

OUR_SUFFIXES = PublicSuffixList(source=io.StringIO("\n".join(SUFFIXES)))

# Few names and short ones, so that entries and requests meet, nest and share their beginnings.
LABELS = st.sampled_from(["a", "b", "www"])
HOSTS = st.sampled_from(
    [
        *["a.test", "a.test", "www.a.test", "b.a.test", "www.b.a.test", "b.b.a.test", "aa.test", "www.test"],
        *[
            "a.co.test",
            "www.a.co.test",
            "b.a.co.test",
            "co.test",
            "a.example",
            "b.a.example",
            "www.www.a.test",
        ],
    ]
)
LONG_HOSTS = st.integers(80, 90).map(lambda n: "b." * n + "test")
# None of blanks alone, which some origins drop from the end of a path: `test_url.py` has those readings.
SEGMENTS = st.sampled_from(["a", "a", "b", "A", "%20b"])
SHORT_PATHS = st.lists(SEGMENTS, max_size=3).map(lambda parts: "/" + "/".join(parts))
LONG_PATHS = st.integers(60, 66).map(lambda n: "/a" * n)
PATHS = st.one_of(st.sampled_from(["/", "/a"]), SHORT_PATHS, SHORT_PATHS, LONG_PATHS)
FOLDERS = PATHS.map(lambda path: path.rstrip("/") + "/")
PARAMS = st.frozensets(st.sampled_from(["x=1", "x=2", "y", "x", "p1", "p2"]), min_size=1, max_size=3)
ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.3.1", "2001:db8::1", "2001:db8::2", "::1"])
NETWORKS = st.sampled_from(
    ["192.0.2.0/24", "192.0.2.0/31", "192.0.0.0/16", "2001:db8::/32", "2001:db8::/127", "::/8"]
)
PORTS = st.sampled_from([0, 0, 0, 80, 443, 8080])
DAYS = st.sampled_from([0, 0, 0, 19_000, 19_001])


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def without_leading_www(host: str) -> str:
    while host.startswith("www.") and "." in host.removeprefix("www."):
        host = host.removeprefix("www.")
    return host


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    kind = draw(st.sampled_from([*reference.ORDER, "page", "page", "params", "params", "prefix"]))
    with_path = kind in ("page", "prefix", "params")
    hosts = st.one_of(HOSTS, HOSTS, LONG_HOSTS)
    if with_path:
        hosts = st.one_of(hosts.map(without_leading_www), ADDRESSES.map(bracketed))
    host = {
        "address": ADDRESSES.map(lambda a: a + ("/128" if ":" in a else "/32")),
        "network": NETWORKS,
        "name": st.lists(LABELS, min_size=1, max_size=3).map(".".join),
        "path": st.just(""),
    }.get(kind, hosts)
    found = draw(host)
    path = {"prefix": FOLDERS, "path": FOLDERS.filter(lambda p: p != "/"), "page": PATHS, "params": PATHS}
    port = draw(PORTS)
    return Rule(
        kind=kind,
        id="",
        host=found,
        path=draw(path[kind]) if kind in path else "",
        params=draw(PARAMS) if kind == "params" else frozenset(),
        allow=kind != "host" and draw(st.sampled_from([False, False, False, True])),
        category=draw(st.sampled_from(["", "", "phishing", "malware"])),
        expires=draw(DAYS),
        port=port,
        port_in_url=with_path and port not in (0, 80) and draw(st.booleans()),
        www=with_path and found[0].isalpha() and not found.startswith("www.") and draw(st.booleans()),
        nocase=(with_path or kind == "path") and draw(st.booleans()),
        subdomains=with_path and draw(st.sampled_from([False, False, True])),
    )


LISTS = st.lists(st.lists(rules(), max_size=14), min_size=1, max_size=3)
TARGETS = st.builds(
    lambda path, query, fragment: path + (f"?{'&'.join(query)}" if query else "") + fragment,
    PATHS | FOLDERS,
    st.lists(
        st.sampled_from(["x=1", "x=2", "y=1", "y", "x", "y=", "", "X=1", "x%3d1", "%78=1", "p1", "p2", "z"]),
        max_size=5,
    ),
    st.sampled_from(["", "", "#x=1"]),
)
REQUESTS = st.lists(
    st.tuples(
        st.one_of(HOSTS, HOSTS, HOSTS, LONG_HOSTS, ADDRESSES.map(bracketed)),
        TARGETS,
        st.sampled_from([(), (80,), (443,), (8080,), (80, 8080)]),
        st.sampled_from([0.0, 19_001 * 86_400 - 1.0, 19_001 * 86_400.0, 19_002 * 86_400.0]),
    ),
    min_size=1,
    max_size=12,
)


@contextmanager
def shapes(shard: int, floating: int, pattern: int, collide: int) -> Iterator[None]:
    """Cut automata and patterns short, and let `collide` texts share their letters."""

    def letters(self: Tokens, text: str) -> str:
        return "AB\5C"[sum(map(ord, text)) % collide] * (4 if self._few_letters else 3)

    with (
        patch("urlward.engine.loaded.SHARD", shard),
        patch("urlward.engine.loaded.FLOATING_SHARD", floating),
        patch("urlward.engine.compiler.MAX_PATTERN", pattern),
        patch("urlward.engine.hosts.LOOK", 1 << 20),  # so small automata have much over and over
        patch("urlward.engine.hosts._suffixes", lambda: OUR_SUFFIXES),
        patch.object(Tokens, "letters", letters if collide else Tokens.letters),
    ):
        yield


SHAPES = st.tuples(
    st.sampled_from([1, 2, 3, 5, 1 << 15]),
    st.sampled_from([1, 2, 1 << 17]),
    st.sampled_from([255, 255, 1, 4, 9, 30]),
    st.sampled_from([0, 0, 1, 2, 3, 4]),
)


def loaded(lists: list[list[Rule]]) -> Matcher:
    """A matcher of these lists, of which every second is under a key of its own."""
    keys = (key(), Key(OTHER_SECRET))
    return Matcher(
        [
            load(build([rule.line() for rule in lines], keys[n % 2], f"l{n}"), keys[n % 2])
            for n, lines in enumerate(lists)
        ]
    )


def row_of(rule: Rule) -> tuple[str, Rule]:
    """What is the same for all rules that are one row: its list, and what it says."""
    said = replace(rule, id="")
    if rule.nocase:
        said = replace(said, path=rule.path.lower(), params=frozenset(map(str.lower, rule.params)))
    return rule.id.partition(".")[0], said


def number(lists: list[list[Rule]]) -> list[list[Rule]]:
    return [[replace(rule, id=f"l{n}.{m}") for m, rule in enumerate(lines)] for n, lines in enumerate(lists)]


def agree(verdict: Verdict, expected: set[Rule]) -> None:
    if not expected:
        assert verdict == PASS
        return
    by_id = {rule.id: rule for rule in expected}
    assert verdict.entry in by_id
    rule = by_id[verdict.entry]
    assert verdict.action == ("allow" if rule.allow else "block")
    assert verdict.blocked is not rule.allow
    assert (verdict.kind, verdict.category) == (rule.kind, rule.category)
    assert verdict.list == rule.id.partition(".")[0]


def of_blocking_pages(lists: list[list[Rule]]) -> list[Rule]:
    """The rules of those lists in which any page is blocked."""
    kinds = ("page", "prefix", "params")
    blocking = [rules for rules in lists if any(r.kind in kinds and not r.allow for r in rules)]
    return [rule for rules in blocking for rule in rules]


@given(LISTS.map(number), REQUESTS, SHAPES)
@examples(1200)
def test_requests(
    lists: list[list[Rule]],
    requests: list[tuple[str, str, tuple[int, ...], float]],
    shape: tuple[int, int, int, int],
) -> None:
    everything = [rule for lines in lists for rule in lines]
    with shapes(*shape):
        matcher = loaded(lists)
        for host, target, *at in requests:
            agree(matcher.check(host, target, *at), reference.check(everything, host, target, *at))
            agree(matcher.check_host(host, *at), reference.check_host(everything, host, *at))
            below = of_blocking_pages(lists)
            assert bool(matcher.lists_below(host, *at)) == reference.lists_below(everything, below, host, *at)
            address = host.strip("[]")
            agree(matcher.check_address(address, *at), reference.check_address(everything, address, *at))


@given(LISTS.map(number), st.data(), SHAPES)
@examples(250)
def test_every_entry_blocks_what_it_says_in_every_spelling(
    lists: list[list[Rule]], data: st.DataObject, shape: tuple[int, int, int, int]
) -> None:
    everything = [rule for lines in lists for rule in lines]
    with shapes(*shape):
        matcher = loaded(lists)
        for rule in everything:
            host = rule.host if rule.kind not in ("address", "network", "path", "name") else "b.test"
            if rule.kind == "name":
                host = f"{rule.host}.{data.draw(st.sampled_from(SUFFIXES))}"
            if rule.kind in ("address", "network"):
                first = rule.host.partition("/")[0]
                host = bracketed(first)
            target = (rule.path or "/") + "?" + "&".join([*rule.params, "z"])
            expected = reference.check(everything, host, target, (), 0.0)
            assert expected, "no rule decides on what a rule stands for"
            spelled = respell(target, data)
            verdict = matcher.check(respell_host(host, data), spelled, (), 0.0)
            if verdict.blocked and verdict.entry not in {found.id for found in expected}:
                # What is allowed in one reading is not in another.
                assert len(target_readings(spelled)) > 1
                assert reference.check([found for found in everything if found.allow], host, target, (), 0.0)
            else:
                agree(verdict, expected)


def respell(target: str, data: st.DataObject) -> str:
    path, _, query = target.partition("?")
    slash = data.draw(st.sampled_from(["/", "//", "/./", "/zz/../", "/zz/%2e%2E/", "\\", "%2f"]))
    path = path[1:].replace("/", slash)
    query = "&".join(data.draw(st.permutations(query.split("&"))))
    query += data.draw(st.sampled_from(["", "&", "&zz=1", "#x", "&&"]))
    for _ in range(data.draw(st.integers(0, 2))):
        path = path.replace("%", "%25").replace("a", "%61").replace("A", "%41").replace("B", "%4%32")
        query = query.replace("%", "%25").replace("x", "%78").replace("1", "%31")
    return f"/{path}?{query}"


def respell_host(host: str, data: st.DataObject) -> str:
    if host.startswith("["):
        spellings = [host, host.upper(), host.replace("::", ":0::").replace("[:0", "[0:0")]
    elif host.startswith("192."):
        spellings = [host, host + ".", "0xc0" + host[3:], f"[::ffff:{host}]"]
    else:
        # Not escaped: an origin may take that as it is, and so an exception does not hold for it.
        spellings = [host, host.upper(), host + ".", host.replace(".", ".."), "." + host]
    return data.draw(st.sampled_from(spellings))


def test_no_host_is_an_error() -> None:
    matcher = loaded([[Rule("domain", "l0.0", "a.test"), Rule("path", "l0.1", path="/a/")]])
    for ask in (matcher.check_host, matcher.lists_below, lambda h: matcher.check(h, "/")):
        with pytest.raises(UrlError):
            ask("")
