"""``--monitor``: what is listed arrives, along every way, and the log has one line for each."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import wait_for
from e2e.conftest import trust
from e2e.support import (
    LIST,
    Authority,
    Filter,
    Nginx,
    RawOrigin,
    client_hello,
    get,
    issuer,
    read_response,
    read_to_end,
    running,
    socks,
    tunnel,
)
from e2e.test_cut import endless
from e2e.test_http2 import encrypted, http2
from e2e.test_tls import ORIGINS, OURS, fetch, https, wrapped


class Way(NamedTuple):
    """All that a request by one way needs."""

    proxy: Filter
    authority: Authority
    origin: Nginx
    raw: RawOrigin


@pytest.fixture(scope="module")
def monitor(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    arguments = ("--monitor", "--other", "relay", *trust(authority))
    folder: Path = tmp_path_factory.mktemp("monitor")
    with running(folder, *arguments, modes=("regular", "socks5")) as proxy:
        yield proxy


def explicit(way: Way, host: str, path: str = "/") -> None:
    assert get(way.proxy.port, f"http://{host}:{way.origin.http}{path}").body == b"origin\n"


def by_address(way: Way) -> None:
    with RawOrigin(host="127.0.0.9") as raw:
        assert get(way.proxy.port, f"http://127.0.0.9:{raw.port}/").body == b"origin\n"


def by_a_name_that_has_a_listed_address(way: Way) -> None:
    with RawOrigin(host="127.0.0.9") as raw:
        assert get(way.proxy.port, f"http://addressed.example:{raw.port}/").body == b"origin\n"


def twice_on_one_connection_to_that_name(way: Way) -> None:
    with RawOrigin(host="127.0.0.9") as raw, tunnel(way.proxy.port, f"addressed.example:{raw.port}") as s:
        for _ in range(2):
            s.sendall(b"GET / HTTP/1.1\r\nHost: addressed.example\r\n\r\n")
            assert read_response(s).body == b"origin\n"
        assert raw.connections == 1


def tls_to_that_name(way: Way) -> None:
    with (
        RawOrigin(lambda s: s.sendall(b"\x16said " + s.recv(100)[:3]), host="127.0.0.9") as raw,
        tunnel(way.proxy.port, f"addressed.example:{raw.port}") as s,
    ):
        s.sendall(client_hello("addressed.example"))
        assert read_to_end(s) == b"\x16said \x16\x03\x01"


def connect_to(way: Way, host: str, path: str = "/") -> None:
    with tunnel(way.proxy.port, f"{host}:{way.origin.http}") as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert read_response(s).body == b"origin\n"


def tls(way: Way, host: str, path: str, whose: str) -> None:
    found, response = https(way.proxy, way.authority, host, way.origin.https, path)
    assert (found, response.body) == (whose, b"origin\n")


def tls_by_address(way: Way, host: str, path: str, whose: str) -> None:
    with (
        socks(way.proxy.ports[1], "127.0.0.1", way.origin.https) as s,
        wrapped(s, way.proxy, way.authority, host) as t,
    ):
        assert issuer(t) == whose
        assert fetch(t, host, path).body == b"origin\n"


def streams(way: Way) -> None:
    with http2(way.proxy, way.authority, way.origin.h2) as client:
        found = [client.start("paged.example", path) for path in ("/listed.html", "/other", "/dir/x")]
        client.until_ended(*found)
        assert [client.body[stream] for stream in found] == [b"origin\n"] * 3


def neither(way: Way, host: str) -> None:
    with (
        RawOrigin(lambda s: s.sendall(b"said " + s.recv(100))) as raw,
        socks(way.proxy.ports[1], host, raw.port) as s,
    ):
        s.sendall(b"SSH-2.0-x\r\n")
        assert read_to_end(s) == b"said SSH-2.0-x\r\n"


WAYS: dict[str, tuple[Callable[[Way], None], list[str]]] = {
    "explicit, unlisted": (lambda w: explicit(w, "plain.example"), []),
    "explicit, host": (lambda w: explicit(w, "blocked.example"), ["E-1"]),
    "explicit, page": (lambda w: explicit(w, "paged.example", "/listed.html"), ["E-2"]),
    "explicit, path sequence": (lambda w: explicit(w, "plain.example", "/gallery/do-not-visit/1"), ["E-5"]),
    "explicit, address": (by_address, ["E-6"]),
    "explicit, address of a name": (by_a_name_that_has_a_listed_address, ["E-6"]),
    "tunnel, address of a name": (twice_on_one_connection_to_that_name, ["E-6", "E-6"]),
    "tunnel with TLS, address of a name": (tls_to_that_name, ["E-6"]),
    "tunnel, host": (lambda w: connect_to(w, "blocked.example"), ["E-1"]),
    "tunnel, page": (lambda w: connect_to(w, "paged.example", "/listed.html"), ["E-2"]),
    "tunnel with TLS, unlisted": (lambda w: tls(w, "plain.example", "/", ORIGINS), []),
    "tunnel with TLS, host": (lambda w: tls(w, "blocked.example", "/", ORIGINS), ["E-1"]),
    "tunnel with TLS, page": (lambda w: tls(w, "paged.example", "/listed.html", OURS), ["E-2"]),
    "TLS, host": (lambda w: tls_by_address(w, "blocked.example", "/", ORIGINS), ["E-1"]),
    "TLS, page": (lambda w: tls_by_address(w, "paged.example", "/listed.html", OURS), ["E-2"]),
    "TLS, other page": (lambda w: tls_by_address(w, "paged.example", "/other", OURS), []),
    "HTTP/2": (streams, ["E-2", "E-3"]),
    "neither, unlisted": (lambda w: neither(w, "plain.example"), []),
    "neither, host": (lambda w: neither(w, "blocked.example"), ["E-1"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_listed_arrives_and_is_told_once(
    monitor: Filter, authority: Authority, origin: Nginx, raw: RawOrigin, way: str
) -> None:
    ask_for, entries = WAYS[way]
    would_block = monitor.blocks_from_here("would-block")
    ask_for(Way(monitor, authority, origin, raw))
    told = would_block()
    assert sorted(line["entry"] for line in told) == entries
    assert all(line["list"] == "list" and line["client"].startswith("127.0.0.1:") for line in told)
    assert monitor.blocks() == []
    # It names no host, path or address that is listed.
    monitor.check_log()


def test_what_cannot_be_read_is_refused(monitor: Filter, raw: RawOrigin) -> None:
    with socks(monitor.ports[1], "127.0.0.1", raw.port) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: blocked.example\r\n\r\n")
        assert read_to_end(s).startswith(b"HTTP/1.1 400 ")
    assert raw.connections == 0


@pytest.mark.parametrize("option", [("--tls-block", "alert"), ("--intercept", "none")])
def test_names_alone(tmp_path: Path, authority: Authority, origin: Nginx, option: tuple[str, str]) -> None:
    with running(tmp_path, "--monitor", *option, modes=("regular", "socks5")) as proxy:
        assert "monitor: nothing is blocked" in proxy.log()
        way = Way(proxy, authority, origin, None)  # type: ignore[arg-type]
        context = authority.client_context()
        for host, entries in (("blocked.example", ["E-1"]), ("plain.example", [])):
            told = proxy.blocks_from_here("would-block")
            with (
                socks(way.proxy.ports[1], "127.0.0.1", origin.https) as s,
                context.wrap_socket(s, server_hostname=host) as t,
            ):
                assert fetch(t, host).body == b"origin\n"
            assert [line["entry"] for line in told()] == entries


def test_what_a_reload_would_cut_goes_on_and_is_told_once(tmp_path: Path, authority: Authority) -> None:
    def change(proxy: Filter, *lines: str) -> None:
        before = proxy.log().count(" in force, ")
        new = proxy.list_file.with_suffix(".new")
        new.write_text(LIST + "".join(f"{line}\n" for line in lines))
        new.replace(proxy.list_file)
        wait_for(lambda: proxy.log().count(" in force, ") > before, "the list to take effect")

    def entries() -> list[str]:
        return [line["entry"] for line in proxy.blocks("would-cut")]

    context = authority.client_context()
    with (
        running(tmp_path, "--monitor", modes=("regular", "socks5")) as proxy,
        RawOrigin(endless) as raw,
        RawOrigin(encrypted(authority, endless)) as origin_of_tls,
        socks(proxy.ports[1], "streamed.example", raw.port) as stream,
        socks(proxy.ports[1], "blocked.example", raw.port) as listed,
        socks(proxy.ports[1], "127.0.0.1", origin_of_tls.port) as plain,
        context.wrap_socket(plain, server_hostname="plain.example") as tls,
    ):
        for s, host in ((stream, "streamed.example"), (listed, "blocked.example"), (tls, "plain.example")):
            s.sendall(f"GET /slow HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert s.recv(12) == b"HTTP/1.1 200"
        change(proxy, "http://streamed.example/slow id=C-1", "plain.example id=C-2")
        wait_for(lambda: len(entries()) == 2, "both to be told")
        change(proxy, "http://streamed.example/slow id=C-1", "plain.example id=C-2", "other.example id=C-3")
        # The sign that the second list has been looked at as well.
        with socks(proxy.ports[1], "other.example", raw.port) as last:
            last.sendall(b"GET /slow HTTP/1.1\r\nHost: other.example\r\n\r\n")
            assert last.recv(12) == b"HTTP/1.1 200"
            change(proxy)
            for s in (stream, listed, tls):
                assert s.recv(1)
        assert sorted(entries()) == ["C-1", "C-2"]
        assert [line["entry"] for line in proxy.blocks("would-block")] == ["E-1", "C-3"]
        assert re.search(r" cut client=", proxy.log()) is None
