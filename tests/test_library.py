"""The library: what other programs use of urlward, and the examples of its page."""

import asyncio
import hashlib
import logging
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import urlward
from conftest import wait_for
from docs.documents import DOCS, blocks
from urlward import library
from urlward.engine.digest import Key, format_key
from urlward.lists.build import compile_sources

LIST = "blocked.example category=phishing id=L-1\nhttp://paged.example/page id=L-2\n@@fine.blocked.example\n"
CONFIG = """\
list = ["list.txt"]

[[group]]
name = "pupils"
networks = ["192.0.2.0/24"]
[[group.rule]]
categories = ["phishing"]
action = "block"
schedule = "lessons"

[[rule]]
categories = ["phishing"]
action = "monitor"

[schedule.lessons]
zone = "UTC"
days = ["mon"]
from = "08:00"
to = "12:00"
"""
PUPIL, LESSON, BREAK = (
    "192.0.2.7",
    datetime(2026, 11, 23, 9, tzinfo=UTC),
    datetime(2026, 11, 23, 13, tzinfo=UTC),
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text(LIST)
    return path


def test_a_url_and_a_host_are_decided_on(source: Path, compiles_here: None) -> None:
    wards = urlward.Filter.load(source, follow=False)
    verdict = wards.check("http://blocked.example/")
    assert verdict.blocked
    assert (verdict.list, verdict.category, verdict.entry, verdict.kind) == (
        "list",
        "phishing",
        "L-1",
        "domain",
    )
    assert wards.check(b"http://paged.example/%70age").blocked
    assert not wards.check("http://paged.example/other").blocked
    assert wards.check("http://fine.blocked.example/").action == "allow"
    assert wards.check_host("blocked.example:443").blocked
    assert not wards.check_host("paged.example").blocked
    for text in ("", "http://", "http://[/", "http://blocked.example/\ud800"):
        with pytest.raises(urlward.UrlError):
            wards.check(text)
    # A byte that is none of UTF-8, as mitmproxy and WSGI hand it over.
    assert wards.check("http://blocked.example/\udcff").blocked


def test_a_file_is_decided_on_by_digests_alone_that_could_be_listed(
    tmp_path: Path, compiles_here: None
) -> None:
    source, made = tmp_path / "files.txt", hashlib.sha256(b"listed")
    source.write_text(f"sha256:{made.hexdigest()} id=F-1\n")
    wards = urlward.Filter.load(source, follow=False)
    assert wards.check_file({"sha256": made.digest(), "md5": bytes(16)}).entry == "F-1"
    assert wards.check_file({"sha256": bytearray(made.digest())}).blocked
    assert wards.check_file({"sha1": bytes(20)}).action == "pass", "an algorithm that no list has"
    assert wards.check_file({}).action == "pass"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"SHA256": made.digest()}, "'SHA256': no algorithm: sha256, sha1, md5"),
        ({"pdq": bytes(32)}, "'pdq': no algorithm: sha256, sha1, md5"),
        ({"sha256": made.digest()[:20]}, "sha256: not a digest, which has 32 bytes"),
        ({"sha256": made.hexdigest()}, "sha256: not a digest, which has 32 bytes"),
        ({"sha256": None}, "sha256: not a digest, which has 32 bytes"),
    ]
    for digests, says in wrong:
        with pytest.raises(urlward.UrlwardError, match=f"^{re.escape(says)}$"):
            wards.check_file(digests)


def test_a_configurations_policy_counts_for_a_client_and_a_time(source: Path, compiles_here: None) -> None:
    config = source.with_name("urlward.toml")
    config.write_text(CONFIG)
    wards = urlward.Filter.load(config=config, follow=False)
    url = "http://blocked.example/"
    assert wards.check(url, PUPIL, LESSON).action == "block"
    assert wards.check(url, PUPIL, LESSON.replace(tzinfo=None)).action == "block"
    assert wards.check(url, PUPIL, BREAK.timestamp()).action == "pass"
    assert wards.check(url, "198.51.100.1", LESSON).action == "monitor"
    assert wards.check(url, at=LESSON).action == "monitor"


def test_an_artifact_is_read_under_its_key(source: Path, tmp_path: Path) -> None:
    key = Key(b"library-key-with-32-bytes-------")
    data, _ = compile_sources([source], key, name="sealed")
    (tmp_path / "list.ward").write_bytes(data)
    with pytest.raises(urlward.UrlwardError, match="needs its key"):
        urlward.Filter.load(tmp_path / "list.ward")
    (tmp_path / "key").write_bytes(format_key(key.secret))
    wards = urlward.Filter.load(tmp_path / "list.ward", key=tmp_path / "key", follow=False)
    assert wards.check("http://blocked.example/").list == "sealed"
    for trust in ("d7" * 32, ["d7" * 32]):  # one key is no sequence of letters
        with pytest.raises(urlward.UrlwardError, match="not signed, trusted: d7d7"):
            urlward.Filter.load(tmp_path / "list.ward", key=tmp_path / "key", trust=trust, follow=False)


