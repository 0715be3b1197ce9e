"""A bundle for support of a filter that runs, with secrets planted everywhere: none of them is in it."""

import base64
import io
import json
import os
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest
import urllib3

from conftest import accepts, free_port, run_command, wait_for
from e2e import support
from e2e.support import Filter, running, status_of
from records.support import an_event
from urlward.commands import support as command
from urlward.config import read_config
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import add_objection
from urlward.policy.allows import add_allow
from urlward.records.asking import ask
from urlward.records.database import open_database
from urlward.state.audit import read_audit
from urlward.state.folder import local_key
from urlward.state.people import add_person

SECRETS = {
    name: f"zq{number}{name}xk"
    for number, name in enumerate(
        (
            "entry", "path", "own", "user", "password", "query", "feedhost", "filepassword", "operator",
            "label", "group", "page", "schedule", "texts", "node", "objector", "allowed", "reason",
            "alarmhost", "inside", "person", "category", "broken",
        )
    )
}  # fmt: skip
"""Words that are nobody's, one for each place."""

CLIENTS = ("192.0.2.77", "198.51.100.66", "203.0.113.55", "2001:db8:77::7", "127.66.5.4")

CONFIG = """
state = "{folder}/state"
list = ["{folder}/{own}.txt"]
[[feed]]
name = "body"
path = "{folder}/feed.txt"
[[feed]]
name = "far"
url = "http://127.0.0.1:{closed}/{path}?key={query}"
user = "{user}"
password_file = "{folder}/password"
[[feed]]
name = "secretly"
url = "https://{feedhost}.example/{path}?key={query}"
[[group]]
name = "{group}"
networks = ["203.0.113.55"]
page = "{page}"
[[group.rule]]
categories = ["{category}"]
action = "allow"
schedule = "{schedule}"
[schedule.{schedule}]
zone = "Europe/Madrid"
[page]
operator = "{operator}"
help = [{{label = "{label}", url = "https://{label}.example/"}}]
[pages.{page}]
operator = "{operator}"
[pages.{page}.texts.en]
title = "{texts}"
[records]
node = "{node}"
log = true
[records.days]
blocks = 30
operations = 365
[admin]
listen = "127.0.0.1:{admin}"
[objections]
url = "https://{label}.example/objection"
listen = "127.0.0.1:{objections}"
proxies = ["127.66.5.4"]
"""


def spellings(secret: str) -> Iterator[tuple[str, bytes]]:
    """Ways that somebody could write it without meaning to hide it."""
    data = secret.encode()
    yield "plain", data
    yield "percent", "".join(f"%{byte:02x}" for byte in data).encode()
    yield "quoted", quote(secret, safe="").encode()
    yield "hex", data.hex().encode()
    yield "utf-16", secret.encode("utf-16-le")
    yield "backwards", data[::-1]
    for shift in range(3):
        # What of it does not depend on its neighbours.
        text = base64.b64encode(b"\0" * shift + data)
        yield f"base64 {shift}", text[4 if shift else 0 : len(text) - 4]


