import tomllib
from pathlib import Path

import pytest

from urlward.config import read_config
from urlward.engine.errors import UrlwardError
from urlward.lab import filter as module
from urlward.lab.filter import FilterLog, LabFilter, LoggedHit
from urlward.lab.scenario import load_scenario

SCENARIO = """\
description = "x"
[list]
entries = \"\"\"
@@http://paged.example/allowed.html id=A
||whole.example^ id=B
192.0.2.7 id=C
*/gallery/one-two/* id=D
\"\"\"
make = { entries = 10 }
[filter]
workers = 3
tls_block = "alert"
[gateway]
fail = "closed"
[gateway.dns]
timeout = 1.5
[[steps]]
wait = 1
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabFilter:
    monkeypatch.setattr(module, "small_disk", lambda folder, _: folder.mkdir())
    path = tmp_path / "mine.toml"
    path.write_text(SCENARIO)
    return LabFilter(tmp_path, load_scenario(str(path)), tmp_path / "ca.pem", ipv6=True)


def test_its_configuration_is_one_that_urlward_reads(made: LabFilter, tmp_path: Path) -> None:
    config = read_config(made.config)
    assert config.list == (str(made.list),)
    assert (config.workers, config.tls_block, config.monitor) == (3, "alert", False)
    assert (config.gateway.steer, config.gateway.fail, config.gateway.dns.timeout) == (True, "closed", 1.5)
    assert config.gateway.dns.resolvers == ("198.51.100.53",)
    assert config.gateway.interfaces == ("lan0", "lan1")
    assert config.mitmproxy == {"ssl_verify_upstream_trusted_ca": str(tmp_path / "ca.pem")}
    assert "seed" not in tomllib.loads(made.config.read_text()), "what is the lab's own stays out of it"


def test_its_list(made: LabFilter) -> None:
    first = made.list.read_text()
    assert len(first.splitlines()) == 14
    made.write_list("later.example\n")
    assert made.list.read_text() == first + "later.example\n"
    made.damage_list()
    made.write_list()
    assert made.list.read_text() == first + "later.example\n", "what was added stays until it is taken away"
    made.write_list("")
    assert made.list.read_text() == first


def test_secrets_are_hosts_and_pages_of_the_list(made: LabFilter) -> None:
    secrets = made.secrets()
    assert {"paged.example", "paged.example/allowed.html", "whole.example"} <= secrets
    assert "192.0.2.7" not in secrets, "addresses are allowed where they are unavoidable"


def test_what_does_not_run_has_no_workers(made: LabFilter) -> None:
    assert not made.running
    assert made.workers() == []
    with pytest.raises(UrlwardError, match="no workers"):
        made.kill_workers()


def test_its_log(tmp_path: Path) -> None:
    log = FilterLog(tmp_path / "log")
    assert log.read() == []
    line = "2026-11-25T09:23:16.337Z {} client=192.0.2.10:1 list=l entry=E category=- reference={}\n"
    log.path.write_text(
        "listening on x\n" + line.format("block", "R-1") + line.format("would-cut", "R-2")[:-9]
    )
    assert log.read() == [LoggedHit("block", "192.0.2.10:1", "E", "-", "R-1")]
    with log.path.open("a") as file:
        file.write(line[-5:].format("R-2"))
    assert len(log.read()) <= 2


def test_a_list_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "small_disk", lambda folder, _: folder.mkdir())
    path = tmp_path / "mine.toml"
    path.write_text('description = "x"\n[list]\nfile = "gone.txt"\n[[steps]]\nwait = 1\n')
    with pytest.raises(UrlwardError, match=r"gone\.txt: No such file"):
        LabFilter(tmp_path, load_scenario(str(path)), tmp_path / "ca.pem", ipv6=True)