def test_bad_lines_are_allowed_as_said(source: Path, compiles_here: None) -> None:
    source.write_text(LIST + "not an entry\n")
    assert urlward.Filter.load(source, max_errors=1, follow=False).check("http://blocked.example/").blocked
    for number in (0, "0"):
        with pytest.raises(urlward.UrlwardError, match="could not be read"):
            urlward.Filter.load(source, max_errors=number)


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        ((), {}, "no list"),
        (("absent.txt",), {}, "absent.txt: No such file"),
        ((), {"config": "absent.toml"}, "absent.toml"),
        (("list.txt",), {"max_errors": "many"}, "max_errors"),
        (("list.txt",), {"format": "odd"}, "odd"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(
    source: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], more: dict[str, str], says: str
) -> None:
    monkeypatch.chdir(source.parent)
    with pytest.raises(urlward.UrlwardError, match=says) as raised:
        urlward.Filter.load(*arguments, **more)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("follow", [True, False])
def test_a_reload_is_in_force_and_a_bad_one_leaves_the_last_good_one(
    source: Path, compiles_here: None, follow: bool
) -> None:
    async def reload() -> None:
        wards.reload()

    with urlward.Filter.load(source, follow=follow) as wards:
        source.write_text("other.example\n")
        asyncio.run(reload())
        assert wards.check("http://other.example/").blocked
        assert not wards.check("http://blocked.example/").blocked
        source.write_text("<html>not a list</html>\n")
        with pytest.raises(urlward.UrlwardError, match=r"list list: .*web page"):
            wards.reload()
        assert wards.check("http://other.example/").blocked


@pytest.mark.parametrize("follow", [True, False])
def test_several_lists_are_reloaded_again_and_again(source: Path, compiles_here: None, follow: bool) -> None:
    others = [source.with_name(f"other{n}.txt") for n in range(3)]
    for other in others:
        other.write_text("other.example\n")
    wards = urlward.Filter.load(source, *others, follow=follow)
    for number in range(3):
        if number == 2:
            wards.close()  # after which a reload is as without a thread
        source.write_text(f"changed{number}.example\n")
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(wards.reload) for _ in range(4)]:
                done.result(60)
        assert wards.check(f"http://changed{number}.example/").blocked


@pytest.mark.parametrize("follow", [True, False])
def test_a_list_is_freed_when_no_decision_goes_by_it(source: Path, compiles_here: None, follow: bool) -> None:
    with urlward.Filter.load(source, follow=follow) as wards, ThreadPoolExecutor(1) as pool:
        (old,) = wards.keeper.matcher.lists
        source.write_text("other.example\n")
        with wards._lock:  # as a decision holds it
            done = pool.submit(wards.reload)
            wait_for(lambda: wards.keeper.matcher.lists[0] is not old, "the changed list")
            with pytest.raises(TimeoutError):
                done.result(0.2)
            assert old.artifact.sections
        done.result(60)
        assert not old.artifact.sections


def test_a_thread_that_cannot_begin_is_an_error(
    source: Path, compiles_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: object) -> asyncio.AbstractEventLoop:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(library, "_Loop", none)
    with pytest.raises(urlward.UrlwardError, match="cannot be followed: Too many open files"):
        urlward.Filter.load(source)


def test_a_changed_list_comes_into_force_by_itself(source: Path, compiles_here: None) -> None:
    with urlward.Filter.load(source) as wards:
        source.write_text("other.example\n")
        wait_for(lambda: wards.check("http://other.example/").blocked, "the changed list")
        thread = threading.active_count()
    assert threading.active_count() < thread
    assert wards.check("http://other.example/").blocked  # what is in force stays so
    wards.close()


def test_threads_share_a_filter(source: Path, compiles_here: None) -> None:
    config = source.with_name("urlward.toml")
    config.write_text(CONFIG)

    def ask(number: int) -> tuple[str, str]:
        client = f"192.0.2.{number % 200}" if number % 2 else f"198.51.100.{number % 200}"
        listed = wards.check("http://blocked.example/", client, LESSON).action
        return listed, wards.check(f"http://n{number}.example/", client, LESSON).action

    with urlward.Filter.load(config=config) as wards, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(4000)))
    assert found == [("block" if number % 2 else "monitor", "pass") for number in range(4000)]


_ENDING = """\
import atexit, sys, time, urlward
wards = urlward.Filter.load(sys.argv[1])
with open(sys.argv[1], "a") as file:
    file.write("other.example\\n")
feed = wards.keeper._kept[0].named.feed
while feed._process is None:
    time.sleep(0.01)
atexit.register(time.sleep, 0.5)  # in which the end of the refresh is known
"""


