import pytest

from gateway.lab.replay_support import LOGS, combined, squid
from urlward.gateway.lab.replay_lines import (
    MOST_LINES,
    BadLineError,
    Combined,
    Csv,
    LineFormat,
    Request,
    Squid,
    Urls,
)


def rows(lines: LineFormat, text: str) -> list[tuple[str, str, str, str]]:
    """Origin, target, tunnel and odd of each line."""
    columns = lines.columns(text)
    none = [""] * columns.rows
    return list(
        zip(columns.origins or none, columns.targets, columns.tunnels or none, columns.odd, strict=True)
    )


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (Squid(), "squid.log"),
        (Combined("site.test"), "combined.log"),
        (Combined(sites=True), "vhost_combined.log"),
    ],
)
def test_the_quick_way_says_what_the_careful_one_says(lines: LineFormat, name: str) -> None:
    text = (LOGS / name).read_text()
    columns = lines.columns(text)
    quick = 0
    for row, line in enumerate(text.splitlines()):
        if columns.odd[row]:
            assert columns.odd[row] == line
            continue
        quick += 1
        request = lines.read(line)
        assert request is not None
        assert (request.client, request.status) == (columns.clients[row], columns.statuses[row])
        assert lines.second(request.time) == lines.second(columns.times[row])
        url = (columns.origins[row] or lines.site) + columns.targets[row]
        assert (request.url, request.tunnel) == (columns.tunnels[row] or url, bool(columns.tunnels[row]))
    assert quick >= 2


class TestSquid:
    def test_the_quick_way(self) -> None:
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
        assert rows(Squid(), text + "\n") == [
            ("http://a.test", "/b?c", "", ""),
            ("https://a.test:8443", "", "", ""),
            ("http://a.test", "?q", "", ""),
            ("", "", "a.test:443", ""),
            ("", "", "[2001:db8::1]:443", ""),
            ("", "", "", ""),
            ("http://\xe4.test", "/\xff", "", ""),
        ]

    @pytest.mark.parametrize(
        "url",
        ["HTTP://a.test/", "http:///a.test/", "http://a.test\\b", "http://a.test#/x", "ftp://a.test/",
         "a.test/x", "/x", "http://a.test/\x01", "http://a.test/\t"],
    )  # fmt: skip
    def test_what_needs_a_second_thought_is_left_to_the_careful_way(self, url: str) -> None:
        line = squid(url)
        assert rows(Squid(), line) == [("", "", "", line)]
        if "\t" not in url:
            assert Squid().read(line) == Request(url, False, "17955972", "192.0.2.10", "200")

    @pytest.mark.parametrize(
        "line", ["nonsense", "1795597200.000 12 192.0.2.1 TCP_MISS/200", squid("http://x")[:40]]
    )
    def test_damaged(self, line: str) -> None:
        with pytest.raises(BadLineError, match=r"not a line of Squid's"):
            Squid().read(line)
        assert rows(Squid(), line) == [("", "", "", line)]

    def test_a_line_that_was_cut_does_not_take_part_of_the_next(self) -> None:
        cut = squid("http://a.test/b")[:60]
        assert [row[3] for row in rows(Squid(), f"{cut}\n{squid('http://b.test/')}")] == [cut, ""]

    @pytest.mark.parametrize("url", ["error:invalid-request", "error:transaction-end-before-headers", "-"])
    def test_no_url(self, url: str) -> None:
        with pytest.raises(BadLineError, match="no URL"):
            Squid().read(squid(url, "NONE"))


