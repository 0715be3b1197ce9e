"""The addon in mitmdump, mitmweb and mitmproxy, loaded as the documentation says."""

import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

from conftest import accepts, free_port, in_turns, wait_for
from e2e.conftest import trust
from e2e.support import (
    LIST,
    Authority,
    Filter,
    Nginx,
    RawOrigin,
    ask,
    environment,
    filters_authority,
    get,
    read_to_end,
    socks,
    status_of,
)
from e2e.test_tls import OURS, https

BIN = Path(sys.executable).parent


@cache
def script() -> str:
    line = [sys.executable, "-m", "urlward", "script"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def tool(name: str, folder: Path, *arguments: str, path: str = "", wait: bool = True) -> Iterator[Filter]:
    """A mitmproxy tool with the script, in a terminal of its own."""
    (folder / "list.txt").write_text(LIST)
    shutil.copytree(filters_authority(), folder / "confdir")
    port = free_port()
    line = [
        str(BIN / name), "-s", path or script(), "--set", f"urlward_list={folder / 'list.txt'}",
        "--set", f"confdir={folder / 'confdir'}", "--listen-host", "127.0.0.1", "--listen-port", str(port),
        *arguments,
    ]  # fmt: skip
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 120))
    process = subprocess.Popen(
        line, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env=environment(TERM="xterm-256color"),
    )  # fmt: skip
    os.close(slave)
    out = (folder / "stdout").open("wb")

    def drain() -> None:
        with suppress(OSError), out:
            while data := os.read(master, 65536):
                out.write(data)
                out.flush()

    threading.Thread(target=drain, daemon=True).start()
    proxy = Filter(process, folder, [port])
    proxy.terminal = master  # type: ignore[attr-defined]
    try:
        wait_for(lambda: process.poll() is not None or accepts(port), f"{name} to listen")
        assert process.poll() is None, proxy.log()
        if wait:
            # Before its list is loaded, the addon closes what comes.
            wait_for(lambda: closed_or_status(proxy, "http://blocked.example/") == 451, "the addon")
        yield proxy
    finally:
        proxy.stop()
        with suppress(OSError):
            os.close(master)


def type_in(proxy: Filter, text: str) -> None:
    os.write(proxy.terminal, text.encode())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", in_turns("mitmdump", "mitmweb", "mitmproxy", of=3))
def test_it_filters(name: str, tmp_path: Path, authority: Authority, origin: Nginx, raw: RawOrigin) -> None:
    more = ["--no-web-open-browser", "--web-port", str(free_port())] if name == "mitmweb" else []
    with tool(name, tmp_path, *trust(authority), *more) as proxy:
        for _ in range(2):
            assert get(proxy.port, f"http://blocked.example:{raw.port}/").status == 451
            assert get(proxy.port, f"http://plain.example:{origin.http}/").body == b"origin\n"
            whose, response = https(proxy, authority, "plain.example", origin.https)
            assert (whose != OURS, response.status) == (True, 200)
            whose, response = https(proxy, authority, "paged.example", origin.https, "/listed.html")
            assert (whose, response.status) == (OURS, 451)
            connect_to = f"CONNECT blocked.example:{raw.port} HTTP/1.1\r\n\r\n"
            assert ask(proxy.port, connect_to).status == 451
        assert raw.connections == 0
        # Changed at run time, the list is in force within seconds.
        proxy.list_file.write_text(LIST + "plain.example id=X-1\n")
        wait_for(lambda: status_of(proxy.port, f"http://plain.example:{origin.http}/") == 451, "the list")
        assert proxy.stop() == 0


def test_another_addon_sees_bodies_and_changes_them(tmp_path: Path, origin: Nginx) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "def response(flow):\n"
        "    flow.response.headers['X-Seen'] = str(len(flow.response.content))\n"
        "    flow.response.content = flow.response.content.upper()\n"
    )
    safe = ("--set", "connection_strategy=lazy", "--set", "rawtcp=false")
    with tool("mitmdump", tmp_path, "-s", str(other), *safe) as proxy:
        response = get(proxy.port, f"http://plain.example:{origin.http}/")
        assert (response.headers["x-seen"], response.body) == ("7", b"ORIGIN\n")
        assert get(proxy.port, "http://blocked.example/").status == 451
        assert "a listed host is contacted" not in proxy.log(), "what mitmdump does by default is not so here"


