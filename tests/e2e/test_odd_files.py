"""Pipes, sockets and devices in the place of files, and byte order marks before them: nobody waits, and one
clear line is said; what is only marked works."""

import os
import subprocess
import sys
from pathlib import Path

import bcrypt

from e2e.support import urlward
from rows import each_row
from urlward.regular import BOM

RECORDS = "[records]\ndays.blocks = 1\ndays.operations = 1\n"
FEED = "[[feed]]\nname = 'f'\nurl = 'https://f.example/'\n"
WANTED = {
    "--config": "",
    "--key": "",
    "--list": "",
    "--trust": "",
    "proxy.users": "[proxy]\nusers = ",
    "feed.0.password_file": f"{FEED}user = 'u'\npassword_file = ",
    "feed.0.token_file": f"{FEED}token_file = ",
    "feed.0.ca": f"{FEED}ca = ",
    "feed.0.client_cert": f"{FEED}client_cert = ",
    "feed.0.key": f"{FEED}key = ",
    "records.store.0.url_file": f"{RECORDS}[[records.store]]\nkind = 'postgresql'\nurl_file = ",
    "records.store.0.ca": f"{RECORDS}[[records.store]]\nkind = 'syslog'\naddress = 'a:1'\ntls = true\nca = ",
    "admin.token_file": f"{RECORDS}[admin]\ntoken_file = ",
}
"""What is to have a pipe as its file: a flag, or a key with what stands before it."""


@each_row("place", WANTED)
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(tmp_path: Path, place: str) -> None:
    config, pipe = tmp_path / "urlward.toml", tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    config.write_text("state = 'state'\n" + (f"{WANTED[place]}'{pipe}'\n" if WANTED[place] else ""))
    arguments = ["run", "--check", "--confdir", tmp_path / "confdir"]
    if place.startswith("--"):
        arguments += [place, pipe]
    if place != "--config":
        arguments += ["--config", config]
    done = urlward(*arguments)
    assert done.returncode == 2
    assert "not a regular file" in done.stderr, done.stderr
    assert str(pipe) in done.stderr
    assert place.partition(".")[2].rpartition(".")[2] in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_authority_that_is_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "confdir").mkdir()
    os.mkfifo(tmp_path / "confdir" / "mitmproxy-ca.pem")
    for arguments in (["run", "--check"], ["ca"]):
        done = urlward(*arguments, "--confdir", tmp_path / "confdir")
        assert done.returncode == 2
        assert "mitmproxy-ca.pem: not a regular file" in done.stderr


def test_a_configuration_from_the_shell(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("blocked.example\n")
    line = f"""{sys.executable} -m urlward check --config <(echo 'list = ["{tmp_path}/list.txt"]') http://blocked.example/"""
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (1, "block"), done.stderr
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m urlward run --check --config <(echo)"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "is read once, and a filter reads its own again" in done.stderr


def test_byte_order_marks_are_taken_off(tmp_path: Path) -> None:
    def marked(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(BOM + data)
        (tmp_path / name).chmod(0o600)
        return tmp_path / name

    urlward("keygen", "-o", tmp_path / "plain.key")
    urlward("keygen", "--signing", "-o", tmp_path / "sign")
    key = marked("marked.key", (tmp_path / "plain.key").read_bytes())
    trust = marked("trust.pub", (tmp_path / "sign.pub").read_bytes())
    marked("users", b"someone:" + bcrypt.hashpw(b"x", bcrypt.gensalt(4)) + b"\n")
    marked("token", b"a secret token of a feed\n")
    marked("admin", b"abcdefghijklmnopqrstuvwxyz0123456789\n")
    marked("url", b"postgresql://u@localhost/x\n")
    marked("list.txt", b"blocked.example\n")
    config = marked(
        "urlward.toml",
        b"""
list = ["list.txt"]
[proxy]
users = "users"
[[feed]]
name = "f"
url = "http://f.example/"
token_file = "token"
[records]
days = { blocks = 1, operations = 1 }
[[records.store]]
kind = "postgresql"
url_file = "url"
[admin]
token_file = "%b/admin"
"""
        % os.fsencode(tmp_path),
    )
    done = urlward(
        "run", "--check", "--config", config, "--key", key, "--trust", trust, "--confdir", tmp_path / "ca"
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "configuration ok"), done.stderr
    found = urlward("check", "--list", tmp_path / "list.txt", "http://blocked.example/")
    assert found.stdout.startswith("block")