class TestCombined:
    def test_the_quick_way(self) -> None:
        text = "\n".join([combined("/a?b"), combined("http://a.test/b"), combined("/x")[:-30], "junk"])
        assert rows(Combined(), text)[:2] == [("", "/a?b", "", ""), ("http://a.test", "/b", "", "")]
        assert rows(Combined(), text)[3] == ("", "", "", "junk")

    def test_with_a_host_in_front(self) -> None:
        lines = Combined(sites=True)
        text = "\n".join(
            [combined("/a", "a.test:80"), combined("/b", '"b.test"'), combined("http://c.test/d", "a.test")]
        )
        assert [row[:2] for row in rows(lines, text)] == [("a.test:80", "/a"), ("b.test", "/b"), ("", "")]
        request = lines.read(text.splitlines()[2])
        assert request is not None
        assert request.url == "http://c.test/d"

    def test_a_line_without_its_host_is_none_of_them(self) -> None:
        line = combined("/a")
        assert rows(Combined(sites=True), line) == [("", "", "", line)]
        with pytest.raises(BadLineError):
            Combined(sites=True).read(line)

    @pytest.mark.parametrize(
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
        request = Combined("site.test").read(combined(written))
        assert request is not None
        assert request.url == f"site.test{meant}"
        assert rows(Combined("site.test"), combined(written))[0][3]

    @pytest.mark.parametrize("request_line", ["-", "", r"\x16\x03\x01", "GET", r"\x00 /"])
    def test_no_request(self, request_line: str) -> None:
        with pytest.raises(BadLineError, match="no request"):
            Combined("a.test").read(
                f'192.0.2.1 - - [25/Nov/2026:09:00:00 +0000] "{request_line}" 400 0 "-" "-"'
            )

    def test_other_requests(self) -> None:
        lines = Combined()
        assert lines.read(combined("x").replace("GET x", "OPTIONS *")) is None
        tunnel = lines.read(combined("x").replace("GET x", "CONNECT a.test:443"))
        assert tunnel is not None
        assert (tunnel.url, tunnel.tunnel) == ("a.test:443", True)
        with pytest.raises(BadLineError, match="--host"):
            lines.read(combined("/a"))
        old = Combined("a.test").read('192.0.2.1 - - [25/Nov/2026:09:00:00 +0000] "GET /a" 200 5')
        assert old is not None
        assert old.url == "a.test/a"

    @pytest.mark.parametrize(
        ("time", "second"),
        [
            ("25/Nov/2026:09:00:59 +0000", 1795597259),
            ("25/Nov/2026:10:30:00 +0130", 1795597200),
            ("24/Nov/2026:23:00:00 -1000", 1795597200),
            ("01/Jan/1970:00:00:00 +0000", 0),
            ("29/Feb/2024:00:00:00 +0000", 1709164800),
        ],
    )
    def test_times(self, time: str, second: int) -> None:
        assert Combined().second(time) == second

    @pytest.mark.parametrize(
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
            Combined().second(time)


class TestUrls:
    def test_lines(self) -> None:
        text = "http://a.test/b,c\r\nhttps://a.test?d\n a.test \n# remark\n"
        assert rows(Urls(), text) == [
            ("http://a.test", "/b,c", "", ""),
            ("https://a.test", "?d", "", ""),
            ("", "", "", " a.test "),
            ("", "", "", "# remark"),
        ]
        assert Urls().read(" a.test ") == Request(" a.test ")
        assert Urls().read("# remark") is None


class TestCsv:
    def urls(self, text: str, column: int = 1, delimiter: str = ",") -> list[str]:
        return [origin + target + odd for origin, target, _, odd in rows(Csv(delimiter, column), text)]

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
        with pytest.raises(BadLineError, match="no URL in its column"):
            Csv(",", 1).read(none)

    def test_a_quote_that_does_not_end_costs_one_line(self) -> None:
        text = '1,"http://a.test/1\n' + "2,http://a.test/2\n" * (MOST_LINES + 1) + '3,"http://a.test/3"\n'
        assert self.urls(text)[0] == "\0"
        assert self.urls(text)[1:] == ["http://a.test/2"] * (MOST_LINES + 1) + ["http://a.test/3"]

    def test_a_field_without_end(self) -> None:
        text = '1,"' + "x" * 200_000 + "\n2,http://a.test/2\n"
        assert self.urls(text) == ["\0", "http://a.test/2"]

    def test_other_delimiters(self) -> None:
        assert self.urls("http://a.test/b,c;1\n", 0, ";") == ["http://a.test/b,c"]
