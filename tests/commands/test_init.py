"""``urlward init``: what it writes can be used, asks no more than it has to, and overwrites nothing."""

import os
import pty
import re
import select
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from e2e import support
from rows import each_row
from urlward import cli
from urlward.commands import init
from urlward.commands.init import KINDS, NAME, configuration
from urlward.config import read_config
from urlward.gateway.ca import authority
from urlward.state.folder import KEY_FILE

pytestmark = pytest.mark.usefixtures("compiles_here")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as raised:
        cli.main(["init", *map(str, arguments)])
    assert isinstance(raised.value.code, int)
    return raised.value.code


@each_row("kind", KINDS)
def test_a_configuration_can_be_used_and_has_what_goes_with_it(tmp_path: Path, kind: str) -> None:
    source = tmp_path / 'a "list".txt'
    source.write_text("blocked.example\n")
    folder, operator = tmp_path / "new" / "etc", 'The "Example" net\n'
    at = "eth1" if kind == "provider" else "proxy.example"
    assert run(folder, "--for", kind, "--operator", operator, "--list", source, "--at", at, "--no-test") == 0
    config = read_config(folder / NAME)
    assert config.page.operator == operator.strip()
    assert config.list == (str(source),)
    assert config.records is not None
    assert config.records.days.blocks == 30
    assert config.records.privacy == ("full" if kind == "school" else "short")
    assert (config.gateway.interfaces == ("eth1",)) == (kind == "provider")
    assert (config.proxy.pac is not None) == (kind != "provider")
    assert (folder / "state/admin.token").stat().st_mode & 0o077 == 0
    assert (folder / "state" / KEY_FILE).exists()
    assert "Example" in authority(folder / "ca").certificate.subject.rfc4514_string()
    if kind != "provider":  # whose rules are not in the kernel
        done = support.urlward("run", "--check", "--config", folder / NAME)
        assert done.stdout.splitlines()[0] == "configuration ok", done.stderr


def test_it_ends_with_where_the_dashboard_is_and_what_is_blocked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "list.txt"
    source.write_text("blocked.example\n")
    assert run(tmp_path / "one", "--for", "office", "--no-test") == 0
    said = capsys.readouterr().out
    config = read_config(tmp_path / "one" / NAME)
    assert config.admin is not None
    assert f"http://{config.admin.listen}/" in said
    assert str(tmp_path / "one/state/admin.token") in said
    assert "sample" in said
    assert "urlward help install   # as a service, which reads /etc/urlward/urlward.toml" in said
    assert run(tmp_path / "two", "--for", "office", "--no-test", "--days", 0, "--list", source) == 0
    said = capsys.readouterr().out
    assert "dashboard is at" not in said
    assert "sample" not in said


def test_a_url_is_a_feed_and_no_days_keep_nothing() -> None:
    made = tomllib.loads(configuration("office", "us", "https://hotline.example/list.ward", "gw", 0))
    assert made["feed"] == [{"name": "list", "url": "https://hotline.example/list.ward", "interval": "1h"}]
    assert "records" not in made
    assert "admin" not in made


def test_what_stands_in_a_schools_comments_can_be_used(tmp_path: Path) -> None:
    text = configuration("school", "us", "", "proxy.example", 30)
    comments = text[text.index("# [[group]]") : text.index("[page]")]
    (tmp_path / NAME).write_text(re.sub(r"^# ", "", comments, flags=re.MULTILINE))
    config = read_config(tmp_path / NAME)
    assert (config.group[0].name, len(config.rule), list(config.schedule)) == ("classrooms", 1, ["lessons"])


NO_MACHINE = "is no name or address of a machine, without port"