def test_a_program_may_end_while_a_list_is_taken_in(source: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ENDING, source], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_FORKED = """\
import os, signal, sys, urlward
wards = urlward.Filter.load(sys.argv[1], follow=sys.argv[2] == "True")
wards.reload()
wards._lock.acquire()  # as by a decision of another thread
if (child := os.fork()) == 0:
    signal.alarm(30)
    url, host = lambda: wards.check("http://blocked.example/"), lambda: wards.check_host("a.example")
    for ask in (url, host, wards.reload):
        try:
            ask()
        except urlward.UrlwardError as e:
            assert "before a fork" in str(e)
        else:
            sys.exit("decided")
    wards.close()
    sys.exit()
wards._lock.release()
_, status = os.waitpid(child, 0)
assert not status, status
wards.reload()
assert wards.check("http://blocked.example/").blocked
"""


@pytest.mark.parametrize("follow", [True, False])
def test_what_was_loaded_before_a_fork_raises_behind_it(source: Path, follow: bool) -> None:
    """A lock may be held there, nobody takes changes in, and its end takes nothing from the other."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKED, source, str(follow)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_package_says_what_it_has_and_imports_nothing_before(source: Path) -> None:
    script = (
        "import sys, urlward\n"
        "assert not {m for m in sys.modules if m.startswith('urlward.')}, sys.modules\n"
        "assert {'Filter', 'Verdict', '__version__'} < set(dir(urlward))\n"
        "assert urlward.__version__ and {'Filter', 'Verdict', 'UrlError'} < set(urlward.__all__)\n"
        "assert all(getattr(urlward, name) for name in urlward.__all__)\n"
        "assert 'mitmproxy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    with pytest.raises(AttributeError, match="nothing"):
        urlward.nothing  # noqa: B018


EXAMPLES = {
    block.text.partition("\n")[0].removeprefix("# "): block.text
    for block in blocks(DOCS / "library.md", "python")
}


def loaded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": name}
    exec(compile(EXAMPLES[name], name, "exec"), found)
    return found


@pytest.fixture
def here(source: Path, monkeypatch: pytest.MonkeyPatch, compiles_here: None) -> None:
    monkeypatch.chdir(source.parent)


def test_the_first_example(here: None, capsys: pytest.CaptureFixture[str]) -> None:
    loaded("import urlward")
    assert capsys.readouterr().out == "True list phishing L-1\n"


@pytest.mark.parametrize(("path", "status"), [("/page", "451"), ("/other", "200")])
def test_the_wsgi_example(here: None, path: str, status: str) -> None:
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {"HTTP_HOST": "paged.example", "PATH_INFO": path}
    setup_testing_defaults(environ)
    said: list[str] = []
    example = loaded("wsgi_filter.py")
    with example["wards"]:
        list(example["application"](environ, lambda status, headers: said.append(status)))
    assert said[0].startswith(status)


@pytest.mark.parametrize(
    ("hosts", "path", "status"),
    [
        (["paged.example"], b"/page", 451),
        (["paged.example", "other.example"], b"/page", 451),
        (["other.example", "paged.example"], b"/page", 451),
        ([], b"/page", 451),
        (["paged.example"], b"/other", 200),
    ],
)
def test_the_asgi_example(here: None, hosts: list[str], path: bytes, status: int) -> None:
    scope = {
        "headers": [(b"host", host.encode()) for host in hosts],
        "raw_path": path,
        "query_string": b"",
        "client": ("::1", 1),
    }
    said: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    example = loaded("asgi_filter.py")
    with example["wards"]:
        asyncio.run(example["application"](scope, None, send))
    assert said[0]["status"] == status


def test_the_mitmproxy_example(here: None) -> None:
    from mitmproxy.test import tflow

    example = loaded("mitmproxy_filter.py")
    with example["wards"]:
        for path, authority, hosts, sni, blocked in (
            ("/page", "", ["paged.example"], None, True),
            ("/other", "", ["paged.example"], "paged.example", False),
            ("/page", "", ["other.example"], "", False),
            # Each name that an origin may go by.
            ("/page", "paged.example", ["other.example"], None, True),
            ("/page", "", ["other.example", "paged.example"], None, True),
            ("/page", "", ["other.example"], "paged.example", True),
            # What cannot be judged.
            ("/." * 1025 + "/page", "", ["paged.example"], None, True),
        ):
            flow = tflow.tflow()
            flow.request.url = f"http://192.0.2.1{path}"
            flow.request.authority = authority
            flow.client_conn.sni = sni
            flow.request.headers.clear()
            for host in hosts:
                flow.request.headers.add("Host", host)
            example["request"](flow)
            assert (flow.response is not None) == blocked, (path[-5:], authority, hosts, sni)


def test_every_example_is_tried() -> None:
    assert sorted(EXAMPLES) == ["asgi_filter.py", "import urlward", "mitmproxy_filter.py", "wsgi_filter.py"]


def test_a_bad_list_is_in_the_log(
    source: Path, caplog: pytest.LogCaptureFixture, compiles_here: None
) -> None:
    with caplog.at_level(logging.WARNING, "urlward.lists"), urlward.Filter.load(source) as wards:
        source.write_text("<html>not a list</html>\n")
        wait_for(lambda: "web page" in caplog.text, "the line")
        assert wards.check("http://blocked.example/").blocked
