import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from replay.replay_support import NOW, combined, expected, matcher_of, sample, spellings, squid
from rows import each_row
from urlward.replay import judge as module
from urlward.replay.formats import FORMATS, SQUID
from urlward.replay.judge import Clock, LogJudge, Tally

ENTRIES = [
    "blocked.example id=S-1 category=phishing", "0.0.0.0 exact.test id=S-3",
    "http://news.example/2026/listed-story.html id=S-4", "http://forum.test/view?topic=31337 id=S-5",
    "http://files.example/private/* id=S-6", "hopping-name.* id=S-7", "*/gallery/do-not-visit/* id=S-8",
    "192.0.2.66 id=S-9", "[2001:db8:bad::1] id=S-11", "@@http://blocked.example/about id=S-12",
    "http://old.example/listed expires=2026-11-24 id=S-13", "http://panel.test/login port=8443 id=S-14",
    "http://mixed.example/Some/Page nocase id=S-15", "http://many.example/listed subdomains id=S-16",
    "*/login/x/* port=8080 id=S-17", "*/listed/y/* expires=2026-11-24 id=S-18",
]  # fmt: skip


def tally_of(
    kind: str, lines: Sequence[str], clock: Clock = "log", entries: Sequence[str] = ENTRIES, **known: Any
) -> Tally:
    judge = LogJudge(matcher_of(entries), NOW, clock)
    text = "".join(f"{line}\n" for line in lines)
    return judge.judge(replace(FORMATS[kind], **known), text)


def on_the_wire(url: str) -> str:
    return url.encode(errors="surrogateescape").decode("latin-1")


def as_csv(url: str) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="").writerow(["1", url])
    return out.getvalue()


class TestAgreesWithCheck:
    """One line for each spelling: the same entries decide as often, and as many are no URL."""

    def agrees(self, tally: Tally, urls: Sequence[str], entries: Sequence[str] = ENTRIES) -> None:
        found, bad = expected(matcher_of(entries), urls)
        assert dict(tally.verdicts) == found
        assert tally.not_judged == bad
        assert tally.requests == len(urls) - bad
        assert len(found) > 8
        assert bad > 100

    def test_urls(self) -> None:
        urls = [url for url in spellings() if "\n" not in url and not url.startswith("#") and url.strip()]
        self.agrees(tally_of("urls", map(on_the_wire, urls)), urls)

    def test_csv(self) -> None:
        urls = [url for url in spellings() if url.strip()]
        self.agrees(tally_of("csv", [as_csv(on_the_wire(url)) for url in urls], column=1), urls)

    def test_squid(self) -> None:
        urls = [url for url in spellings() if len(url.split()) == 1]
        self.agrees(tally_of("squid", [squid(on_the_wire(url)) for url in urls]), urls)

    def test_a_proxy_with_the_combined_format(self) -> None:
        urls = [
            url for url in spellings() if len(url.split()) == 1 and not url.startswith("/") and '"' not in url
        ]
        lines = [combined(on_the_wire(url).replace("\\", "\\\\")) for url in urls]
        self.agrees(tally_of("combined", lines), urls)

    @pytest.mark.parametrize("escape", [lambda t: t.replace("\\", r"\x5C"), lambda t: t.replace("\\", r"\\")])
    def test_paths_and_the_host_in_front(self, escape: object) -> None:
        urls, lines = [], []
        for url in spellings():
            site, slash, rest = url.partition("/")
            if (
                slash
                and site
                and ":" not in site.replace(":8080", "")
                and site.isprintable()
                and " " not in url
            ):
                urls.append(on_the_wire(url))
                lines.append(combined(escape(on_the_wire(slash + rest)), on_the_wire(site)))  # type: ignore[operator]
        found, bad = expected(
            matcher_of(ENTRIES), [url.encode("latin-1").decode(errors="surrogateescape") for url in urls]
        )
        tally = tally_of("vhost_combined", lines)
        assert dict(tally.verdicts) == found
        assert tally.not_judged == bad
        assert len(found) > 8

    def test_without_path_sequences_too(self) -> None:
        entries = [entry for entry in ENTRIES if not entry.startswith("*/")]
        urls = [url for url in spellings() if len(url.split()) == 1]
        self.agrees(
            tally_of("squid", [squid(on_the_wire(url)) for url in urls], entries=entries), urls, entries
        )

    def test_connect_is_judged_by_its_host(self) -> None:
        matcher = matcher_of(ENTRIES)
        hosts = ["blocked.example", "x.BLOCKED.example.", "exact.test", "www.exact.test", "news.example",
                 "192.0.2.66", "[2001:db8:bad::1]", "[::ffff:192.0.2.66]", "unlisted.test",
                 "hopping-name.test"]  # fmt: skip
        tally = tally_of("squid", [squid(f"{host}:443", "CONNECT") for host in hosts])
        verdicts = [matcher.check_host(host, (443,), NOW) for host in hosts]
        blocked = sum(verdict.blocked for verdict in verdicts)
        assert tally.blocked == blocked == 7
        assert tally.connects == Counter(all=len(hosts), whole=blocked, below=1)
        assert tally.requests == len(hosts)


def test_letters_outside_ascii_are_the_same_in_all_spellings() -> None:
    entries = ["m\u00fcnchen.example id=M-1", "http://news.example/caf%C3%A9 id=M-2"]
    urls = ["http://m\u00fcnchen.example/", "http://news.example/caf\u00e9"]
    lines = [squid(on_the_wire(url)) for url in [*urls, *(url.replace("http", "HTTP") for url in urls)]]
    assert tally_of("squid", lines, entries=entries).blocked == 4


