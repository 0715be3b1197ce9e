"""Requests that an attacker found to reach the listed page, and the same without their trick."""

from mitmproxy import http
from mitmproxy.proxy.context import Context
from mitmproxy.test import taddons, tflow

from engine.support import matcher
from rows import each_row
from urlward.config import PageTable
from urlward.proxy.block_page import BlockPage, BlockResponse
from urlward.proxy.guard import Guard

LINES = ("http://page.test/listed.html", "http://page.test/dir/*", "whole.test", "*/seq/one/*")


def status(host: str, path: str) -> int:
    lists = matcher(*LINES)
    guard = Guard(lambda: lists, BlockPage(PageTable()))
    request = http.Request.make("GET", "http://page.test/", headers={})
    request.data.host, request.data.authority = "", b""
    request.data.path = path.encode("latin-1")
    request.headers["Host"] = host
    with taddons.context() as tctx:
        answer = guard.answer(request, Context(tflow.tclient_conn(), tctx.options))
    return answer.status if isinstance(answer, BlockResponse) else 200


@each_row(
    "path",
    [
        "/a%5cb/../listed.html",
        "/a\\b/../listed.html",
        "/a%252fb/../listed.html",
        "/dir/%252e%252e/../a.html",
        "/dir/x%252f..%252f../../a.html",
        "/seq/one/%252e%252e/../a.html",
        "/seq/%252e%252e/../one/a.html",
    ],
)
def test_dot_segments_behind_what_origins_unescape_once(path: str) -> None:
    assert status("page.test", path) == 451
    assert status("page.test", path.replace("listed", "fine").replace("dir", "d").replace("seq", "s")) == 200


@each_row(
    "host",
    [
        "page.test:@other.test",
        "page.test:80@other.test",
        "page.test:x@other.test:80",
        "page.test:@",
        "u@page.test",
    ],
)
def test_user_information_in_a_host_is_refused(host: str) -> None:
    assert status(host, "/listed.html") == 400


@each_row("path", ["https://page.test/listed.html", "x://page.test/", "listed.html"])
def test_a_path_that_could_be_more_is_refused(path: str) -> None:
    assert status("other.test", path) == 400
