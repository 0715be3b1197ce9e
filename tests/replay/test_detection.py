import re
from dataclasses import replace
from typing import Any

import pytest

from replay.replay_support import LOGS, combined, squid
from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.replay.formats import FORMATS, LogFormat, detect


def log_format(kind: str, **known: Any) -> LogFormat:
    return replace(FORMATS[kind], **known)


def found(text: str, **known: str) -> LogFormat:
    return detect(text.encode(errors="surrogateescape"), "LOG", **known)


@each_row(
    ("name", "expected"),
    [
        ("squid.log", log_format("squid")),
        ("vhost_combined.log", log_format("vhost_combined")),
        ("host.log", log_format("vhost_combined")),
        ("log.har", log_format("har")),
        ("log.csv", log_format("csv", delimiter=";", column=2, heading=True)),
        ("urls.txt", log_format("urls")),
        ("crlf.txt", log_format("urls")),
    ],
)
def test_the_sample_logs(name: str, expected: LogFormat) -> None:
    assert detect((LOGS / name).read_bytes(), name) == expected


class TestCombined:
    def test_lines_without_a_host_need_one(self) -> None:
        text = (LOGS / "combined.log").read_text()
        with pytest.raises(
            UrlwardError, match="LOG: its lines name no host; say which it is with --host NAME"
        ):
            found(text)
        with pytest.raises(UrlwardError, match="--host NAME"):
            found(text, kind="combined")
        assert found(text, site="a.test") == log_format("combined", site="a.test")

    def test_those_of_a_proxy_do_not(self) -> None:
        text = "\n".join([combined("http://a.test/b")] * 3 + [combined("/c")]) + "\n"
        assert found(text) == log_format("combined")

    def test_a_user_with_a_blank_is_no_host(self) -> None:
        text = combined("http://a.test/b").replace("- - [", "- Jo Doe [") + "\n"
        assert found(text) == log_format("combined")


class TestCsv:
    def test_by_a_heading(self) -> None:
        assert found("id,URL\n1,a.test\n") == log_format("csv", column=1, heading=True)
        assert found("id\tref_url\tpage_url\n1\t-\ta.test\n") == log_format(
            "csv", delimiter="\t", column=2, heading=True
        )
        assert found('"url","n"\n"http://a.test/x,y","1"\n') == log_format("csv", heading=True)

    def test_without_one(self) -> None:
        assert found("1,http://a.test/\n2,http://a.test/b\n") == log_format("csv", column=1)
        assert found("http://a.test/\t1\nhttp://a.test/b\t2\n") == log_format("csv", delimiter="\t")
        assert found('# id,link\n"1","http://a.test/x,y"\n"2","http://a.test/"\n') == log_format(
            "csv", column=1
        )

    def test_a_list_of_urls_with_commas_is_none(self) -> None:
        assert found("http://a.test/b,c\nhttp://a.test/\nhttp://a.test/d,e,f\n") == log_format("urls")

    def test_what_could_be_either_is_asked_for(self) -> None:
        text = "http://a.test/b,1\nhttp://a.test/c,2\n"
        with pytest.raises(UrlwardError, match="--format urls or --column 1"):
            found(text)
        assert found(text, kind="urls") == log_format("urls")
        assert found(text, column="1") == log_format("csv")

    def test_by_the_column_that_is_named(self) -> None:
        text = "a|b|c\nhttp://a.test/|http://b.test/|1\n"
        assert found(text, column="B") == log_format("csv", delimiter="|", column=1, heading=True)
        assert found(text, column="2") == log_format("csv", delimiter="|", column=1, heading=True)
        assert found("a.test\nb.test\n", column="1", kind="csv").column == 0
        for column in ("d", "4", "0", "3"):
            with pytest.raises(UrlwardError, match=f"LOG: no column '{column}' with URLs in it"):
                found(text, column=column)

    def test_no_column_with_urls(self) -> None:
        with pytest.raises(UrlwardError, match="no column with URLs found"):
            found("a,b\n1,2\n", kind="csv")


class TestUrls:
    def test_a_heading(self) -> None:
        assert found("url\nhttp://a.test/b,c\na.test\n") == log_format("urls", heading=True)

    def test_hosts_are_urls(self) -> None:
        assert found("a.test\nb.test:443\n") == log_format("urls")


class TestUnknown:
    @each_row(
        "text",
        [
            "<!DOCTYPE html>\n<html>\n",
            "some words\nand more of them\n",
            "word\n",
            "x" * 70_000,
            '{"a": 1}\n{"a": 2}\n',
        ],
    )
    def test_no_log(self, text: str) -> None:
        with pytest.raises(UrlwardError, match=r"LOG: not a log that is known here \(squid, .*--format"):
            found(text)

    def test_binary_data(self) -> None:
        with pytest.raises(UrlwardError, match="LOG: binary data"):
            detect(b"\x7fELF\0\0", "LOG")
        with pytest.raises(UrlwardError, match="UTF-16"):
            detect("http://a.test/\n".encode("utf-16"), "LOG")

    def test_a_known_kind_is_not_doubted(self) -> None:
        assert found("some words\n", kind="squid") == log_format("squid")

    @each_row("text", ["", "\n\n", "# only remarks\n"])
    def test_nothing_is_nothing(self, text: str) -> None:
        assert found(text) == log_format("urls")
        assert found(text, kind="squid") == log_format("squid")


def test_damaged_lines_do_not_hide_the_kind() -> None:
    text = "\n".join(
        [
            squid("http://a.test/"),
            "junk",
            squid("error:x"),
            squid("http://a.test/"),
            squid("a.test:443", "CONNECT"),
        ]
    )
    assert found(text + "\ncut of") == log_format("squid")


def test_messages_have_nothing_of_the_log() -> None:
    for text in (
        "secret.test secret\n" * 3,
        "http://secret.test/a,b\n" * 2,
        '192.0.2.1 - - [x] "GET /secret HTTP/1.1" 200 5\n' * 3,
    ):
        with pytest.raises(UrlwardError) as raised:
            found(text)
        assert not re.search("secret|192", str(raised.value))
