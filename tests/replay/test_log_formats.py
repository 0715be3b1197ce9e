from dataclasses import replace
from typing import NamedTuple

import pytest

from replay.replay_support import LOGS, combined, squid
from rows import each_row
from urlward.csv_rows import MOST_LINES
from urlward.engine.errors import UrlwardError
from urlward.replay.formats import COMBINED, CSV, SQUID, URLS, VHOST_COMBINED, LogFormat


class Row(NamedTuple):
    origin: str
    target: str
    tunnel: str
    other: str
    odd: str
    time: str
    client: str
    status: str


def rows(log_format: LogFormat, text: str) -> list[Row]:
    return [Row(*row) for row in zip(*log_format.columns(text), strict=True)]


def url_of(log_format: LogFormat, line: str) -> str:
    """The URL of a line; of CONNECT, host and port."""
    columns = log_format.columns(line)
    assert len(columns.odd) == 1
    return columns.tunnels[0] or log_format.url(columns, 0)


def second(log_format: LogFormat, time: str) -> int:
    assert log_format.second is not None
    return log_format.second(time)


NONE = ("not of the format", "", "", 0)


@each_row(
    ("log_format", "name", "expected"),
    [
        (
            SQUID,
            "squid.log",
            [
                ("http://news.example/2026/listed-story.html", "192.0.2.10", "200", 1795597200),
                ("http://unlisted.test/a/b?c=d", "192.0.2.10", "304", 1795597200),
                ("exact.test:443", "192.0.2.11", "200", 1795597200),
                ("news.example:443", "192.0.2.11", "200", 1795597200),
                ("unlisted.test:443", "192.0.2.12", "200", 1795597200),
                ("http://WWW.Blocked.Example:8080/%61?x", "2001:db8::10", "403", 1795600800),
                ("no URL", "192.0.2.13", "400", 1795600800),
                ("http://blocked.example/about", "192.0.2.12", "200", 1795600800),
                NONE,
            ],
        ),
        (
            replace(COMBINED, site="site.test"),
            "combined.log",
            [
                ("site.test/2026/listed-story.html", "192.0.2.10", "200", 1795597200),
                ("site.test/style.css", "192.0.2.10", "304", 1795597201),
                ("http://exact.test/", "192.0.2.11", "200", 1795597202),
                ('site.test/2026/listed-story.html?q="', "192.0.2.12", "404", 1795600803),
                ("no request", "192.0.2.13", "400", 1795600804),
                ("no request", "192.0.2.13", "408", 1795600805),
                ("", "192.0.2.13", "200", 1795600806),
            ],
        ),
        (
            VHOST_COMBINED,
            "vhost_combined.log",
            [
                ("news.example:80/2026/listed-story.html", "192.0.2.10", "200", 1795597200),
                ("exact.test:443/form", "2001:db8::10", "302", 1795597201),
                ("unlisted.test:443/", "192.0.2.11", "200", 1795597202),
                ("unlisted.test:80/gallery/do-not-visit/1", "192.0.2.11", "200", 1795597203),
                NONE,
            ],
        ),
    ],
)
def test_the_sample_logs(log_format: LogFormat, name: str, expected: list[tuple[str, str, str, int]]) -> None:
    lines = (LOGS / name).read_text().splitlines()
    found = rows(log_format, "\n".join(lines))
    assert len(found) == len(expected)
    for line, row, (url, client, status, when) in zip(lines, found, expected, strict=True):
        assert (row.client, row.status) == (client, status)
        assert (second(log_format, row.time) if row.time else 0) == when
        if url in ("no URL", "no request", NONE[0]):
            with pytest.raises(UrlwardError, match="not a line" if url == NONE[0] else url):
                url_of(log_format, line)
        else:
            assert url_of(log_format, line) == url


