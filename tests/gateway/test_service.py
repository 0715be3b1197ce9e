import errno
import grp
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import urlward
from conftest import in_turns, wait_for
from e2e.test_modes import may_make_namespaces
from gateway.network import IPV4, IPV6, Network, canaries, network
from gateway.unprivileged import NOBODY
from rows import each_row
from urlward.cli import main
from urlward.config import Config, read_config
from urlward.engine.errors import UrlwardError
from urlward.gateway import service
from urlward.gateway.service import CLOSED, STATE, UNIT, USER, files, install, next_steps, unready
from urlward.proxy import notify

HERE = Path(__file__).parent


def configuration(**gateway: Any) -> Config:
    return Config.model_validate({"gateway": {"interfaces": ["lan0"], **gateway}})


def settings(unit: str) -> dict[str, str]:
    """The last value of each setting."""
    return dict(line.partition("=")[::2] for line in unit.splitlines() if re.match(r"[A-Z]\w+=", line))


def test_the_unit() -> None:
    made = files(Path("/srv/urlward/net.toml"), configuration())
    assert set(made) == {UNIT, USER}
    unit = settings(made[UNIT])
    urlward = Path(sys.executable).with_name("urlward")
    assert unit["ExecStartPre"] == f"{urlward} gateway up --config /srv/urlward/net.toml"
    assert "ProtectProc" not in unit, "the supervisor sees in /proc whether a worker hangs"
    assert unit["ExecStart"] == f"{urlward} run --config /srv/urlward/net.toml --confdir {STATE}"
    assert unit["ExecStopPost"] == f"{urlward} gateway down --if-stopped --config /srv/urlward/net.toml"
    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"] == "CAP_NET_ADMIN"
    assert unit["User"] == "urlward"
    # Replaces workers; SIGHUP reads lists again. The program kill is of a package that may not be there.
    assert unit["ExecReload"] == '/bin/sh -c "kill -USR2 $MAINPID"'
    assert unit["OOMPolicy"] == "continue", "one process that takes too much does not end the filter"
    assert unit["User"] in made[USER]


def test_what_a_configuration_changes() -> None:
    unit = settings(files(None, configuration(dns={"port": 53}))[UNIT])
    assert unit["AmbientCapabilities"] == "CAP_NET_ADMIN CAP_NET_BIND_SERVICE"
    unit = settings(files(None, Config(confdir="/srv/ca"))[UNIT])
    assert unit["ReadWritePaths"] == "/srv/ca"
    assert "--confdir" not in unit["ExecStart"]


def test_closed_holds_before_there_is_a_network() -> None:
    assert "Also=" not in files(None, configuration())[UNIT]
    made = files(Path("/srv/urlward/net.toml"), configuration(fail="closed"))
    early = settings(made[CLOSED])
    assert early["ExecStart"] == settings(made[UNIT])["ExecStartPre"]
    assert {"network-pre.target", UNIT.name} <= set(early["Before"].split())
    assert (early["Wants"], early["DefaultDependencies"]) == ("network-pre.target", "no")
    assert "nftables.service" in early["After"], "which begins with a flush"
    assert settings(made[UNIT])["Also"] == CLOSED.name, "enabled with the service"


@each_row("path", ["/srv/my lists/net.toml", "/srv/50%/net.toml", '/srv/"/net.toml'])
def test_a_path_that_a_unit_cannot_name(path: str) -> None:
    with pytest.raises(UrlwardError, match="a service cannot use a path"):
        files(Path(path), configuration())


def test_install(tmp_path: Path) -> None:
    made = files(None, configuration())
    written = list(install(made, tmp_path))
    assert written == [tmp_path / path.relative_to("/") for path in made]
    for path, text in zip(written, made.values(), strict=True):
        assert path.read_text() == text
        assert path.stat().st_mode & 0o777 == 0o644
    assert list(install(made, tmp_path)) == written, "again"
    with pytest.raises(UrlwardError, match="Not a directory"):
        list(install(made, written[0]))


def test_next_steps(tmp_path: Path) -> None:
    config = tmp_path / "net.toml"
    assert any("readable for the user urlward" in step for step in next_steps(config, Config()))
    config.touch()
    assert any("say where clients come in" in step for step in next_steps(config, Config()))
    assert "systemctl enable urlward && systemctl restart urlward" in next_steps(config, configuration())[-1]