def contents(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def leaks(found: dict[str, bytes], secrets: list[str]) -> list[tuple[str, str, str]]:
    return [
        (secret, name, way)
        for name, data in {**found, "names": " ".join(found).encode()}.items()
        for secret in secrets
        for way, spelling in spellings(secret)
        if spelling.lower() in data.lower()
    ]


def plant(folder: Path, tokens: list[str]) -> Path:
    """Fill a state folder, and what a configuration names; returns the latter's path."""
    state = folder / "state"
    path = folder / "urlward.toml"
    ports = {name: free_port() for name in ("closed", "admin", "objections")}
    path.write_text(CONFIG.format(folder=folder, **ports, **SECRETS))
    (folder / "feed.txt").write_text(
        f"http://{SECRETS['entry']}.example/{SECRETS['path']}/* category={SECRETS['category']}\n"
    )
    (folder / f"{SECRETS['own']}.txt").write_text(f"{SECRETS['own']}.example\n")
    (folder / "password").write_text(SECRETS["filepassword"])
    now = time.time()
    key = local_key(state)
    add_allow(
        state, key, f"{SECRETS['allowed']}.example", 3600, SECRETS["reason"], SECRETS["person"],
        whole_host=True, now=now,
    )  # fmt: skip
    add_objection(state, key, "7Q4M-2XKD-93FH", f"{SECRETS['objector']} asks", client=CLIENTS[0], now=now)
    tokens.append(add_person(state, SECRETS["person"], "operator", SECRETS["person"], now=now)[1])
    config = read_config(path)
    assert config.records is not None
    database = open_database(config.records.store[0], state)
    detail = {"alarm": "probing", "text": f"probing client={CLIENTS[0]}: {SECRETS['alarmhost']}.example/x"}
    database.write(
        [
            an_event(
                1, "alarm", round(now * 1000), client=CLIENTS[1], detail=detail, list=SECRETS["alarmhost"]
            ),
            an_event(2, "block", round(now * 1000), client=CLIENTS[3], node=SECRETS["node"]),
        ]
    )
    database.close()
    (state / SECRETS["inside"]).mkdir()
    (state / SECRETS["inside"] / f"{SECRETS['inside']}.example").write_text(SECRETS["inside"])
    return path


def secrets_of(folder: Path, tokens: list[str]) -> list[str]:
    key = (folder / "state/key").read_text().strip()
    return [*SECRETS.values(), *CLIENTS, *tokens, key, str(folder), folder.name]


@pytest.fixture(scope="module")
def tokens() -> list[str]:
    return []


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, tokens: list[str]) -> Iterator[tuple[Filter, Path]]:
    folder = tmp_path_factory.mktemp("zq-planted-xk")
    path = plant(folder, tokens)
    with running(folder / "filter", "--config", str(path), check=False) as proxy:
        proxy.secrets = ()  # its log is what is looked at here
        state = folder / "state"
        listed = f"http://{SECRETS['entry']}.example/{SECRETS['path']}/x"
        wait_for(lambda: status_of(proxy.port, listed) == 451, "a block")
        wait_for(lambda: any(feed["reason"] for feed in ask(state, "status")["feeds"]), "a failed feed")
        tokens += [(state / "admin.token").read_text().strip()] if (state / "admin.token").exists() else []
        yield proxy, path


def made(path: Path, target: Path) -> dict[str, bytes]:
    patient = "from urlward.commands import support; support.WITHIN = 300.0"
    done = support.urlward("support", "--config", path, "-o", target, before=patient, within=300.0)
    assert done.returncode == 0, done.stderr
    assert target.stat().st_mode & 0o777 == 0o600
    return contents(target.read_bytes())


@pytest.fixture(scope="module")
def bundle(planted: tuple[Filter, Path]) -> dict[str, bytes]:
    return made(planted[1], planted[1].parent / "bundle.zip")


def test_nothing_that_was_planted_is_in_it(
    planted: tuple[Filter, Path], tokens: list[str], bundle: dict[str, bytes]
) -> None:
    proxy, path = planted
    assert leaks(bundle, secrets_of(path.parent, tokens)) == []
    # They are where they are looked for: the log has a client, the status the node, the feed's fault a port.
    assert SECRETS["node"] in json.dumps(ask(path.parent / "state", "status"))
    assert "127.0.0.1" in json.dumps(ask(path.parent / "state", "inside")) or "127.0.0.1" in proxy.log()