@each_row(
    ("more", "says"),
    [
        ([], "--for: say for whom: school, office, provider"),
        (["--for", "office", "--at", "bad name"], f"--at: 'bad name' {NO_MACHINE}"),
        (["--for", "office", "--at", "a.example:80"], f"--at: 'a.example:80' {NO_MACHINE}"),
        (["--for", "provider", "--at", "eth 0"], "--at: 'eth 0' is no interface"),
        (["--for", "provider", "--at", "lo"], "--at: 'lo' is not the name of an interface of clients"),
        (["--for", "office", "--operator", "a\x1b[31m"], "--operator: holds a control character"),
        (["--for", "office", "--days", "-1"], "--days: not a number from 0 to 3650"),
        (["--for", "office", "--list", "absent.txt"], "--list: absent.txt: there is no such file"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert run(tmp_path, *more) == 2
    assert capsys.readouterr().err == f"urlward: {says}\n"
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / NAME).write_text("mine")
    assert run(tmp_path, "--for", "office") == 2
    assert "there already" in capsys.readouterr().err
    assert (tmp_path / NAME).read_text() == "mine"


def test_what_it_could_not_finish_is_taken_back(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    assert run(tmp_path, "--for", "office", "--no-test") == 2
    assert not (tmp_path / NAME).exists()
    (tmp_path / "state").unlink()
    assert run(tmp_path, "--for", "office", "--no-test") == 0


def test_a_list_that_no_start_would_take_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = tmp_path / "list.txt", tmp_path / "new"
    source.write_text("<!DOCTYPE html>\n<html></html>\n")
    line = (folder, "--for", "office", "--at", "proxy.example", "--list", source, "--no-test")
    assert run(*line) == 2
    assert capsys.readouterr().err == f"urlward: {source}: a web page or XML, not a list (a login page?)\n"
    assert not (folder / NAME).exists()
    source.write_text("blocked.example\n")
    assert run(*line) == 0, "once it is mended the same command does"
    assert support.urlward("run", "--check", "--config", folder / NAME).returncode == 0
    assert (
        run(tmp_path / "fed", "--for", "office", "--list", "https://unreachable.test/list", "--no-test") == 0
    ), "what is to be fetched may not be there yet"


def test_this_machine_trusts_the_certificate_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    certificates, tools, called = tmp_path / "certificates", tmp_path / "bin", tmp_path / "called"
    certificates.mkdir()
    tools.mkdir()
    (tools / "update-ca-certificates").write_text(f"#!/bin/sh\n: >{called}\n")
    (tools / "update-ca-certificates").chmod(0o755)
    monkeypatch.setattr(init, "SYSTEM_CERTIFICATES", certificates)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert run(tmp_path / "one", "--for", "office", "--no-test") == 0
    assert not list(certificates.iterdir())
    assert run(tmp_path / "two", "--for", "office", "--no-test", "--trust") == 0
    pem = (certificates / "urlward.crt").read_bytes()
    assert b"PRIVATE" not in pem
    assert pem == authority(tmp_path / "two/ca").encoded("pem")
    assert called.exists()
    called.unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(tmp_path / "three", "--for", "office", "--no-test", "--trust") == 0
    assert f"{certificates}/urlward.crt" in capsys.readouterr().out
    assert not called.exists()


def test_a_person_is_asked_five_questions_and_shown_a_block(tmp_path: Path) -> None:
    answers = [b"hospital\n", b"office\n", b"Example Clinic\n", b"\n", b"gw.example\n", b"7\n", b"n\n"]
    master, slave = pty.openpty()
    line = [sys.executable, "-m", "urlward", "init", str(tmp_path)]
    with subprocess.Popen(line, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            if not select.select([master], [], [], 120)[0]:
                process.kill()
                pytest.fail(f"it hangs: {shown!r}")
            try:
                got = os.read(master, 4096)
            except OSError:
                break  # its end has gone
            shown += got
            if answers and re.search(rb"(?:\) |\] )$", shown):
                os.write(master, answers.pop(0))
    os.close(master)
    text = shown.decode()
    assert process.returncode == 0, text
    assert not answers, text
    assert "one of school, office, provider" in text
    assert re.search(r"blocked \(451\)  http://blocked\.urlward-init\.test/page, reference \S+", text), text
    assert "root pages" not in text, "of the trial's list, which is not theirs"
    config = read_config(tmp_path / NAME)
    assert (config.page.operator, config.proxy.pac.proxies) == ("Example Clinic", ("gw.example:8080",))  # type: ignore[union-attr]
    assert config.records is not None
    assert config.records.days.blocks == 7