@pytest.fixture
def installed_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Has urlward installed in a folder."""

    def install_in(folder: Path) -> None:
        program = folder / "bin/python"
        program.parent.mkdir(parents=True)
        program.touch()
        program.with_name("urlward").touch()
        monkeypatch.setattr(sys, "executable", str(program))

    return install_in


@pytest.mark.parametrize(
    ("base", "mode", "said"),
    [
        ("/tmp", 0o755, "the service sees nothing of /tmp (PrivateTmp)"),
        ("/var/tmp", 0o755, "the service sees nothing of /var/tmp (PrivateTmp)"),
        ("/var/lib", 0o700, "the user urlward may not enter "),
        ("/var/lib", 0o755, ""),
    ],
)
def test_what_the_service_cannot_see(
    installed_in: Callable[[Path], None], base: str, mode: int, said: str
) -> None:
    if not os.access(base, os.W_OK):
        pytest.skip(f"cannot write to {base}")
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        folder.chmod(mode)
        installed_in(folder)
        config, key = folder / "net.toml", folder / "list.key"
        config.touch()
        key.touch()
        told = [step for step in next_steps(config, Config(key=str(key))) if "; " in step]
        assert len(told) == (3 if said else 0)
        assert all(said in step for step in told)


def stores(folder: str) -> Config:
    return Config.model_validate(
        {
            "gateway": {"interfaces": ["lan0"]},
            "confdir": f"{folder}/ca",
            "records": {
                "days": {"blocks": 1, "operations": 1, "assignments": 1},
                "store": [
                    {"kind": "sqlite", "path": f"{folder}/records/events.db"},
                    {"kind": "jsonl", "path": f"{folder}/records/events.jsonl"},
                    {"kind": "sqlite"},
                ],
                "assignments": {"kind": "sqlite", "path": f"{folder}/who/assignments.db"},
            },
            "admin": {"token_file": f"{folder}/token/admin"},
        }
    )


def test_the_service_may_write_wherever_the_configuration_has_it_write() -> None:
    config = stores("/srv/urlward")
    wanted = "/srv/urlward/ca /srv/urlward/records /srv/urlward/who /srv/urlward/token"
    assert settings(files(None, config)[UNIT])["ReadWritePaths"] == wanted
    own = stores(str(STATE))
    assert "ReadWritePaths" not in settings(files(None, own)[UNIT]), "which it may anyway"
    with pytest.raises(UrlwardError, match="a service cannot use a path"):
        files(None, stores("/srv/url ward"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_the_service_may_not_read_or_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit with a folder to write to that is not there does not start, and one that is root's is no use."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as name:
        folder = Path(name)
        folder.chmod(0o755)
        config = stores(name).model_copy(update={"key": f"{name}/lists.key"})
        (folder / "records").mkdir()
        (folder / "lists.key").touch(0o600)
        told = "\n".join(next_steps(None, config))
        assert f"{name}/lists.key: the user urlward may not read it" in told
        assert f"{name}/records: the user urlward may not write there: systemd-sysusers && chown" in told
        (folder / "records/another.log").touch()
        told = "\n".join(next_steps(None, config))
        assert f"{name}/records: the user urlward may not write there: name a folder of its own" in told
        assert "chown" not in told, "it has what is another's"
        for missing in ("ca", "who", "token"):
            assert f"install -d -o urlward -g urlward -m 0700 {name}/{missing}" in told
        monkeypatch.setattr(service, "_user", lambda: (NOBODY, frozenset({NOBODY})))
        for missing in ("ca", "who", "token"):
            (folder / missing).mkdir()
        for path in folder.iterdir():
            os.chown(path, NOBODY, NOBODY)
        assert name not in "\n".join(next_steps(None, config))
        os.chown(folder / "lists.key", 0, NOBODY)
        assert "may not read it" in "\n".join(next_steps(None, config))
        (folder / "lists.key").chmod(0o640)
        assert name not in "\n".join(next_steps(None, config))


def test_root_is_told_what_the_service_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root may read all, so that `run --check` alone is no proof."""
    path, key = tmp_path / "urlward.toml", tmp_path / "list.key"
    path.write_text('key = "list.key"\n')
    key.write_text("5f" * 32 + "\n")
    key.chmod(0o600)
    config = read_config(path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(service, "_unseen", lambda path: None)
    assert not unready(config), "another service's, or none's"
    monkeypatch.setattr(service, "SYSTEM", path)
    assert not unready(config), "there is no user urlward"
    monkeypatch.setattr(service, "_user", lambda: (NOBODY, frozenset({NOBODY})))
    systemctl = tmp_path / "systemctl"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def shows(*settings: str, code: int = 0) -> None:
        said = "\\n".join(("LoadState=loaded", *settings))
        systemctl.write_text(f"#!/bin/sh\nprintf '{said}\\n'\nexit {code}\n")
        systemctl.chmod(0o755)
        service._unit.cache_clear()

    for user, code in (("", 0), ("filter", 0), ("urlward", 1)):
        shows(f"User={user}", code=code)
        assert not unready(config), "it is another's, or no systemd starts it"
    shows("User=urlward")
    (said,) = unready(config)
    assert said.startswith(f"{key}: the user urlward may not read it: ")
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--check", "--config", str(path)])
    assert capsys.readouterr() == ("", f"urlward: {said}\n"), "or a script goes on to a restart that fails"
    key.chmod(0o644)
    assert not unready(config)
    # A unit that is not written by the configuration, as the Debian package's.
    path.write_text(f'confdir = "{tmp_path}"\n')
    tmp_path.chmod(0o777)
    monkeypatch.setitem(service._OWN_FOLDERS, "LogsDirectory", str(tmp_path.parent))
    for writable, own, count in (
        ("-/srv/other", "other", 1),
        (f"/srv/other {tmp_path.parent}", "", 0),
        ("", f"other {tmp_path.name}", 0),
    ):
        shows("User=urlward", "ProtectSystem=strict", f"ReadWritePaths={writable}", f"LogsDirectory={own}")
        told = "".join(unready(read_config(path)))
        assert told.count("the unit lets nothing be written there") == count, told
    path.write_text('key = "list.key"\n')
    key.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert not unready(config), "who may not read it has been told already"
    service._unit.cache_clear()


def test_what_is_added_to_the_unit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, file = Path("/hidden.test"), tmp_path / "file"
    monkeypatch.setitem(service._HIDDEN, "ProtectHome", (str(hidden),))
    for shown, is_seen in (("no", True), ("read-only", True), ("yes", False), ("tmpfs", False)):
        monkeypatch.setattr(service, "_unit", lambda shown=shown: {"ProtectHome": shown})
        assert ("ProtectHome" not in str(service._unseen(hidden / "lists"))) == is_seen
    monkeypatch.setattr(service, "_unit", lambda: {"SupplementaryGroups": "daemon none 12345"})
    monkeypatch.setattr(service, "NAME", "nobody")
    assert {grp.getgrnam("daemon").gr_gid, 12345} <= service._user()[1]
    file.touch(mode=0)
    assert not service._may(file, service._READ)
    monkeypatch.setattr(os, "listxattr", lambda path: ["system.posix_acl_access"])
    assert service._may(file, service._READ), "an access list may say so"
    file.chmod(0o644)
    monkeypatch.setattr(os, "listxattr", Mock(side_effect=OSError(errno.EOPNOTSUPP, "not supported")))
    assert service._may(file, service._READ), "not all file systems have any"


def verified(*units: Path) -> tuple[int, list[str]]:
    """Exit code of systemd's verification of units, and what it says of urlward's.

    It reads the machine's other units too, of which packages have some with faults.
    """
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    command = ["systemd-analyze", "verify", *units]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, [line for line in done.stderr.splitlines() if "urlward" in line]


def test_systemd_takes_it(tmp_path: Path) -> None:
    unit, _, closed = install(files(None, configuration(fail="closed")), tmp_path)
    assert verified(unit, closed) == (0, [])


# -- the unit's commands, as its user and with its capabilities


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network("svc") as made:
        yield made


CONFIGURATION = """\
list = ["{folder}/list.txt"]
listen = ":8088"
{mode}
workers = {workers}
[gateway]
interfaces = ["lan0"]
steer = {steer}
keep_source = {keeps}
dns = {{ port = 5388, resolvers = ["203.0.113.53"] }}
"""


class Service:
    """Does with a unit what systemd would."""

    def __init__(self, net: Network, folder: Path, **values: str) -> None:
        self.folder = folder
        (folder / "list.txt").write_text(f"{IPV4.origin}\n[{IPV6.origin}]\n")
        config = folder / "net.toml"
        config.write_text(CONFIGURATION.format(folder=folder, **values))
        self.unit = settings(files(config, configuration())[UNIT].replace(str(STATE), str(folder / "ca")))
        self._net = net
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "notify"))
        self.manager.settimeout(60)
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)

    def command(self, name: str) -> list[str]:
        readable = [sys.prefix, sys.base_prefix, str(Path(urlward.__file__).parents[1]), str(self.folder)]
        return [
            *self._net.gateway.prefix, "unshare", "-m", sys.executable, str(HERE / "unprivileged.py"),
            self.unit["AmbientCapabilities"], *dict.fromkeys(os.path.realpath(one) for one in readable), "--",
            *self.unit[name].split(),
        ]  # fmt: skip

    def run(self, name: str, **environment: str) -> str:
        done = subprocess.run(
            self.command(name), capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )
        assert done.stderr == "", done.stderr
        assert done.returncode == 0
        return done.stdout

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[str]"]:
        environment = {
            **os.environ,
            notify.SOCKET: str(self.folder / "notify"),
            notify.INTERVAL: "200000",
        }
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen(
                self.command("ExecStart"), stdout=log, stderr=log, env=environment, text=True
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)

    def heard(self, message: bytes) -> bool:
        while (one := self.manager.recv(100)) != message:
            assert one in (b"READY=1", b"WATCHDOG=1", b"STOPPING=1", b"STATUS=")
        return True


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
@pytest.mark.parametrize(
    "values",
    in_turns(
        {"steer": "false", "mode": 'mode = ["transparent"]', "workers": "1", "keeps": "false"},
        {"steer": "true", "mode": "", "workers": "2", "keeps": "true"},
    ),
    ids=["all", "steer"],
)
def test_the_service_filters_without_root(
    net: Network, tmp_path_factory: Any, values: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("service")
    service = Service(net, folder, **values)
    service.run("ExecStartPre")
    with service.running() as process:
        assert service.heard(b"READY=1"), (folder / "log").read_text()
        assert service.heard(b"WATCHDOG=1")
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(rf"^Uid:\s+{NOBODY}\b", status, re.M)
        assert re.search(r"^CapEff:\s+0*1000$", status, re.M)
        for f in (IPV4, IPV6):
            wait_for(lambda f=f: "451" in get(net, f.origin), "the listed address to be filtered")
            who = f.client if values["steer"] == "true" else f.wan
            wait_for(lambda: get(net, f.other) == f"origin {who} {f.other} 80", "another to pass")  # noqa: B023
        wait_for(lambda: canaries(net) == {"ok"}, "the canary to come through")
        process.send_signal(signal.SIGTERM)
        assert service.heard(b"STOPPING=1")
        assert process.wait(60) == 0
    assert service.run("ExecStopPost", SERVICE_RESULT="watchdog") == "rules kept\n"
    assert net.nft.json("list table inet urlward", terse=True)
    assert service.run("ExecStopPost", SERVICE_RESULT="success") == "rules kept\n"
    with (folder / "net.toml").open("a") as file:
        file.write('on_stop = "down"\n')
    assert service.run("ExecStopPost", SERVICE_RESULT="success") == "no rules\n"
    assert net.nft.json("list ruleset") == []
    service.manager.close()


def get(net: Network, address: str) -> str:
    """The first line of what a request gets; nothing where its connection is reset, as it begins."""
    try:
        with net.client.connect(address, 80) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: plain.example\r\nConnection: close\r\n\r\n")
            return s.recv(100).decode(errors="replace").partition("\n")[0].rstrip()
    except ConnectionError:
        return ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_folder_of_a_hook(tmp_path: Path) -> None:
    """It is the resolver's group's too."""
    folder = tmp_path / "hook"
    config = configuration(steer=True, hook={"folder": str(folder)})
    assert settings(files(None, config)[UNIT])["ReadWritePaths"] == str(folder)
    told = "\n".join(next_steps(None, config))
    assert f"install -d -o urlward -g unbound -m 2750 {folder} (for Unbound; or the group" in told
    folder.mkdir(mode=0o700)
    os.chown(folder, 0, 1)
    assert f"chown urlward {folder}" in "\n".join(next_steps(None, config))