class TestSquid:
    def test_urls_that_come_in_two_parts(self) -> None:
        text = "\n".join(
            [
                squid("http://a.test/b?c"),
                squid("https://a.test:8443"),
                squid("http://a.test?q"),
                squid("a.test:443", "CONNECT"),
                squid("[2001:db8::1]:443", "CONNECT"),
                "",
                squid("http://\xe4.test/\xff"),
            ]
        )
        assert [row[:5] for row in rows(SQUID, text + "\n")] == [
            ("http://a.test", "/b?c", "", "", ""),
            ("https://a.test:8443", "", "", "", ""),
            ("http://a.test", "?q", "", "", ""),
            ("", "", "a.test:443", "", ""),
            ("", "", "[2001:db8::1]:443", "", ""),
            ("", "", "", "", ""),
            ("http://\xe4.test", "/\xff", "", "", ""),
        ]

    @each_row(
        "url",
        ["HTTP://a.test/", "http:///a.test/", "http://a.test\\b", "http://a.test#/x", "ftp://a.test/",
         "a.test/x", "/x", "http://a.test/\x01"],
    )  # fmt: skip
    def test_other_urls_come_whole(self, url: str) -> None:
        line = squid(url)
        assert rows(SQUID, line) == [("", "", "", url, "", "17955972", "192.0.2.10", "200")]
        assert url_of(SQUID, line) == url

    @each_row(
        "line",
        [
            "nonsense",
            "1795597200.000 12 192.0.2.1 TCP_MISS/200",
            squid("http://x")[:40],
            squid("http://a.test/\t"),
        ],
    )
    def test_damaged(self, line: str) -> None:
        assert rows(SQUID, line) == [("", "", "", "", line, "", "", "")]
        with pytest.raises(UrlwardError, match=r"not a line of Squid's"):
            url_of(SQUID, line)

    def test_a_line_that_was_cut_does_not_take_part_of_the_next(self) -> None:
        cut = squid("http://a.test/b")[:60]
        found = rows(SQUID, f"{cut}\n{squid('http://b.test/')}")
        assert [row[:4] for row in found] == [("", "", "", "http:/"), ("http://b.test", "/", "", "")]

    @each_row("url", ["error:invalid-request", "error:transaction-end-before-headers", "-"])
    def test_no_url(self, url: str) -> None:
        with pytest.raises(UrlwardError, match="no URL"):
            url_of(SQUID, squid(url, "NONE"))

    def test_connect_to_a_url_is_a_request_for_it(self) -> None:
        (row,) = rows(SQUID, squid("http://a.test/b", "CONNECT"))
        assert row[:3] == ("http://a.test", "/b", "")

    def test_blanks_and_fields_of_all_widths(self) -> None:
        line = " 917563200 -1   host.test  none/000  -5  M-SEARCH   a.test/x"
        assert rows(SQUID, line) == [("", "", "", "a.test/x", "", "9175632", "host.test", "000")]
        assert second(SQUID, "9175632") == 917563200


class TestCombined:
    def test_urls_that_come_in_two_parts(self) -> None:
        text = "\n".join([combined("/a?b"), combined("http://a.test/b"), combined("/x")[:-30], "junk", ""])
        found = rows(COMBINED, text + "\n")
        assert [row[:5] for row in found[:2]] == [
            ("", "/a?b", "", "", ""),
            ("http://a.test", "/b", "", "", ""),
        ]
        assert found[3] == ("", "", "", "", "junk", "", "", "")
        assert not any(found[4])

    def test_with_a_host_in_front(self) -> None:
        lines = [
            combined("/a", "a.test:80"),
            combined("/b", '"b.test"'),
            combined("http://c.test/d", "a.test"),
        ]
        assert [row[:2] for row in rows(VHOST_COMBINED, "\n".join(lines))] == [
            ("a.test:80", "/a"),
            ("b.test", "/b"),
            ("a.test", ""),
        ]
        assert url_of(VHOST_COMBINED, lines[2]) == "http://c.test/d"
        assert url_of(VHOST_COMBINED, combined(r"/a\x62", "a.test")) == "a.test/ab"

    def test_a_line_without_its_host_is_none_of_them(self) -> None:
        line = combined("/a")
        assert rows(VHOST_COMBINED, line)[0].odd == line
        with pytest.raises(UrlwardError):
            url_of(VHOST_COMBINED, line)

    @each_row(
        ("written", "meant"),
        [
            (r"/a\x22b", '/a"b'),
            (r"/a\"b\\c", '/a"b\\c'),
            (r"/\xC3\xA9", "/\xc3\xa9"),
            (r"/a\tb\qc", "/a\tb\\qc"),
            ("/a b", "/a b"),
        ],
    )
    def test_what_a_server_escapes_is_undone(self, written: str, meant: str) -> None:
        lines = replace(COMBINED, site="site.test")
        assert url_of(lines, combined(written)) == f"site.test{meant}"
        assert rows(lines, combined(written))[0].other

    def test_many_blanks_take_no_long_time(self) -> None:
        target = f"/a{' ' * 300_000}b"
        assert url_of(replace(COMBINED, site="site.test"), combined(target)) == f"site.test{target}"

    @each_row("request_line", ["-", "", r"\x16\x03\x01", "GET", r"\x00 /", r"CONNECT a\x2etest:443 HTTP/1.1"])
    def test_no_request(self, request_line: str) -> None:
        line = f'192.0.2.1 - - [25/Nov/2026:09:00:00 +0000] "{request_line}" 400 0 "-" "-"'
        with pytest.raises(UrlwardError, match="no request"):
            url_of(replace(COMBINED, site="a.test"), line)

    def test_other_requests(self) -> None:
        assert url_of(COMBINED, combined("x").replace("GET x", "OPTIONS *")) == ""
        (tunnel,) = rows(COMBINED, combined("x").replace("GET x", "CONNECT a.test:443"))
        assert tunnel.tunnel == "a.test:443"
        with pytest.raises(UrlwardError, match="--host"):
            url_of(COMBINED, combined("/a"))
        old = '192.0.2.1 - - [25/Nov/2026:09:00:00 +0000] "GET /a" 200 5'
        assert url_of(replace(COMBINED, site="a.test"), old) == "a.test/a"

    def test_brackets_in_the_name_of_a_user(self) -> None:
        line = combined("/a").replace("- - [", "- [a] [b [")
        assert url_of(replace(COMBINED, site="a.test"), line) == "a.test/a"

    @each_row(
        ("time", "seconds"),
        [
            ("25/Nov/2026:09:00:59 +0000", 1795597259),
            ("25/Nov/2026:10:30:00 +0130", 1795597200),
            ("24/Nov/2026:23:00:00 -1000", 1795597200),
            ("01/Jan/1970:00:00:00 +0000", 0),
            ("29/Feb/2024:00:00:00 +0000", 1709164800),
        ],
    )
    def test_times(self, time: str, seconds: int) -> None:
        assert second(COMBINED, time) == seconds

    @each_row(
        "time",
        [
            "29/Feb/2026:00:00:00 +0000",
            "25/nov/2026:09:00:00 +0000",
            "25/Nov/2026:24:00:00 +0000",
            "x" * 26,
            "",
            "5",
        ],
    )
    def test_times_that_are_none(self, time: str) -> None:
        with pytest.raises(ValueError):
            second(COMBINED, time)