def test_what_helps_is_in_it(bundle: dict[str, bytes]) -> None:
    read: dict[str, Any] = {name: json.loads(data) for name, data in bundle.items() if name.endswith(".json")}
    assert read["about.json"]["urlward"]
    assert read["about.json"]["kernel"] == os.uname().release
    configuration = read["configuration.json"]
    assert [feed["name"] for feed in configuration["feed"]] == ["body", "far", "secretly"]
    assert configuration["records"]["days"] == {"blocks": 30, "operations": 365, "assignments": None}
    assert read["status.json"]["running"] is True
    assert [feed["name"] for feed in read["feeds.json"]] == ["body", "far", "secretly"]
    assert {finding["about"] for finding in read["doctor.json"]} >= {"configuration", "lists"}
    assert read["alarms.json"][0]["kind"] == "alarm"
    assert b"urlward_requests_total" in bundle["metrics.txt"]
    assert any("records" in line for line in read["inside.json"]["log"])
    assert any("thread" in one for one in read["inside.json"]["threads"])
    assert ["key"] in [one["name"][-1] for one in read["files.json"]]


def test_the_button_gives_the_same(planted: tuple[Filter, Path], tokens: list[str]) -> None:
    _, path = planted
    config = read_config(path)
    assert config.admin is not None
    headers = {"Authorization": f"Bearer {tokens[0]}"}
    url = f"http://{config.admin.listen}/api/support"
    port = int(config.admin.listen.rpartition(":")[2])
    wait_for(lambda: accepts(port), "the dashboard")
    answer = urllib3.request("POST", url, headers=headers, body=b"{}", timeout=120, retries=False)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/zip"
    found = contents(answer.data)
    assert json.loads(found["status.json"])["running"] is True
    assert leaks(found, secrets_of(path.parent, tokens)) == []
    lines = [line for line in read_audit(path.parent / "state") if line is not None]
    assert lines[-1]["action"] == "support-bundle"
    assert lines[-1]["who"] == f"{SECRETS['person']} (dashboard)"


def test_without_a_filter_and_with_a_broken_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "zq-broken-xk"
    folder.mkdir()
    path = plant(folder, tokens := [])
    path.write_text(
        path.read_text()
        + f'\n[{SECRETS["broken"]}]\nurl = "http://x:{SECRETS["password"]}@{SECRETS["broken"]}.example/"\n'
    )
    found = made(path, tmp_path / "bundle.zip")
    assert leaks(found, secrets_of(folder, tokens)) == []
    (problem,) = json.loads(found["configuration.json"])["problems"]
    assert problem.endswith("no such key")
    assert "recorder runs" in json.loads(found["status.json"])["error"]


def test_a_file_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "bundle", lambda *_, **__: (b"", []))
    (tmp_path / "bundle.zip").write_text("mine")
    with pytest.raises(UrlwardError, match="File exists"):
        run_command(command.add_support_command, "support", "-o", tmp_path / "bundle.zip")
    assert (tmp_path / "bundle.zip").read_text() == "mine"


def test_a_file_that_goes_while_it_is_listed_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stays").touch()
    monkeypatch.setattr(Path, "rglob", lambda self, _: [self / "gone", self / "stays"])
    assert [one["name"] for one in command._files(tmp_path)] == [[["stays"]]]


def test_a_doctor_that_hangs_is_late_and_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.TimeoutExpired(["urlward", "doctor"], command.WITHIN)
    monkeypatch.setattr(command.subprocess, "run", Mock(side_effect=ended))
    (tmp_path / "urlward.toml").write_text(f'state = "{tmp_path}/state"\n')
    data, late = command.bundle(tmp_path / "urlward.toml")
    assert "doctor.json" in late
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert json.loads(archive.read("doctor.json")) == {"error": "no answer within 30 s"}
        assert "urlward" in json.loads(archive.read("about.json")), "all else is there"


def test_a_secret_would_be_found() -> None:
    for way, spelling in spellings("zqsecretxk"):
        data = b"a" + spelling + b"b" if not way.startswith("base64") else None
        if data is None:
            data = base64.b64encode(b"\0" * int(way[-1]) + b"zqsecretxk and more")
        assert ("zqsecretxk", "x", way) in leaks({"x": data}, ["zqsecretxk"])
