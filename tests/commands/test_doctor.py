"""``urlward doctor``: what is usually wrong is found, and said with what to do."""

import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import dns.exception
import dns.message
import dns.rrset
import pytest

from conftest import free_port, listening
from e2e import support
from rows import each_row
from urlward import cli
from urlward.commands import doctor
from urlward.commands.doctor import Finding
from urlward.config import Config, read_config
from urlward.gateway.ca import authority

RESOLV = "look at /etc/resolv.conf, the feed's url, and its proxy (https_proxy is not read)"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "urlward.toml"
    path.write_text(
        f'list = ["list.txt"]\nlisten = "127.0.0.1:{free_port()}"\nstate = "state"\nconfdir = "ca"\n'
    )
    (tmp_path / "list.txt").write_text("blocked.example\n")
    (tmp_path / "state").mkdir(mode=0o700)
    authority(tmp_path / "ca", make=True, key_size=2048)
    return path


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that tries a configuration and has to wait for a processor is there."""
    monkeypatch.setattr(doctor, "CHECK_WITHIN", 300.0)


def forked(line: Sequence[str], **how: Any) -> "subprocess.CompletedProcess[str]":
    """What `subprocess.run` gives; of a filter that tries its configuration, by a fork (`e2e.forks`)."""
    tries = list(line[line.index("urlward") + 1 :]) if "urlward" in line else []
    return support.urlward(*tries) if tries[:2] == ["run", "--check"] else subprocess.run(line, **how)


def found(
    capsys: pytest.CaptureFixture[str], path: Path, code: int, run: Callable[..., Any] = forked
) -> dict[str, list[Finding]]:
    capsys.readouterr()
    with (
        patch.object(doctor, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": run})),
        pytest.raises(SystemExit) as raised,
    ):
        cli.main(["doctor", "--json", "--config", str(path)])
    by_name: dict[str, list[Finding]] = {}
    for each in json.loads(capsys.readouterr().out):
        by_name.setdefault(each["about"], []).append(Finding(**each))
    assert raised.value.code == code, by_name
    return by_name


@pytest.mark.usefixtures("patient")
def test_all_is_well(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_name = found(capsys, config, 0, subprocess.run)
    assert {*by_name} == {
        "configuration", "clock", "DNS", "ports", "state folder", "secrets", "certificate", "lists", "files",
    }  # fmt: skip
    assert all(each.state in ("ok", "note") for several in by_name.values() for each in several)
    assert by_name["certificate"][0].state == "note", "this machine does not trust it"


@pytest.mark.usefixtures("patient")
def test_lines_for_people(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--config", str(config)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ok    configuration {config} can be used"
    assert f"{'':20}clients have to: urlward ca page; this machine need not" in lines


def test_a_port_that_is_taken(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as taken:
        port = taken.getsockname()[1]
        records = "[records.days]\nblocks = 1\noperations = 1\n"
        config.write_text(f'{config.read_text()}{records}[admin]\nlisten = "127.0.0.1:{port}"\n')
        ports = found(capsys, config, 1)["ports"]
    assert [each.state for each in ports] == ["ok", "wrong"]
    assert ports[1].text == f"admin.listen: 127.0.0.1:{port}: Address already in use"
    assert f"sport = :{port}" in ports[1].advice


def test_a_filter_that_records_nothing_may_have_the_port_itself(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening() as taken:
        port = taken.getsockname()[1]
        config.write_text(re.sub(r":\d+", f":{port}", config.read_text(), count=1))
        (one,) = found(capsys, config, 0)["ports"]
    assert (one.state, one.text) == ("note", f"listen: 127.0.0.1:{port}: Address already in use")
    assert one.advice.startswith("by this filter, if it runs, which [records] would tell; else ss ")


def test_the_ports_of_a_gateway_are_those_that_it_takes(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without `listen` it is at all addresses, and it answers DNS: both may be taken by somebody else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        port = free_port()  # which no connection has meanwhile
        taken.bind(("127.0.0.1", port))
        lines = [line for line in config.read_text().splitlines() if not line.startswith("listen")]
        gateway = ["[gateway]", 'interfaces = ["lo"]', "steer = true", f"dns = {{ port = {port} }}"]
        config.write_text("\n".join([*lines, *gateway]))
        ports = found(capsys, config, 1)["ports"]
    texts = [each.text for each in ports]
    assert texts[0].startswith("listen: :8080"), texts
    assert f"gateway.dns.port: :{port} is free" in texts
    (udp,) = (each for each in ports if "(UDP)" in each.text)
    assert udp.text == f"gateway.dns.port: :{port} (UDP): Address already in use"
    assert f"ss -lnup 'sport = :{port}'" in udp.advice


@pytest.mark.parametrize(
    ("listen", "advice"),
    [("192.0.2.250:8080", "ip address shows"), ("[fe80::1%lo]:8080", "it is no address to listen on")],
)
def test_an_address_that_is_none_of_this_machine(
    config: Path, capsys: pytest.CaptureFixture[str], listen: str, advice: str
) -> None:
    lines = [line for line in config.read_text().splitlines() if not line.startswith("listen")]
    config.write_text("\n".join([*lines, f'listen = "{listen}"']))
    (port,) = found(capsys, config, 1)["ports"]
    assert port.advice.startswith(advice)
    assert port.advice.endswith("; or choose another in listen")


def test_a_configuration_that_cannot_be_used(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text() + 'mode = ["regular", "regular"]\n')
    assert found(capsys, config, 1)["configuration"][0].state == "wrong"


def test_a_configuration_that_takes_long_leaves_all_else(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(line: Sequence[str], **how: Any) -> "subprocess.CompletedProcess[str]":
        if "--check" in line:
            raise subprocess.TimeoutExpired(list(line), how["timeout"])
        return subprocess.run(line, **how)

    by_name = found(capsys, config, 0, run)
    (one,) = by_name["configuration"]
    assert (one.state, one.text) == (
        "note",
        f"{config}: not tried within 20 s; lists may be large, or the machine busy",
    )
    assert "lists" in by_name


@pytest.mark.parametrize(
    ("change", "about", "says"),
    [
        (lambda folder: (folder / "state").chmod(0o707), "state folder", "everybody can look into it"),
        (lambda folder: os.utime(folder / "list.txt", (2**32, 2**32)), "clock", "it is behind"),
        (lambda folder: (folder / "list.txt").unlink(), "lists", "not there"),
        (
            lambda folder: (folder / "ca/mitmproxy-ca.pem").write_text("x"),
            "certificate",
            "no certificate in",
        ),
    ],
    ids=["state", "clock", "list", "authority"],
)
def test_what_is_wrong_on_the_disk(
    config: Path, capsys: pytest.CaptureFixture[str], change: Any, about: str, says: str
) -> None:
    change(config.parent)
    (one,) = found(capsys, config, 1)[about]
    assert one.state == "wrong"
    assert says in one.text


def test_secrets_that_others_can_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, feed = config.parent, '[[feed]]\nname = "{}"\nurl = "https://127.0.0.1/"\n'
    one = feed.format("one") + 'user = "me"\npassword_file = "word"\nclient_cert = "pem"\n'
    config.write_text(f'include = ["own.toml"]\n{config.read_text()}key = "list.key"\n{one}')
    (folder / "own.toml").write_text(feed.format("two") + 'proxy = "http://me:word@127.0.0.1:1"\n')
    (folder / "word").touch()
    (folder / "pem").touch()
    (folder / "list.key").touch()

    def told(mode: int) -> list[tuple[str, str]]:
        for name in (
            "word",
            "pem",
            "list.key",
            "ca/mitmproxy-ca.pem",
            "ca/mitmproxy-ca.p12",
            "own.toml",
            "list.txt",
        ):
            (folder / name).chmod(mode)
        (folder / "ca").chmod(0o770 | mode)
        found = doctor._secrets(read_config(config))
        return [(one.state, one.text.replace(f"{folder}/", "")) for one in found]

    well = [("ok", "no other user of this machine can read them")]
    readable = "every user of this machine can read"
    assert told(0o646) == well, "nobody gets into pytest's folder"
    monkeypatch.setattr(doctor, "_is_reached", lambda path: True)
    assert told(0o640) == well
    assert sorted(told(0o646)) == [
        ("note", f"list.txt: {readable} the list"),
        ("wrong", "confdir: ca: every user can replace the authority"),
        ("wrong", f"confdir: mitmproxy-ca.p12: ca/mitmproxy-ca.p12: {readable} it"),
        ("wrong", f"confdir: mitmproxy-ca.pem: ca/mitmproxy-ca.pem: {readable} it"),
        ("wrong", f"feed.0.client_cert: pem: {readable} it"),
        ("wrong", f"feed.0.password_file: word: {readable} it"),
        ("wrong", f"feed.1.proxy: own.toml: {readable} it"),
        ("wrong", f"key: list.key: {readable} it"),
    ]


@each_row(
    ("text", "told"),
    [
        ('listen = ":8080"', ["whoever reaches the proxy's port"]),
        ('listen = "[::]:8080"\nmode = ["socks5"]', ["whoever reaches the proxy's port"]),
        ('mode = ["transparent", "regular@192.0.2.1:8081"]', ["whoever reaches the proxy's port"]),
        ('listen = ":8080"\nmode = ["transparent"]', []),
        ('listen = ":8080"\n[proxy]\nusers = "users"', []),
        ('listen = ":8080"\n[mitmproxy]\nproxyauth = "@users"', []),
        ('listen = "localhost:8080"\n[admin]\nlisten = "[::1]:8088"', []),
        ('[admin]\nlisten = "192.0.2.1:8088"', ["admin.listen: 192.0.2.1:8088: tokens can be read"]),
    ],
)
def test_who_reaches_it(tmp_path: Path, text: str, told: list[str]) -> None:
    (tmp_path / "urlward.toml").write_text(f"{text}\n[records.days]\nblocks = 1\noperations = 1\n")
    config = read_config(tmp_path / "urlward.toml")
    notes = list(doctor._reach(config))
    assert [one.text.startswith(begin) for one, begin in zip(notes, told, strict=True)] == [True] * len(told)


def test_a_list_that_is_old(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    then = time.time() - 40 * 86_400
    os.utime(config.with_name("list.txt"), (then, then))
    (one,) = found(capsys, config, 0)["lists"]
    assert (one.state, one.text) == ("note", f"{config.with_name('list.txt')}: has not changed for 40d")


def test_a_feed_whose_name_is_not_found(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    config.write_text(config.read_text() + '[[feed]]\nname = "f"\nurl = "https://hotline.example/l.ward"\n')
    monkeypatch.setattr(socket, "getaddrinfo", none)
    by_name = found(capsys, config, 1)
    assert by_name["DNS"] == [
        Finding(
            "DNS",
            "wrong",
            "hotline.example: Name or service not known",
            RESOLV,
        )
    ]
    assert by_name["lists"][-1].text == "feed f: waiting"


def test_a_proxy_is_looked_for_in_place_of_the_feeds_server(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    more = '[[feed]]\nname = "f"\nurl = "https://hotline.example/l.ward"\nproxy = "http://proxy.example:1"\n'
    config.write_text(config.read_text() + more)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_: asked.append(host))
    assert found(capsys, config, 0)["DNS"][0].text == "proxy.example is found"
    assert asked == ["proxy.example"]


def test_a_name_server_that_does_not_answer(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(config.read_text() + '[[feed]]\nname = "f"\nurl = "https://hotline.example/l.ward"\n')
    monkeypatch.setattr(doctor, "NAMES_WITHIN", 0.05)
    answers = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answers.wait(60))
    assert found(capsys, config, 1)["DNS"][0].text == "hotline.example: no answer"
    answers.set()


def test_whether_pictures_can_be_looked_at(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = config.read_text()
    config.write_text(f"{before}[files]\n")
    assert "pictures" not in found(capsys, config, 0), "exact digests need nothing"

    config.write_text(f'{before}[files]\npictures = "alert"\n')
    assert found(capsys, config, 0)["pictures"] == [
        Finding("pictures", "ok", "are decoded in a sandbox, and compared")
    ]

    config.write_text(f'{before}[files]\nclassifier = "json:no_such"\n')
    [finding] = found(capsys, config, 1)["pictures"]
    assert finding.text == "are not looked at: files.classifier: json:no_such: there is no such function"

    monkeypatch.setitem(sys.modules, "faiss", None)
    [finding] = found(capsys, config, 1)["pictures"]
    assert finding.text == "are not looked at: faiss is not there (the extra `files`)"
    assert finding.advice == "urlward help install"


def test_too_few_descriptors(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert found(capsys, config, 1)["files"][0].text == "a process may have 256 open"


def test_a_gateways_kernel(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from urlward.gateway import system

    text = config.read_text().replace('"127.0.0.1:', '":')
    config.write_text(text + '[gateway]\ninterfaces = ["lo"]\n')
    monkeypatch.setattr(system, "unmet", lambda _: ["net.ipv4.ip_forward is 0"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    kernel = found(capsys, config, 1)["kernel"]
    assert "net.ipv4.ip_forward is 0" in [each.text for each in kernel]
    assert kernel[-1].advice == "sudo urlward doctor"


def test_a_nat64_prefix_that_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(query: dns.message.Message, host: str, **_: Any) -> dns.message.Message:
        if host != "192.0.2.53":
            raise dns.exception.Timeout
        response = dns.message.make_response(query)
        told = ("64:ff9b::192.0.0.170", "2001:db8:64::192.0.0.171")
        response.answer.append(dns.rrset.from_text("ipv4only.arpa.", 60, "IN", "AAAA", *told))
        return response

    monkeypatch.setattr("dns.query.udp", answered)
    gateway: dict[str, Any] = {"interfaces": ["lan0"], "dns": {"resolvers": ["192.0.2.54", "192.0.2.53"]}}
    assert not list(doctor._nat64(Config.model_validate({"gateway": gateway})))
    (one,) = doctor._nat64(Config.model_validate({"gateway": gateway | {"steer": True}}))
    assert "with 2001:db8:64::/96, which gateway.nat64" in one.text
    named = {"steer": True, "nat64": ["2001:db8:64::/96", "64:ff9b::/96"]}
    assert not list(doctor._nat64(Config.model_validate({"gateway": gateway | named})))


def test_who_is_at_the_socket_for_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    config = Config.model_validate(
        {"gateway": {"hook": {"folder": str(tmp_path)}}, "state": str(tmp_path / "state")}
    )

    def said() -> list[tuple[str, str]]:
        return [(one.state, one.text.removeprefix(f"{path}: ")) for one in doctor._hook(config)]

    assert said() == [("note", "nobody listens")]
    status: dict[str, object] = {"hook": None}
    monkeypatch.setattr(doctor, "_told", lambda _: status)
    assert said() == [("note", "nobody listens")]
    status["hook"] = {"connected": 0, "late": 0}
    assert said() == [("note", "no resolver is connected")]
    status["hook"] = {"connected": 2, "late": 3}
    late = "3 replies came when the hook waited no more"
    assert said() == [("ok", "connections of resolvers: 2"), ("note", late)]
    assert [*doctor._hook(Config())] == []
