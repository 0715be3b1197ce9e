import fcntl
import io
import json
import logging
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from conftest import Done, wait_for
from lists.support import HTML, OTHER_SECRET, PICTURE, SECRET, SENTINEL, artifact, key_file, names_in
from urlward import cli
from urlward.commands import check as check_commands
from urlward.commands import lists
from urlward.engine.artifact import parse
from urlward.engine.digest import format_key
from urlward.feeds import refresh as feed_refresh
from urlward.plan import FIRST, PLANS, WORKER
from urlward.proxy import runner, workers
from urlward.proxy.settings import Settings
from urlward.samples import SAMPLE

COMMAND = [sys.executable, "-m", "urlward"]


type Urlward = Callable[..., Done]


@pytest.fixture
def urlward(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, compiles_here: None
) -> Urlward:
    """Runs a command line in this process; `stdin` is what it reads."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised:
            cli.main([str(argument) for argument in arguments])
        assert type(raised.value.code) is int
        return Done(raised.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a.example id=A-1 category=phishing\n@@http://a.example/ok id=A-2\nb.example\n")
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "list.ward"


@pytest.fixture(autouse=True)
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def spawn(*arguments: str | Path, **kwargs: object) -> "subprocess.Popen[bytes]":
    """A process whose output is buffered, as it is for users."""
    command = [*COMMAND, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    return subprocess.Popen(command, **{**pipes, **kwargs})  # type: ignore[call-overload, no-any-return]


class TestCompile:
    def test_makes_an_artifact_and_a_key_beside_it(
        self, urlward: Urlward, source: Path, output: Path
    ) -> None:
        done = urlward("compile", source, "-o", output)
        assert (done.code, done.err) == (0, "")
        assert names_in(output.parent) == ["list.ward", "list.ward.key"]
        key = output.with_name("list.ward.key")
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        made = parse(output.read_bytes())
        assert (made.meta["name"], made.meta["entries"]) == ("list", 3)
        assert done.out.startswith(f"{output}: 3 entries, 0 equal ones left out, 0 bad lines, ")
        assert done.out.endswith(f"new key {made.header.key_id.hex()} in {key}\n")
        assert urlward("check", "--list", output, "b.example").code == 1

    def test_entries_that_have_expired_are_told(self, urlward: Urlward, source: Path, output: Path) -> None:
        source.write_text("a.example expires=2020-01-31\nb.example expires=2149-01-31\nc.example\n")
        done = urlward("compile", source, "-o", output)
        assert done.out.startswith(f"{output}: 3 entries (1 expired), 0 equal ones left out, ")

    def test_a_second_time_the_key_stays(self, urlward: Urlward, source: Path, output: Path) -> None:
        urlward("compile", source, "-o", output)
        key = output.with_name("list.ward.key").read_bytes()
        source.write_text("c.example\n")
        done = urlward("compile", source, "-o", output, "--name", "other")
        assert done.code == 0
        assert "new key" not in done.out
        assert output.with_name("list.ward.key").read_bytes() == key
        assert parse(output.read_bytes()).meta["name"] == "other"
        assert urlward("check", "--list", output, "c.example").code == 1

    def test_under_a_key_given(self, urlward: Urlward, source: Path, output: Path, tmp_path: Path) -> None:
        key = key_file(tmp_path / "key")
        done = urlward("compile", source, source, "-o", output, "--key", key)
        assert (done.code, done.err) == (0, "")
        assert ": 3 entries, 3 equal ones left out, " in done.out
        assert names_in(output.parent) == ["list.ward"]
        assert key.read_bytes() == format_key(SECRET)
        assert urlward("check", "--key", key, "--list", output, "a.example").code == 1

    def test_of_another_format(self, urlward: Urlward, source: Path, output: Path) -> None:
        source.write_text("No;Link\n7;http://a.example/x\n8;ftp://a.example/x\n")
        how = ("--format", "csv", "--column", "url=link", "--column", "id=no", "--delimiter", ";")
        done = urlward("compile", source, "-o", output, *how, "--category", "phishing")
        assert (done.code, done.err) == (0, "")
        assert ": 1 entry, 0 equal ones left out, 0 bad lines, 1 of a kind that cannot be taken, " in done.out
        done = urlward("check", "--list", output, "http://a.example/x")
        assert done.out == "block  http://a.example/x  kind=page id=7 category=phishing list=list\n"
        (source.parent / "liste_blanche").mkdir()
        allowed = source.parent / "liste_blanche" / "domains"
        allowed.write_text("b.example\n")
        (source.parent / "urls").write_text("a.example/x\n")
        done = urlward("compile", source.parent, "-o", output, "--format", "squidguard")
        assert (done.code, done.err.startswith(f"{allowed}:1:1: a folder of what is allowed")) == (0, True)
        assert urlward("check", "--list", source.parent, "http://a.example/").problem == (
            f"{source.parent}: not a regular file: only compile, import and feeds take a folder"
        )
        assert urlward("compile", source, "-o", output, "--delimiter", ";").problem == (
            "delimiter: needs a format to be said, such as csv"
        )

    def test_an_import_is_a_source(self, urlward: Urlward, source: Path, output: Path) -> None:
        done = urlward("import", "--format", "hosts", "-", "-o", source, stdin=b"0.0.0.0 a.example\n")
        assert (done.code, done.out) == (0, "")
        assert urlward("compile", source, "-o", output).code == 0
        assert urlward("check", "--list", output, "a.example").code == 1

    def test_a_key_given_is_not_made(self, urlward: Urlward, source: Path, output: Path) -> None:
        missing = output.with_name("key")
        assert urlward("compile", source, "-o", output, "--key", missing).problem == (
            f"{missing}: No such file or directory"
        )
        assert names_in(output.parent) == []

    def test_bad_lines_are_told_and_counted(self, urlward: Urlward, source: Path, output: Path) -> None:
        source.write_text("a.example\n" * 300 + f"{SENTINEL}\na.example port=x {SENTINEL}=1\n")
        done = urlward("compile", source, "-o", output)
        assert done.code == 0
        first, second = done.err.splitlines()
        assert first.startswith(f"{source}:301:1: ")
        assert second.startswith(f"{source}:302:16: port is a number")
        assert ", 2 bad lines, " in done.out
        assert SENTINEL not in done.out + done.err

    def test_more_than_a_hundred_are_counted(self, urlward: Urlward, source: Path, output: Path) -> None:
        source.write_text("a.example\n" + "?\n" * 150)
        done = urlward("compile", source, "-o", output, "--max-errors", "150")
        assert done.code == 0
        assert len(done.err.splitlines()) == 101
        assert done.err.endswith("… and 50 more\n")

    def test_too_many_bad_lines_write_nothing(self, urlward: Urlward, source: Path, output: Path) -> None:
        source.write_text(f"a.example\n{SENTINEL}\n?\n")
        done = urlward("compile", source, "-o", output)
        assert done.code == 2
        lines = done.err.splitlines()
        assert [line[: len(f"{source}:2:1: ")] for line in lines[:2]] == [
            f"{source}:2:1: ",
            f"{source}:3:1: ",
        ]
        assert lines[2].startswith(
            f"urlward: {source}: 2 of 3 lines could not be read, allowed are 1%; first: {source}:2:1: "
        )
        assert len(lines) == 3
        assert names_in(output.parent) == []
        assert SENTINEL not in done.err
        assert done.out == ""

    @pytest.mark.parametrize(("content", "reason"), [(HTML, "web page"), (PICTURE, "binary"), (b"", "empty")])
    def test_no_list_leaves_what_was_there(
        self, urlward: Urlward, source: Path, output: Path, content: bytes, reason: str
    ) -> None:
        urlward("compile", source, "-o", output)
        before = {path.name: path.read_bytes() for path in output.parent.iterdir()}
        source.write_bytes(content)
        assert reason in urlward("compile", source, "-o", output).problem
        assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == before

    def test_a_full_disk_leaves_nothing_new(
        self, urlward: Urlward, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> NoReturn:
            raise OSError(28, "No space left on device")

        key_file(output.with_name("list.ward.key"))
        monkeypatch.setattr(os, "fsync", full)
        assert urlward("compile", source, "-o", output).problem == f"{output}: No space left on device"
        assert names_in(output.parent) == ["list.ward.key"]

    def test_ctrl_c_leaves_nothing(
        self, urlward: Urlward, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object, **__: object) -> NoReturn:
            raise KeyboardInterrupt

        monkeypatch.setattr(lists, "compile_sources", interrupted)
        assert urlward("compile", source, "-o", output) == (130, "", "")
        assert names_in(output.parent) == []

    def test_neither_source_nor_key_is_overwritten(
        self, urlward: Urlward, source: Path, tmp_path: Path
    ) -> None:
        key = key_file(tmp_path / "key")
        (tmp_path / "link").symlink_to(source)
        before = source.read_bytes()
        for target in (source, key, tmp_path / "link", tmp_path / "out" / ".." / "key"):
            done = urlward("compile", source, "-o", target, "--key", key)
            assert done.problem == f"{target}: is read from, and would be overwritten"
        assert source.read_bytes() == before
        assert key.read_bytes() == format_key(SECRET)

    def test_only_an_artifact_is_replaced(self, urlward: Urlward, source: Path, tmp_path: Path) -> None:
        """A mistyped name, or two in the wrong order, must not cost a list, a key or a configuration."""
        key, other, empty = key_file(tmp_path / "key"), tmp_path / "other", tmp_path / "empty"
        other.write_text("listed.example\n")
        empty.touch()
        done = urlward("compile", source, "-o", other, "--key", key)
        assert done.problem == f"{other}: there already, and of another kind: it is not overwritten"
        assert other.read_text() == "listed.example\n"
        for _ in range(2):
            assert urlward("compile", source, "-o", empty, "--key", key).code == 0

    @pytest.mark.parametrize("target", [".", "/", "none/x.ward", "out"])
    def test_where_nothing_can_be_written(
        self, urlward: Urlward, source: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        key = key_file(tmp_path / "key")
        assert urlward("compile", source, "-o", target, "--key", key).problem.startswith(f"{target}: ")
        assert urlward("compile", source, "-o", target).problem
        assert names_in(tmp_path) == ["key", "list.txt", "out"]

    @pytest.mark.parametrize("value", ["x", "-1", "200%", ""])
    def test_a_bad_budget(self, urlward: Urlward, source: Path, output: Path, value: str) -> None:
        done = urlward("compile", source, "-o", output, f"--max-errors={value}")
        assert done.problem == f"max-errors: {value!r} is not a count such as 25, or a share such as 1%"
        assert names_in(output.parent) == []

    def test_names_that_are_not_text(self, urlward: Urlward, tmp_path: Path, output: Path) -> None:
        source = tmp_path / os.fsdecode(b"l\xffst.txt")
        source.write_text("a.example\n?\n")
        done = urlward("compile", source, "-o", output, "--max-errors", "1")
        assert done.code == 0
        assert "l\\udcffst.txt:2:1: " in done.err
        assert json.loads(urlward("info", "--json", output).out)["name"] == r"l\udcffst"
        assert urlward("check", "--list", output, "a.example").code == 1

    def test_a_name_that_no_list_can_have(self, urlward: Urlward, source: Path, output: Path) -> None:
        strange = source.with_name("a\x1b[2J\nb.txt")
        strange.write_bytes(source.read_bytes())
        assert urlward("compile", strange, "-o", output).code == 0
        assert r"a\x1b[2J\nb" in urlward("info", output).out
        assert urlward("compile", source, "--name", "c\x07", "-o", output).code == 0
        assert r"c\x07" in urlward("info", output).out
        assert urlward("check", "--list", strange, "a.example").code == 1


class TestCheck:
    def test_words(self, urlward: Urlward, source: Path) -> None:
        done = urlward(
            "check", "--list", source, "http://a.example/x", "a.example/ok", "c.example", "http://"
        )
        assert (done.code, done.err) == (2, "")
        assert done.out.splitlines() == [
            "block  http://a.example/x  kind=domain id=A-1 category=phishing list=list",
            "allow  a.example/ok  kind=page id=A-2 list=list",
            "pass   c.example",
            "error  http://  no host",
        ]

    def test_json_is_one_object_a_url_in_order(self, urlward: Urlward, source: Path) -> None:
        urls = [
            "http://A.example:80/x/../y?q#f",
            "a.example/ok",
            "https://c.example",
            "http://[::1/",
            "b.example",
        ]
        done = urlward("check", "--json", "--list", source, *urls)
        assert (done.code, done.err) == (2, "")
        found = [json.loads(line) for line in done.out.splitlines()]
        unnamed = found[4].pop("id")
        assert re.fullmatch("[0-9a-f]{16}", unnamed)  # an entry without an id goes by its digest
        assert found == [
            {
                "url": urls[0],
                "canonical": "a.example/y?q",
                "verdict": "block",
                "kind": "domain",
                "id": "A-1",
                "category": "phishing",
                "list": "list",
            },
            {
                "url": urls[1],
                "canonical": "a.example/ok",
                "verdict": "allow",
                "kind": "page",
                "id": "A-2",
                "category": "",
                "list": "list",
            },
            {"url": urls[2], "canonical": "c.example/", "verdict": "pass"},
            {"url": urls[3], "canonical": "", "verdict": "error", "error": "not a valid host"},
            {
                "url": urls[4],
                "canonical": "b.example/",
                "verdict": "block",
                "kind": "domain",
                "category": "",
                "list": "list",
            },
        ]
        assert [list(one)[:3] for one in found] == [["url", "canonical", "verdict"]] * 5

    @pytest.mark.parametrize(
        ("dates", "year", "said"),
        [
            (["--valid-from", "2199-06-01"], 2198, "valid from 2199-06-01T00:00:00Z, which is to come"),
            (
                ["--valid-until", "2199-06-01"],
                2200,
                "expired at 2199-06-02T00:00:00Z, and the 7 days of grace are over",
            ),
        ],
    )
    def test_dates_of_an_artifact_are_told_and_hold_where_it_is_signed(
        self,
        urlward: Urlward,
        source: Path,
        output: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        dates: list[str],
        year: int,
        said: str,
    ) -> None:
        now = datetime(year, 12, 1, tzinfo=UTC).timestamp()
        clock = SimpleNamespace(time=lambda: now, monotonic=time.monotonic)
        monkeypatch.setattr(feed_refresh, "time", clock)
        signing = source.with_name("body")
        urlward("keygen", "--signing", "-o", signing)
        assert urlward("compile", source, "-o", output, "--sign", signing, *dates).code == 0
        assert urlward("check", "--list", output, "b.example").code == 1
        assert f"list {output}: {said}" in caplog.text
        assert "taken, since no trust is set" in caplog.text
        problem = urlward("check", "--list", output, "--trust", f"{signing}.pub", "b.example").problem
        assert problem.startswith(f"{output}: {said}")

    @pytest.mark.parametrize(
        ("urls", "code"),
        [
            (["c.example"], 0),
            (["a.example/ok"], 0),
            (["c.example", "b.example", "c.example"], 1),
            (["http://", "c.example"], 2),
            (["b.example", "ftp://c.example/", "b.example"], 2),
        ],
        ids=["pass", "allow", "block", "error", "error and block"],
    )
    def test_exit_codes(self, urlward: Urlward, source: Path, urls: list[str], code: int) -> None:
        assert urlward("check", "--list", source, *urls).code == code
        assert urlward("check", "--json", "--list", source, *urls).code == code

    def test_several_lists_and_the_first_to_hit_is_named(self, urlward: Urlward, source: Path) -> None:
        other = source.with_name("other.txt")
        other.write_text("c.example\n")
        done = urlward("check", "--list", source, "--list", other, "c.example", "b.example")
        assert [line.rpartition(" list=")[2] for line in done.out.splitlines()] == ["other", "list"]

    def test_the_sample_where_no_list_is_given(self, urlward: Urlward) -> None:
        done = urlward("check", "http://blocked.example/", "http://blocked.example/about")
        assert done.code == 1
        assert "id=S-1" in done.out
        assert f"list={SAMPLE.stem}" in done.out

    def test_a_dash_reads_standard_input_where_it_stands(self, urlward: Urlward, source: Path) -> None:
        done = urlward(
            "check", "--json", "--list", source, "one.example", "-", "two.example",
            stdin=b"a.example\r\n\n  \nc.example\nd.example",
        )  # fmt: skip
        assert done.code == 1
        assert [json.loads(line)["url"] for line in done.out.splitlines()] == [
            "one.example", "a.example", "c.example", "d.example", "two.example",
        ]  # fmt: skip

    def test_input_that_is_not_text(self, urlward: Urlward, source: Path) -> None:
        lines = b"http://c.example/caf\xe9\nhttp://c.example/caf\xc3\xa9\n\xff\xfe\nb.example\n"
        done = urlward("check", "--json", "--list", source, "-", stdin=lines)
        found = [json.loads(line) for line in done.out.splitlines()]
        assert [one["canonical"] for one in found][:2] == ["c.example/caf%E9", "c.example/caf%C3%A9"]
        assert [one["verdict"] for one in found][:2] == ["pass", "pass"]
        assert found[3]["verdict"] == "block"
        assert done.out.isascii()
        assert urlward("check", "--list", source, "-", stdin=lines).code == done.code

    def test_nothing_on_standard_input(self, urlward: Urlward, source: Path) -> None:
        assert urlward("check", "--list", source, "-") == (0, "", "")
        shown = urlward("check", "--list", source, "-", stdin=b"http://a.example/\x1b[2J\n").out
        assert shown.startswith(r"block  http://a.example/\x1b[2J "), "as a log may have it"

    def test_the_wrong_key_says_so(self, urlward: Urlward, output: Path, tmp_path: Path) -> None:
        output.write_bytes(artifact(["a.example"]))
        wrong = key_file(tmp_path / "wrong", OTHER_SECRET)
        problem = urlward("check", "--key", wrong, "--list", output, "a.example").problem
        assert problem.startswith(f"{output}: compiled under key ")
        assert OTHER_SECRET.hex() not in problem

    def test_an_artifact_without_its_key(self, urlward: Urlward, output: Path) -> None:
        output.write_bytes(artifact(["a.example"]))
        assert "an artifact needs its key" in urlward("check", "--list", output, "a.example").problem

    def test_bad_lists(self, urlward: Urlward, source: Path, tmp_path: Path) -> None:
        for content, reason in (
            (HTML, "web page"),
            (b"", "empty"),
            (f"a.example\n{SENTINEL}\n".encode(), "1 of 2"),
        ):
            source.write_bytes(content)
            problem = urlward("check", "--list", source, "a.example").problem
            assert problem.startswith(f"{source}: {reason}"[: len(f"{source}: ")])
            assert reason in problem
            assert SENTINEL not in problem
        assert "No such file" in urlward("check", "--list", tmp_path / "none", "a.example").problem
        strange = urlward("check", "--list", tmp_path / "\x1b[2Jnone\n", "a.example").problem
        assert strange.endswith(r"\x1b[2Jnone\n: No such file or directory")
        assert "not a regular file" in urlward("check", "--list", tmp_path, "a.example").problem

    def test_more_bad_lines_where_they_are_allowed(
        self, urlward: Urlward, source: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        source.write_text(f"a.example\n{SENTINEL}\n")
        assert urlward("check", "--max-errors", "50%", "--list", source, "a.example").code == 1
        assert "1 of 2 lines could not be read" in caplog.text
        assert SENTINEL not in caplog.text


class TestInfo:
    def test_says_what_the_artifact_says(self, urlward: Urlward, output: Path) -> None:
        data = artifact(["a.example category=phishing", "b.example", "http://c.example/x"], name="feed")
        output.write_bytes(data)
        done = urlward("info", "--json", output)
        assert (done.code, done.err) == (0, "")
        header = parse(data).header
        assert json.loads(done.out) == {
            "name": "feed",
            "serial": 1,
            "created": "2023-11-14T22:13:20Z",
            "key": header.key_id.hex(),
            "entries": 3,
            "kinds": {"domain": 2, "page": 1},
            "categories": {"(none)": 2, "phishing": 1},
            "bytes": len(data),
            "checksum": header.checksum.hex(),
            "signed": False,
            "signer": "-",
            "signature": "none",
            "valid_from": "-",
            "valid_until": "-",
        }
        words = urlward("info", output)
        assert words.code == 0
        assert "kinds       domain 2, page 1\n" in words.out

    def test_needs_no_key_and_shows_no_entry(self, urlward: Urlward, output: Path) -> None:
        output.write_bytes(artifact([f"{SENTINEL}.example", "192.0.2.7"], OTHER_SECRET))
        done = urlward("info", output)
        assert done.code == 0
        assert SENTINEL not in done.out
        assert "192.0.2" not in done.out

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"a.example\n", "not a .ward file"),
            (b"", "not a .ward file"),
            (artifact(["a.example"])[:-1], "bytes where the header says"),
            (artifact(["a.example"])[:-1] + b"x", "checksum"),
            (artifact(["a.example"]).replace(b"\n\x01\0", b"\n\x02\0", 1), "update urlward"),
        ],
        ids=["source", "empty", "cut", "damaged", "newer"],
    )
    def test_what_is_wrong(self, urlward: Urlward, output: Path, content: bytes, reason: str) -> None:
        output.write_bytes(content)
        problem = urlward("info", output).problem
        assert problem.startswith(f"{output}: ")
        assert reason in problem

    def test_what_cannot_be_read(self, urlward: Urlward, output: Path) -> None:
        assert urlward("info", output).problem == f"{output}: No such file or directory"
        assert urlward("info", output.parent).problem == f"{output.parent}: not a regular file"

    def test_a_date_out_of_the_calendar(
        self, urlward: Urlward, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = parse(artifact(["a.example"]))
        forged = real._replace(header=real.header._replace(created=2**64 - 1))
        output.write_bytes(artifact(["a.example"]))
        monkeypatch.setattr(lists, "parse", lambda _: forged)
        assert json.loads(urlward("info", "--json", output).out)["created"] == str(2**64 - 1)


class TestKeygen:
    def test_makes_a_key_once(self, urlward: Urlward, out: Path) -> None:
        path = out / "key"
        done = urlward("keygen", "-o", path)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"{path}: key ")
        content = path.read_bytes()
        assert content.decode().strip() not in done.out
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert urlward("keygen", "-o", path).problem == f"{path}: there already, and is never overwritten"
        assert path.read_bytes() == content

    def test_where_none_can_be_made(self, urlward: Urlward, out: Path) -> None:
        assert "No such file" in urlward("keygen", "-o", out / "none" / "key").problem
        assert urlward("keygen", "-o", out).code == 2
        assert names_in(out) == []


@pytest.mark.parametrize("words", [["run", "--lsten", "x"], ["gateway", "up", "--lsten"], ["script", "more"]])
def test_what_a_command_does_not_know_comes_with_its_usage(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(words)
    assert raised.value.code == 2
    command = " ".join(word for word in words if word in ("run", "gateway", "up", "script"))
    said = capsys.readouterr().err
    assert said.startswith(f"usage: urlward {command} ")
    assert f"urlward {command}: error: unrecognized arguments: " in said


def test_script_is_a_file_with_the_addon(urlward: Urlward) -> None:
    done = urlward("script")
    assert (done.code, done.err) == (0, "")
    path = Path(done.out.removesuffix("\n"))
    assert path.is_absolute()
    assert "addons = [" in path.read_text()


class TestRun:
    @pytest.fixture
    def first_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """This process is the first worker of a supervisor that nobody needs."""
        monkeypatch.setenv(WORKER, "0")
        monkeypatch.setenv(PLANS, FIRST)
        monkeypatch.setattr(workers, "offer", lambda _: None)

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch, first_worker: None) -> list[Settings]:
        """What its runner was asked to do, instead of doing it."""
        asked: list[Settings] = []
        monkeypatch.setattr(runner, "run", lambda settings, *_: asked.append(settings))
        return asked

    def test_as_it_comes(self, urlward: Urlward, asked: list[Settings]) -> None:
        done = urlward("run")
        assert (done.code, done.err) == (0, "")
        assert done.out == f"filtering with the sample, {SAMPLE}\n"
        [settings] = asked
        assert settings.lists == (SAMPLE,)
        assert settings.modes == ("regular",)
        assert settings.listen == ("127.0.0.1", 8080)
        assert (settings.confdir, settings.extra) == ("", ())
        assert settings.options == {
            "urlward_format": "auto",
            "urlward_max_errors": "1%",
            "urlward_intercept": "listed",
            "urlward_http2": True,
            "urlward_tls_block": "page",
            "urlward_other": "close",
            "urlward_on_error": "block",
            "urlward_status": 451,
            "urlward_monitor": False,
        }

    def test_the_file_says_all(self, urlward: Urlward, asked: list[Settings], tmp_path: Path) -> None:
        config = self.config(tmp_path)
        done = urlward("run", "--config", config)
        assert done == (0, "", "")
        [settings] = asked
        assert settings.lists == (tmp_path / "a.txt", tmp_path / "b.txt")
        assert settings.modes == ("transparent", "socks5@8082")
        assert settings.listen == ("::1", 8081)
        assert settings.confdir == str(tmp_path / "ca")
        assert settings.extra == ("upstream_cert=false", "stream_large_bodies=1m")
        assert settings.options == {
            "urlward_format": "auto",
            "urlward_max_errors": "25",
            "urlward_intercept": "all",
            "urlward_http2": True,
            "urlward_tls_block": "alert",
            "urlward_other": "relay",
            "urlward_on_error": "pass",
            "urlward_status": 403,
            "urlward_monitor": False,
            "urlward_config": str(config),
            "urlward_key": str(tmp_path / "key"),
        }

    def test_flags_go_before_the_file(
        self,
        urlward: Urlward,
        asked: list[Settings],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        key_file(tmp_path / "k")
        done = urlward(
            "run", "--config", self.config(tmp_path), "--list", "c.txt", "--key", "k", "--max-errors", "0",
            "--mode", "regular", "--listen", "192.0.2.1:0", "--intercept", "none", "--on-error", "block",
            "--tls-block", "page", "--other", "close", "--no-http2",
            "--status", "451", "--confdir", "d", "--set", "upstream_cert=true",
        )  # fmt: skip
        assert done == (0, "", "")
        [settings] = asked
        assert settings.lists == (Path("c.txt"),)
        assert settings.modes == ("regular",)
        assert settings.listen == ("192.0.2.1", 0)
        assert settings.confdir == "d"
        assert settings.extra[-1] == "upstream_cert=true"
        assert settings.options == {
            "urlward_format": "auto",
            "urlward_max_errors": "0",
            "urlward_intercept": "none",
            "urlward_http2": False,
            "urlward_tls_block": "page",
            "urlward_other": "close",
            "urlward_on_error": "block",
            "urlward_status": 451,
            "urlward_monitor": False,
            "urlward_config": str(tmp_path / "urlward.toml"),
            "urlward_key": "k",
        }

    @staticmethod
    def config(folder: Path) -> Path:
        path = folder / "urlward.toml"
        for name in ("a.txt", "b.txt", "c.txt"):
            (folder / name).touch()
        key_file(folder / "key")
        path.write_text(
            """
            list = ["a.txt", "b.txt"]
            key = "key"
            max_errors = "25"
            mode = ["transparent", "socks5@8082"]
            listen = "[::1]:8081"
            intercept = "all"