@each_row("log_format", [SQUID, COMBINED, VHOST_COMBINED, URLS, CSV], ids=lambda f: f.kind)
def test_a_line_of_many_like_parts_takes_no_longer_than_any_other(log_format: LogFormat) -> None:
    # Where the expression tried each part with each other, this would take hours.
    start = {"squid": squid("")[:40], "combined": "192.0.2.1 - "}.get(log_format.kind, "a.test 192.0.2.1 - ")
    for piece in (" ", "[", "[x] ", '[x] "', '"', "\\", "a ", "http://", "1", "/200 ", "-", ":"):
        many = piece * (200_000 // len(piece))
        for line in (many, start + many, start + "[25/Nov/2026:09:00:00 +0000] " + many):
            assert len(rows(log_format, line)) == 1, piece


class TestUrls:
    def test_lines(self) -> None:
        text = "http://a.test/b,c\r\nhttps://a.test?d\n a.test \n# remark\n"
        assert [row[:4] for row in rows(URLS, text)] == [
            ("http://a.test", "/b,c", "", ""),
            ("https://a.test", "?d", "", ""),
            ("", "", "", " a.test "),
            ("", "", "", "# remark"),
        ]
        assert url_of(URLS, " a.test ") == "a.test"
        assert url_of(URLS, " a.test/\x85") == "a.test/\x85", "a byte of a letter, no blank"
        assert url_of(URLS, "# remark") == ""


class TestCsv:
    def urls(self, text: str, column: int = 1, delimiter: str = ",") -> list[str]:
        lines = replace(CSV, delimiter=delimiter, column=column)
        return [row.origin + row.target + row.other for row in rows(lines, text)]

    def test_quotes(self) -> None:
        text = '1,"http://a.test/b,c""d",x\n2,http://a.test/e"f"\n"3","a.test"\n'
        assert self.urls(text) == ['http://a.test/b,c"d', 'http://a.test/e"f"', "a.test"]

    def test_rows_over_several_lines_keep_the_numbers_of_the_others(self) -> None:
        text = '"a\nb",http://a.test/1\n2,http://a.test/2\n3,"http://a.te\nst/3"\r\n\n4,http://a.test/4'
        assert self.urls(text) == [
            "",
            "http://a.test/1",
            "http://a.test/2",
            "",
            "http://a.test/3",
            "",
            "http://a.test/4",
        ]

    def test_damaged_rows(self) -> None:
        text = (
            '1\n"2"x,http://a.test/2\n3,http://a.test/3\n4,\n# 5,x\n"6,http://a.test/6\n7,http://a.test/7\n'
        )
        none = "\0"
        assert self.urls(text) == [none, none, "http://a.test/3", none, "", none, "http://a.test/7"]
        with pytest.raises(UrlwardError, match="no URL in its column"):
            CSV.read(none)

    def test_a_quote_that_does_not_end_costs_one_line(self) -> None:
        text = '1,"http://a.test/1\n' + "2,http://a.test/2\n" * (MOST_LINES + 1) + '3,"http://a.test/3"\n'
        assert self.urls(text)[0] == "\0"
        assert self.urls(text)[1:] == ["http://a.test/2"] * (MOST_LINES + 1) + ["http://a.test/3"]

    def test_a_field_without_end(self) -> None:
        text = '1,"' + "x" * 200_000 + "\n2,http://a.test/2\n"
        assert self.urls(text) == ["\0", "http://a.test/2"]

    def test_other_delimiters(self) -> None:
        assert self.urls("http://a.test/b,c;1\n", 0, ";") == ["http://a.test/b,c"]