def test_an_odd_request_to_a_host_that_is_known_is_judged_by_its_path() -> None:
    """A host in front that came before, with nothing listed on it."""
    lines = [combined("/", "a.test"), combined("/gallery/do-not-visit/\\x31", "a.test")]
    lines += [combined("http://exact.test/", "a.test")]
    assert tally_of("vhost_combined", lines).blocked == 2


class TestClock:
    LINES = (
        squid("http://old.example/listed", time=NOW),
        squid("http://old.example/listed", time=NOW - 9 * 3600 - 1),  # 2026-11-24T23:59:59Z
        squid("http://old.example/listed", time=NOW - 9 * 3600),
        squid("http://other.test/listed/y/", time=NOW - 86_400),
    )

    def test_expired_at_the_time_in_the_log(self) -> None:
        assert tally_of("squid", self.LINES).blocked == 2

    def test_expired_now(self) -> None:
        assert tally_of("squid", self.LINES, "now").blocked == 0

    def test_over_midnight_in_another_zone(self) -> None:
        lines = [
            combined("/listed", "old.example", when="25/Nov/2026:05:29:59 +0530"),
            combined("/listed", "old.example", when="25/Nov/2026:05:30:00 +0530"),
        ]
        tally = tally_of("vhost_combined", lines)
        assert tally.blocked == 1
        assert sorted(tally.hours) == [498767, 498768]

    def test_a_time_that_is_none_is_now(self) -> None:
        tally = tally_of(
            "vhost_combined", [combined("/listed", "old.example", when="31/Feb/2026:05:30:00 +0000")]
        )
        assert (tally.requests, tally.blocked, dict(tally.hours)) == (1, 0, {})


class TestCounts:
    def test_hours_statuses_clients_and_hosts(self) -> None:
        lines = [
            squid("http://exact.test/", client="192.0.2.1"),
            squid("http://exact.test:8080/", client="192.0.2.1", time=NOW + 3600),
            squid("http://EXACT.test./", client="192.0.2.2").replace("/200 ", "/404 "),
            squid("http://unlisted.test/", client="192.0.2.3"),
            squid("http://unlisted.test/#", client="2001:db8::1"),
            squid("http://unlisted.test/", client="-"),
            squid("a.test:443", "CONNECT", client="192.0.2.4"),
        ]
        tally = tally_of("squid", lines)
        assert (tally.lines, tally.requests, tally.blocked) == (7, 7, 3)
        hour = int(NOW) // 3600
        assert dict(tally.hours) == {hour: 6, hour + 1: 1}
        assert dict(tally.blocked_hours) == {hour: 2, hour + 1: 1}
        assert dict(tally.statuses) == {"200": 6, "404": 1}
        assert dict(tally.blocked_statuses) == {"200": 2, "404": 1}
        assert (tally.clients.count, tally.clients_hit.count) == (5, 2)
        assert (tally.hosts.count, tally.hosts_hit.count) == (3, 1)

    @each_row("url", ["http://bad%00host/", "http://a.test:x/", "http://a.test:99999/#", "ftp://a.test/"])
    def test_what_cannot_be_judged_is_in_no_other_count(self, url: str) -> None:
        tally = tally_of("squid", [squid("http://a.test/"), squid(url)])
        assert (tally.lines, tally.requests, tally.not_judged) == (2, 1, 1)
        ((_, first),) = tally.bad.values()
        assert first == [(1, 2)]
        assert sum(tally.hours.values()) == sum(tally.statuses.values()) == 1
        assert tally.https == Counter()

    def test_a_tunnel_to_nowhere(self) -> None:
        tally = tally_of("squid", [squid("a.test:x", "CONNECT"), squid("a.test", "CONNECT")])
        assert (tally.requests, tally.connects["all"], tally.not_judged) == (1, 1, 1)

    def test_where_lines_are(self) -> None:
        judge = LogJudge(sample(), NOW)
        tally = judge.judge(SQUID, "junk\n\n" + squid("http://a.test/") + "\njunk\n", 3, 100)
        assert tally.bad == {"not a line of Squid's": (2, [(3, 100), (3, 103)])}
        assert (tally.lines, tally.requests) == (4, 1)

    def test_tls(self) -> None:
        lines = ["https://news.example/2026/listed-story.html", "https://news.example/", "https://exact.test/",
                 "https://unlisted.test/gallery/do-not-visit/", "https://unlisted.test/", "http://news.example/",
                 "news.example:443/", "HTTPS://news.example/"]  # fmt: skip
        tally = tally_of("urls", lines)
        assert tally.https == Counter(all=7, whole=1, below=4)
        assert (tally.unseen, tally.blocked, tally.hosts_below.count) == (1, 3, 1)

    def test_paths_without_a_host(self) -> None:
        tally = tally_of("combined", [combined("/a"), combined("http://exact.test/"), combined("/b\\x22")])
        assert (tally.requests, tally.blocked) == (1, 1)
        assert tally.bad["no host (say which with --host)"] == (2, [(1, 1), (1, 3)])
        assert (
            tally_of("combined", [combined("/2026/listed-story.html")], site="news.example:80").blocked == 1
        )

    def test_hosts_that_are_forgotten_are_judged_as_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        urls = [url for url in spellings() if len(url.split()) == 1]
        lines = [squid(on_the_wire(url)) for url in urls] + [
            squid(f"h{n}.test:443", "CONNECT") for n in range(9)
        ]
        usual = tally_of("squid", lines)
        monkeypatch.setattr(module, "KEPT", 3)
        few = tally_of("squid", lines)
        assert few.verdicts == usual.verdicts
        assert (few.requests, few.hosts.count, few.https) == (usual.requests, usual.hosts.count, usual.https)


def test_a_list_of_all_names_leaves_a_stand_in() -> None:
    tally = tally_of("urls", ["http://a.invalid/", "http://a.test/"], entries=["||invalid^", "||test^"])
    assert tally.blocked == 2