tls_block = "alert"
http2 = true
other = "relay"
            on_error = "pass"
            status = 403
            confdir = "ca"
            mitmproxy = { upstream_cert = false, stream_large_bodies = "1m" }
            """
        )
        return path

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("127.0.0.1:8080", ("127.0.0.1", 8080)),
            ("[2001:db8::1]:1", ("2001:db8::1", 1)),
            (":65535", ("", 65535)),
            ("localhost:0", ("localhost", 0)),
        ],
    )
    def test_listen(
        self, urlward: Urlward, asked: list[Settings], text: str, address: tuple[str, int]
    ) -> None:
        assert urlward("run", "--listen", text).code == 0
        assert asked[0].listen == address

    @pytest.mark.parametrize(
        "text",
        ["8080", "127.0.0.1", "[::1]", "a:", "a:b", "a:65536", "a:-1", "a:\u0661", "a:" + "9" * 5000, ":"],
    )
    def test_what_is_no_address(self, urlward: Urlward, asked: list[Settings], text: str) -> None:
        problem = urlward("run", "--list", "x", f"--listen={text}").problem
        assert problem == f"listen: {text!r} is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080"
        assert asked == []

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("lists = []", "lists: no such key"),
            ("status = 404", "status: input should be 451 or 403"),
            ("[page]\nhelp = [{label = 'x'}]", "page.help.0.url: this key is needed"),
            ("listen = '8080'", "listen: '8080' is not HOST:PORT"),
            ("max_errors = 'x'", "max_errors: 'x' is not a count"),
            ("status", "not TOML"),
        ],
    )
    def test_a_bad_file_is_named_with_the_key(
        self, urlward: Urlward, asked: list[Settings], tmp_path: Path, text: str, part: str
    ) -> None:
        path = tmp_path / "urlward.toml"
        path.write_text(text)
        assert urlward("run", "--list", "x", "--config", path).problem.startswith(f"{path}:")
        assert f": {part}" in urlward("run", "--list", "x", "--config", path).problem
        assert asked == []

    def test_no_file(self, urlward: Urlward, tmp_path: Path) -> None:
        path = tmp_path / "none.toml"
        assert urlward("run", "--config", path).problem == f"{path}: No such file or directory"

    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            (["--list", "none.txt"], "none.txt: No such file or directory"),
            (["--list", "html"], "html: a web page"),
            (["--list", "x.ward"], "x.ward: an artifact needs its key"),
            (["--list", "list.txt", "--key", "none"], "none: No such file"),
            (["--list", "list.txt", "--set", "no_such_option=1"], "no_such_option"),
            (["--list", "list.txt", "--mode", "no-such-mode"], "no-such-mode"),
        ],
        ids=lambda value: value[-1] if isinstance(value, list) else None,
    )
    @pytest.mark.usefixtures("first_worker")
    def test_what_keeps_it_from_starting(
        self,
        urlward: Urlward,
        source: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: list[str],
        part: str,
    ) -> None:
        monkeypatch.chdir(source.parent)
        Path("html").write_bytes(HTML)
        Path("x.ward").write_bytes(artifact(["a.example"]))
        assert part in urlward("run", "--confdir", "ca", "--listen", "127.0.0.1:0", *arguments).problem


class TestArguments:
    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["frobnicate"],
            ["run", "--lis", "x"],
            ["run", "--status", "404"],
            ["run", "--intercept", "some"],
            ["run", "--on-error", "allow"],
            ["run", "--workers", "many"],
            ["compile", "x"],
            ["compile", "-o", "x"],
            ["info"],
            ["keygen"],
        ],
        ids=" ".join,
    )
    def test_what_is_not_understood(self, urlward: Urlward, arguments: Sequence[str]) -> None:
        done = urlward(*arguments)
        assert done.code == 2
        assert "error: " in done.err
        assert "Traceback" not in done.err
        assert done.out == ""

    @pytest.mark.parametrize("command", ["", "run", "compile", "check", "info", "keygen", "script"])
    def test_help(self, urlward: Urlward, command: str) -> None:
        done = urlward(*command.split(), "--help")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("usage: urlward")

    def test_compile_into_a_folder_that_is_not_there(
        self, urlward: Urlward, source: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "none" / "list.ward"
        done = urlward("compile", str(source), "-o", str(output))
        assert done.problem == f"{output}: there is no folder {output.parent}"

    def test_a_bug_is_one_line_and_not_the_exit_code_of_a_hit(
        self, urlward: Urlward, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def bug(*_: object) -> NoReturn:
            raise ValueError(f"unexpected {SENTINEL}")

        monkeypatch.setattr(check_commands.Checker, "check", bug)
        problem = urlward("check", "a.example").problem
        assert problem.startswith("a bug: ValueError at test_cli.py:")
        assert SENTINEL not in problem


CLOSE = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-"}


class TestProcess:
    """Whole processes, for what only they have: exit codes, pipes, signals, terminals."""

    def test_compile_check_info(self, source: Path, output: Path) -> None:
        def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [*COMMAND, *map(str, arguments)],
                capture_output=True,
                text=True,
                check=False,
                cwd=output.parent,
            )

        assert run("compile", source, "-o", "list.ward").returncode == 0
        checked = run("check", "--json", "--list", "list.ward", "a.example", "c.example")
        assert checked.returncode == 1
        assert [json.loads(line)["verdict"] for line in checked.stdout.splitlines()] == ["block", "pass"]
        assert json.loads(run("info", "--json", "list.ward").stdout)["entries"] == 3
        refused = run("info", source)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(f"urlward: {source}: not a .ward file")
        assert refused.stderr.count("\n") == 1

    def test_a_reader_that_has_had_enough(self, source: Path) -> None:
        with spawn("check", "--list", source, "-", stdin=subprocess.PIPE) as process:
            assert process.stdin and process.stdout and process.stderr  # noqa: PT018
            process.stdout.close()
            process.stdin.write(b"b.example\n" * 100)
            process.stdin.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141

    def test_streams_that_another_program_has_left_not_to_wait(self, source: Path) -> None:
        """As node does. What is not there yet is no end, and what has no room yet is not lost."""
        (theirs, ours), (shown, end) = os.pipe(), os.pipe()
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4_096)
        for fd in (theirs, end):
            os.set_blocking(fd, False)
        with spawn("check", "--list", source, "b.example", "-", stdin=theirs, stdout=end) as process:
            os.close(theirs)
            os.close(end)
            with os.fdopen(ours, "wb") as to, os.fdopen(shown, "rb") as lines:
                to.write(b"c.example\n" * 2_000)
                to.close()
                room = bytearray(4)
                wait_for(
                    lambda: (
                        fcntl.ioctl(shown, termios.FIONREAD, room) == 0
                        and int.from_bytes(room, sys.byteorder)
                    ),
                    "it to fill the pipe",
                )
                assert len(lines.readlines()) == 2_001
            assert process.stderr
            assert process.stderr.read() == b""
        assert process.returncode == 1

    def test_a_full_disk_behind_standard_output(self, source: Path) -> None:
        with (
            Path("/dev/full").open("wb") as full,
            spawn("check", "--list", source, "b.example", stdout=full) as process,
        ):
            assert process.stderr
            assert process.stderr.read() == b"urlward: No space left on device\n"
        assert process.returncode == 2

    def test_ctrl_c(self, source: Path) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        arguments = ["check", "--json", "--list", str(source), "b.example", "-"]
        with spawn(*arguments, stdin=subprocess.PIPE, env=environment) as process:
            assert process.stdin and process.stdout and process.stderr  # noqa: PT018
            process.stdin.write(b"c.example\n")
            process.stdin.flush()
            # Both answers are out: the list is loaded, and it waits for more.
            assert [json.loads(process.stdout.readline())["verdict"] for _ in range(2)] == ["block", "pass"]
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == b""
            assert process.wait() == 130

    @pytest.mark.parametrize("closed", CLOSE)
    def test_a_closed_stream(self, source: Path, closed: str) -> None:
        shell = f'"$@" {CLOSE[closed]}'
        for arguments, code in (("check", "--list", source, "b.example", "-"), 1), (("import", source), 0):
            done = subprocess.run(
                ["/bin/sh", "-c", shell, "sh", *COMMAND, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            assert done.returncode == code
            assert b"bad lines" not in done.stdout, "what goes to standard error is among no output"
            assert (b"" if code else b"bad lines") in done.stderr or closed == "stderr"

    def test_a_terminal_that_knows_ascii_alone(self, source: Path) -> None:
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
        with spawn("check", "--list", source, "http://ä.b.example/€", env=environment) as process:
            out, err = process.communicate()
        assert err == b""
        assert out.startswith(b"block  http://\\xe4.b.example/\\u20ac  kind=")
        assert process.returncode == 1

    def test_short_work_on_a_terminal_shows_no_bar(self, source: Path) -> None:
        ours, theirs = pty.openpty()
        try:
            with spawn("check", "--list", source, "b.example", stderr=theirs) as process:
                out, _ = process.communicate()
            os.close(theirs)
            theirs = -1
            try:
                shown = os.read(ours, 1000)
            except OSError:  # how Linux says that a terminal has nothing more to show
                shown = b""
        finally:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)
        assert process.returncode == 1
        assert out.startswith(b"block")
        assert shown == b""


@pytest.mark.parametrize(
    "command",
    ["feeds status", "audit verify", "audit list", "allow --list", "objections list", "records status"],
)
def test_what_shows_a_state_folder_says_where_it_is_none(
    urlward: Urlward, tmp_path: Path, command: str
) -> None:
    (tmp_path / "c.toml").write_text(
        '[[feed]]\nname = "a"\nurl = "http://a.example/"\n[records.days]\nblocks = 1\noperations = 1\n'
    )
    none, file = tmp_path / "none", tmp_path / "c.toml"
    for state, why in ((none, "No such file or directory"), (file, "Not a directory")):
        done = urlward(*command.split(), "--config", tmp_path / "c.toml", "--state", state)
        assert done.problem == f"{state}: {why}"
        assert not done.out
    assert not none.exists()
