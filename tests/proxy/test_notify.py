import errno
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from urlward.proxy import notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(60)
        monkeypatch.setenv(notify.SOCKET, str(tmp_path / "notify"))
        monkeypatch.setattr(notify, "_said", float("-inf"))
        for name in (notify.INTERVAL, notify.WHO):
            monkeypatch.delenv(name, raising=False)
        yield s


def said(manager: socket.socket) -> list[bytes]:
    messages = []
    manager.setblocking(False)
    try:
        while True:
            messages.append(manager.recv(100))
    except BlockingIOError:
        return messages


def test_messages(manager: socket.socket) -> None:
    notify.ready()
    notify.stopping()
    assert said(manager) == [b"READY=1", b"STOPPING=1"]


def test_what_fails_withholds_signs_of_life(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notify.INTERVAL, "1")
    monkeypatch.setattr(notify, "_withheld", {})
    notify.alive()
    for _ in range(2):
        notify.withhold("canary: redirect: no answer")
        notify.alive()
    assert said(manager) == [b"WATCHDOG=1", b"STATUS=canary: redirect: no answer"]
    assert notify.withheld() == "canary: redirect: no answer"
    notify.withhold("")
    notify.alive()
    assert said(manager) == [b"STATUS=", b"WATCHDOG=1"]


def test_an_abstract_socket(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"urlward-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(f"\0{name}")
        monkeypatch.setenv(notify.SOCKET, f"@{name}")
        notify.ready()
        assert said(s) == [b"READY=1"]


def test_nobody_listens(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notify.SOCKET, "/nowhere/at/all")
    notify.ready()
    monkeypatch.delenv(notify.SOCKET)
    notify.ready()
    assert said(manager) == []


def test_signs_of_life_are_not_more_than_asked_for(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify.alive()
    assert said(manager) == [], "nobody asks"
    monkeypatch.setenv(notify.INTERVAL, "60000000")
    assert notify.interval() == 30
    for _ in range(5):
        notify.alive()
    assert said(manager) == [b"WATCHDOG=1"]


@pytest.mark.parametrize(("usec", "pid"), [("x", ""), ("0", ""), ("1000", "1")])
def test_what_is_not_for_this_process(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, usec: str, pid: str
) -> None:
    monkeypatch.setenv(notify.INTERVAL, usec)
    if pid:
        monkeypatch.setenv(notify.WHO, pid)
    assert notify.interval() is None


def test_signs_of_life_need_no_descriptor(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is out of them lives still; systemd would end it."""
    monkeypatch.setenv(notify.INTERVAL, "1")
    notify.ready()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            socket.socket()
        notify.alive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert said(manager) == [b"READY=1", b"WATCHDOG=1"]