@pytest.mark.parametrize("name", in_turns("mitmproxy", "mitmdump"))
def test_live_reload_of_the_script(name: str, tmp_path: Path, origin: Nginx) -> None:
    copy = tmp_path / "urlward_script.py"
    shutil.copy(script(), copy)
    with tool(name, tmp_path, path=str(copy)) as proxy:
        for n in range(1, 3):
            stat, new = copy.stat(), copy.with_suffix(".new")
            new.write_text(copy.read_text() + f"\nprint('loaded again, {n}')\n")
            os.utime(new, (stat.st_atime, stat.st_mtime + 5 * n))
            new.replace(copy)  # not by and by: half of it would be no addon
            if name == "mitmdump":
                wait_for(lambda n=n: f"loaded again, {n}" in proxy.log(), "the script")  # type: ignore[misc]
            for _ in range(20):
                assert get(proxy.port, "http://blocked.example/").status == 451
        # What watches the list is the new one, and it is one.
        proxy.list_file.write_text(LIST + "plain.example id=X-1\n")
        wait_for(lambda: status_of(proxy.port, f"http://plain.example:{origin.http}/") == 451, "the list")
        assert "Traceback" not in proxy.log()


def test_without_a_usable_list_everything_is_refused(tmp_path: Path, origin: Nginx) -> None:
    """mitmproxy's own tools keep running where an addon's options are wrong, once they have started."""
    copy = tmp_path / "urlward_script.py"
    shutil.copy(script(), copy)
    with tool("mitmdump", tmp_path, path=str(copy)) as proxy:
        url = f"http://plain.example:{origin.http}/"
        assert get(proxy.port, url).status == 200
        proxy.list_file.unlink()
        stat = copy.stat()
        os.utime(copy, (stat.st_atime, stat.st_mtime + 5))
        wait_for(lambda: "No such file" in proxy.log(), "the fault")
        assert closed_or_status(proxy, url) in (0, 503)
        assert len(origin.requests(1)) == 1


def closed_or_status(proxy: Filter, url: str) -> int:
    try:
        return get(proxy.port, url).status
    except ConnectionError:
        return 0


def test_mitmdump_says_which_of_its_defaults_are_not_safe(tmp_path: Path) -> None:
    with tool("mitmdump", tmp_path) as proxy:
        for option in ("connection_strategy=lazy", "rawtcp=false"):
            wait_for(lambda option=option: option in proxy.log(), option)  # type: ignore[misc]
        assert "a listed host is contacted" in proxy.log()


def test_mitmdump_with_its_own_defaults_tunnels_nothing_unread(tmp_path: Path, raw: RawOrigin) -> None:
    with tool("mitmdump", tmp_path, "--mode", "socks5", wait=False) as proxy:
        wait_for(lambda: "in force" in proxy.log(), "the list")
        for data in (
            b"\r\nGET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"\x16\x03",
        ):
            with socks(proxy.port, "127.0.0.1", raw.port) as s:
                s.sendall(data)
                s.shutdown(1)
                read_to_end(s)
        assert bytes(raw.received) == b""


def test_options_changed_in_mitmproxys_console(tmp_path: Path, origin: Nginx) -> None:
    with tool("mitmproxy", tmp_path) as proxy:
        type_in(proxy, ":set urlward_status=403\r")
        wait_for(lambda: get(proxy.port, "http://blocked.example/").status == 403, "the status")
        type_in(proxy, ":set urlward_list=/no/such/list\r")
        type_in(proxy, ":set urlward_status=451\r")
        wait_for(lambda: get(proxy.port, "http://blocked.example/").status == 451, "the status")
        (tmp_path / "other.txt").write_text("plain.example id=O-1\n")
        type_in(proxy, f":set urlward_list={tmp_path / 'other.txt'}\r")
        url = f"http://plain.example:{origin.http}/"
        wait_for(lambda: status_of(proxy.port, url) == 451, "the other list")


def test_the_reload_command_and_options_in_mitmweb(tmp_path: Path) -> None:
    web = free_port()
    more = ["--no-web-open-browser", "--web-port", str(web), "--set", "web_password=open"]
    with tool("mitmweb", tmp_path, *more) as proxy:

        def call(method: str, path: str, body: object) -> int:
            request = urllib.request.Request(
                f"http://127.0.0.1:{web}{path}",
                json.dumps(body).encode(),
                {
                    "Content-Type": "application/json",
                    "Authorization": "Bearer open",
                    # mitmproxy 12.2 has Tornado's name for it, later ones a name of their own.
                    "Cookie": "_xsrf=abcdef; _mitmproxy_xsrf=abcdef",
                    "X-XSRFToken": "abcdef",
                },
                method=method,
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return int(response.status)
            except urllib.error.HTTPError as e:
                return e.code

        count = proxy.log().count("in force")
        assert call("POST", "/commands/urlward.reload", {"arguments": []}) == 200
        wait_for(lambda: proxy.log().count("in force") > count, "the reload")
        assert call("PUT", "/options", {"urlward_status": 403}) == 200
        assert get(proxy.port, "http://blocked.example/").status == 403
        assert call("PUT", "/options", {"urlward_list": ["/no/such/list"]}) == 400
        assert call("PUT", "/options", {"urlward_intercept": "sometimes"}) == 400
        assert get(proxy.port, "http://blocked.example/").status == 403
