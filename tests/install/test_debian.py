"""The Debian package on a machine of its own, under systemd: installed, used, upgraded, removed and purged.

One story, in order: each test begins with what the one before has left.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import wait_for
from install.conftest import VERSIONS
from install.machine import Machine

# By turns with the image, which has the package in it.
pytestmark = [pytest.mark.long, pytest.mark.turn(1, 2)]

CLIENT = """\
import http.client, select, sys

asked, failed = 0, []
while not select.select([sys.stdin], [], [], 0.005)[0]:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
        connection.request("GET", "http://blocked.example/")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 451:
            failed.append(str(answer.status))
    except OSError as e:
        failed.append(repr(e))
    asked += 1
    if asked == 20:
        print("begun", flush=True)
print(asked, *failed)
"""
"""Asks for a listed page on one connection after another until its input ends; says what was no block."""

OF_DPKG = (
    "/dev",
    "/proc",
    "/run",
    "/sys",
    "/tmp",
    "/var/cache",
    "/var/log",
    "/srv",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/systemd",
)
"""Where a package manager, a machine that runs, or a test keeps what is its own."""


def files(machine: Machine) -> set[str]:
    found = machine.run("find", "/", "-xdev", "-not", "-name", "*.pyc").splitlines()
    return {path for path in found if not path.startswith(OF_DPKG) and not re.fullmatch(r"/etc/\w+-", path)}


@pytest.fixture(scope="module")
def before(machine: Machine) -> set[str]:
    """All files of the machine before there was a package."""
    return files(machine)


@pytest.fixture(scope="module")
def given(machine: Machine, package: Path, next_package: Path) -> Iterator[list[str]]:
    """The packages as the machine has them."""
    packages = (package, next_package)
    folder = machine.root / "srv"
    paths = [folder / path.name for path in packages]
    for path, source in zip(paths, packages, strict=True):
        path.hardlink_to(source)
    yield [f"/srv/{path.name}" for path in paths]
    for path in paths:
        path.unlink()


def main_process(machine: Machine) -> str:
    return machine.run("systemctl", "show", "-P", "MainPID", "urlward.service").strip()


def workers(machine: Machine) -> set[str]:
    """Process IDs of what the supervisor has started."""
    main = main_process(machine)
    return set(machine.run("cat", f"/proc/{main}/task/{main}/children").split())


def version_that_filters(machine: Machine) -> str:
    found = re.search(
        r'urlward_build_info\{version="([^"]+)"\}', machine.run("urlward", "metrics", "show", code=None)
    )
    return found[1] if found else ""


def asked(machine: Machine, url: str) -> str:
    """Status and body that the proxy gives for a URL."""
    program = (
        "import sys, http.client; c = http.client.HTTPConnection('127.0.0.1', 8080, timeout=60); "
        "c.request('GET', sys.argv[1]); a = c.getresponse(); print(a.status, a.read().decode())"
    )
    return machine.run("python3", "-c", program, url)


@pytest.fixture(scope="module")
def installed(machine: Machine, before: set[str], given: list[str]) -> str:
    return machine.run("apt-get", "install", "-q", "-y", "--no-install-recommends", given[0])


def test_one_of_a_later_commit_has_a_later_version(package: Path) -> None:
    """Until the next release, too: apt takes one of the same version for what is installed already."""
    assert package.name.startswith(f"urlward_{VERSIONS[0]}-20261201000000_")


def test_it_filters_once_it_is_installed(machine: Machine, installed: str) -> None:
    assert (
        machine.run("systemctl", "is-active", "urlward.socket", "urlward.service").split() == ["active"] * 2
    )
    assert (
        machine.run("systemctl", "is-enabled", "urlward.socket", "urlward.service").split() == ["enabled"] * 2
    )
    assert asked(machine, "http://blocked.example/").startswith("451 ")
    wait_for(lambda: machine.succeeds("urlward", "status"), "all to be well")
    assert machine.run("urlward", "--version") == f"urlward {VERSIONS[0]}\n"
    assert version_that_filters(machine) == VERSIONS[0]


@pytest.mark.usefixtures("installed")
def test_it_runs_as_a_user_of_its_own_with_nothing_more_than_it_needs(machine: Machine) -> None:
    status = machine.run("cat", f"/proc/{main_process(machine)}/status")
    user = machine.run("id", "-u", "urlward").strip()
    assert re.search(rf"^Uid:\s+{user}\s", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert machine.run("stat", "-c", "%a %U", "/var/lib/urlward").split() == ["700", "urlward"]
    assert machine.run("stat", "-c", "%U", "/etc/urlward/urlward.toml").strip() == "root"
    assert "root" in machine.run("find", "/usr/lib/urlward", "-maxdepth", "1", "-printf", "%u\n")
    assert machine.run("find", "/usr/lib/urlward", "!", "-user", "root") == ""


@pytest.mark.usefixtures("installed")
def test_connections_wait_in_the_socket_while_the_service_restarts(machine: Machine) -> None:
    main = main_process(machine)
    machine.run("systemctl", "stop", "urlward.service")
    assert asked(machine, "http://blocked.example/").startswith("451 "), "one that comes begins the service"
    assert main_process(machine) not in (main, "0")


@pytest.mark.usefixtures("installed")
def test_what_comes_with_it(machine: Machine) -> None:
    page = machine.run("man", "urlward")
    assert "urlward gateway" in page
    assert "--max-errors" in page
    topics = [line.split()[0] for line in machine.run("urlward", "help").splitlines()[2:]]
    manual = machine.run("sh", "-c", "ls /usr/share/man/man7")
    assert [name for name in topics if f"urlward-{name}.7" not in manual] == []
    assert "keep_source" in machine.run("man", "urlward-configuration")
    described = machine.run("whatis", "urlward", "urlward-feeds")
    assert "urlward (1) " in described
    assert "urlward-feeds (7) " in described
    completion = machine.run(
        "bash", "-c", ". /usr/share/bash-completion/completions/urlward; "
        "COMP_WORDS=(urlward gat) COMP_CWORD=1; _shtab_urlward; echo ${COMPREPLY[@]}",
    )  # fmt: skip
    assert completion == "gateway\n"
    machine.run("urlward", "run", "--config", "/etc/urlward/urlward.toml", "--check")
    machine.run("urlward", "demo")
    assert "urlward_hook.lua" in machine.run("ls", "/usr/share/urlward/hooks")
    assert machine.run("ls", "/usr/share/doc/urlward/examples").split() == [
        "lists",
        "monitoring",
        "urlward.example.toml",
    ]


OF_PUBLISHER = ("publisher.toml", "phishing.txt", "lists.key", "body", "body.pub")
PUBLISHER = """\
[[feed]]
name = "phishing"
path = "/etc/urlward/phishing.txt"
[publish]
to = "/srv/lists"
key = "lists.key"
sign = "body"
[records]
privacy = "counts"
days = { operations = 1 }
"""


@pytest.mark.usefixtures("installed")
def test_a_publisher_is_a_service_once_it_is_configured(machine: Machine) -> None:
    unit = "urlward-publish.service"
    assert machine.run("systemctl", "is-enabled", unit, code=None) == "disabled\n"
    assert machine.run("systemctl", "is-active", unit, code=None) == "inactive\n"
    folder = machine.root / "etc/urlward"
    (folder / "publisher.toml").write_text(PUBLISHER)
    (folder / "phishing.txt").write_text("phish.example\n")
    machine.run("urlward", "keygen", "-o", "/etc/urlward/lists.key")
    machine.run("urlward", "keygen", "--signing", "-o", "/etc/urlward/body")
    machine.run("chgrp", "urlward-publish", "/etc/urlward/lists.key", "/etc/urlward/body")
    machine.run("chmod", "0640", "/etc/urlward/lists.key", "/etc/urlward/body")
    machine.run("install", "-d", "-o", "urlward-publish", "-g", "urlward-publish", "/srv/lists")
    machine.run("systemctl", "enable", "--now", unit)
    wait_for(lambda: (machine.root / "srv/lists/stable/phishing.ward").exists(), "the list to be published")
    assert "leads /srv/lists" in machine.run("systemctl", "status", unit)
    state = ("--config", "/etc/urlward/publisher.toml", "--state", "/var/lib/urlward-publish")
    wait_for(lambda: machine.succeeds("urlward", "status", *state), "all to be well")
    process = machine.run("systemctl", "show", "-P", "MainPID", unit).strip()
    user = machine.run("id", "-u", "urlward-publish").strip()
    assert re.search(rf"^Uid:\s+{user}\s", machine.run("cat", f"/proc/{process}/status"), re.MULTILINE)
    machine.run("/usr/lib/urlward/bin/python", "-c", "import s3fs")
    machine.run("systemctl", "disable", "--now", unit)
    machine.run("rm", "-r", "/srv/lists", *(f"/etc/urlward/{name}" for name in OF_PUBLISHER))


@pytest.mark.usefixtures("installed")
def test_nothing_names_the_place_where_it_was_built(machine: Machine) -> None:
    assert machine.run("grep", "-rlI", "debian/urlward/usr", "/usr/lib/urlward", code=1) == ""
    assert machine.run("dpkg", "--verify", "urlward") == "", "nothing that was installed has changed"


@pytest.mark.usefixtures("installed")
def test_an_upgrade_replaces_the_workers_and_refuses_nobody(machine: Machine, given: list[str]) -> None:
    configuration = machine.root / "etc/urlward/urlward.toml"
    configuration.write_text(own := configuration.read_text() + '\n[page]\noperator = "Example Net"\n')
    machine.run("systemctl", "reload", "urlward.service")
    wait_for(lambda: "Example Net" in asked(machine, "http://blocked.example/"), "the changed configuration")
    main, old = main_process(machine), workers(machine)
    client = subprocess.Popen(
        machine.command("python3", "-c", CLIENT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "begun\n"
        machine.run("apt-get", "install", "-q", "-y", "--no-install-recommends", given[1])
        wait_for(lambda: version_that_filters(machine) == VERSIONS[1], "the new version to filter")
        wait_for(lambda: not old & workers(machine), "all old processes to be gone")
        said = client.communicate(timeout=60)[0]
    finally:
        client.kill()
    asked_for, *failed = said.split(maxsplit=1)
    assert int(asked_for) >= 20
    assert failed == [], "connections that were refused, reset or answered with anything but a block"
    assert main_process(machine) == main, "the supervisor holds the sockets meanwhile"
    assert configuration.read_text() == own, "a configuration that was changed is the operator's"
    assert "Example Net" in asked(machine, "http://blocked.example/")
    wait_for(lambda: machine.succeeds("urlward", "status"), "all to be well")


@pytest.mark.usefixtures("installed")
def test_removed_it_is_over_and_what_is_the_operators_stays(machine: Machine) -> None:
    machine.run("apt-get", "remove", "-q", "-y", "urlward")
    assert (
        machine.run("systemctl", "is-active", "urlward.socket", "urlward.service", code=None).split()
        == ["inactive"] * 2
    )
    assert machine.run("find", "/proc", "-maxdepth", "1", "-user", "urlward") == "", "no process is left"
    assert "Example Net" in machine.run("cat", "/etc/urlward/urlward.toml")
    assert (machine.root / "var/lib/urlward/admin.token").exists()


def test_purged_it_leaves_nothing(machine: Machine, before: set[str], installed: str) -> None:
    assert installed
    # As an operator leaves them.
    (machine.root / "etc/systemd/system/urlward-publish.service.d").mkdir()
    (machine.root / "etc/urlward/lists.key").write_text("own")
    units = machine.root / "etc/systemd/system"
    for unit in ("urlward.service", "urlward-closed.service"):
        (units / unit).write_text("[Service]\nExecStart=/usr/lib/urlward/bin/urlward run\n")
    (units / "urlward.socket.d").mkdir(exist_ok=True)
    (units / "urlward.socket.d/override.conf").write_text("[Socket]\n")
    machine.run("apt-get", "purge", "-q", "-y", "urlward")
    assert files(machine) - before == set()
    assert machine.run("grep", "-r", "urlward", "/etc/passwd", "/etc/group", "/etc/shadow", code=1) == ""
    machine.run("systemctl", "daemon-reload")
    assert machine.run("systemctl", "list-unit-files", "--output=json", "urlward*", code=1) == "[]\n"
