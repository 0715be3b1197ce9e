import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import until
from gateway.inside import own_network
from urlward.engine.errors import UrlwardError
from urlward.policy import neighbours
from urlward.policy.neighbours import Neighbour, Neighbours, read_table

MAC, OTHER = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ip` may take its time where the machine has more to do."""
    monkeypatch.setattr(neighbours, "_TIMEOUT", 60.0)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.skipif(shutil.which("ip") is None, reason="no ip (iproute2)")
def test_the_kernels_table() -> None:
    with own_network():
        known = Neighbours((MAC, OTHER))
        known.refresh()
        assert (known.mac("192.0.2.5"), known.changes) == (None, 0)
        ip("link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
        for link in ("lan0", "lan1"):
            ip("link", "set", link, "up")
        for address, link, mac in (
            ("192.0.2.5", "lan0", MAC.upper()),
            ("2001:db8:1::5", "lan0", MAC),
            ("fe80::5", "lan0", MAC),
            ("fe80::6", "lan0", MAC),
            ("fe80::6", "lan1", OTHER),
        ):
            ip("neigh", "replace", address, "lladdr", mac, "dev", link, "nud", "permanent")
        known.refresh()
        for address in ("192.0.2.5", "2001:db8:1::5", "fe80::5"):
            assert known.mac(address) == MAC
        assert (known.mac("fe80::6"), known.changes) == (None, 1)
        ip("neigh", "replace", "192.0.2.5", "lladdr", OTHER, "dev", "lan0", "nud", "permanent")
        known.refresh()
        assert (known.mac("192.0.2.5"), known.changes) == (OTHER, 2)


def answering(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    program = folder / "ip"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 2", "ends with 2"),
        ("echo '['", "says nothing that is understood"),
        ('echo \'[{"lladdr": "02:00:00:00:00:0a"}]\'', "says nothing that is understood"),
        ("echo '[1]'", "says nothing that is understood"),
    ],
)
def test_what_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str) -> None:
    answering(monkeypatch, tmp_path, script)
    with pytest.raises(UrlwardError, match=message):
        read_table()


def test_who_does_not_answer_is_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(
        monkeypatch,
        tmp_path,
        """echo '[{"dst":"192.0.2.5","dev":"a","lladdr":"02:00:00:00:00:0a","state":["FAILED"]},"""
        """{"dst":"192.0.2.6","dev":"a","state":["INCOMPLETE"]},"""
        """{"dst":"192.0.2.7","dev":"a","lladdr":"02:00:00:00:00:0b","state":["STALE"]}]'""",
    )
    known = Neighbours((MAC, OTHER))
    known.refresh()
    assert [known.mac(f"192.0.2.{n}") for n in (5, 6, 7)] == [None, None, OTHER]


def test_who_is_named_by_no_group_changes_nothing() -> None:
    """A network may have tens of thousands of neighbours, and one client give itself as many addresses."""
    rows: list[Neighbour] = []
    known = Neighbours((MAC,), lambda: rows)
    rows.append(Neighbour("192.0.2.5", MAC))
    known.refresh()
    rows += (Neighbour(f"2001:db8::{n:x}", OTHER) for n in range(9))
    known.refresh()
    assert (known.mac("192.0.2.5"), known.mac("2001:db8::1"), known.changes) == (MAC, None, 1)
    assert not known._wanted.is_set(), "nobody is looked for who is there"
    rows.append(Neighbour("192.0.2.5", OTHER))
    known.refresh()
    assert (known.mac("192.0.2.5"), known.changes) == (None, 2), "an address of two is nobody's"


def test_what_is_no_address_is_no_table() -> None:
    rows = [Neighbour("192.0.2.5", MAC)]
    known = Neighbours((MAC,), lambda: rows)
    known.refresh()
    rows.append(Neighbour("192.0.2", MAC))
    known.refresh()
    assert (known.mac("192.0.2.5"), known.changes) == (MAC, 1), "what is known stays"


def test_no_ip_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    known = Neighbours((MAC,))
    with caplog.at_level(logging.WARNING):
        known.refresh()
        known.refresh()
    assert [record.message for record in caplog.records] == [
        "MAC addresses of clients are not known, so networks decide: ip: No such file or directory"
    ]
    assert (known.mac("192.0.2.5"), known.changes) == (None, 0)


def test_what_is_known_stays_while_the_table_cannot_be_read() -> None:
    rows = [Neighbour("192.0.2.5", MAC)]
    answers = iter([rows, None, rows])

    def read() -> list[Neighbour]:
        answer = next(answers)
        if answer is None:
            raise UrlwardError("broken")
        return answer

    known = Neighbours((MAC,), read)
    for _ in range(3):
        known.refresh()
        assert (known.mac("192.0.2.5"), known.changes) == (MAC, 1)


async def test_a_new_client_is_looked_for_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SOON", 0.001)
    monkeypatch.setattr(neighbours, "INTERVAL", 3600.0)
    table: list[Neighbour] = []
    reads = 0

    def read() -> list[Neighbour]:
        nonlocal reads
        reads += 1
        return [*table]

    known = Neighbours((MAC,), read)
    watching = asyncio.create_task(known.watch())
    try:
        await until(lambda: reads)
        table.append(Neighbour("192.0.2.5", MAC))
        await until(lambda: known.mac("192.0.2.5") == MAC)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    assert known.changes == 1
