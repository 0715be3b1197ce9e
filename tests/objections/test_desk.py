import asyncio
from pathlib import Path

import pytest

from urlward.config import ObjectionsTable, PageTable
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import Objection, read_objections
from urlward.objections.server import FAULTY, ObjectionDesk
from urlward.state.folder import local_key

REFERENCE = "7Q4M-2XKD-93FH"


def desk(state: Path, taken: list[Objection], **limits: int) -> ObjectionDesk:
    table = ObjectionsTable(url="http://gateway.example/", **limits)
    return ObjectionDesk(
        table, PageTable(), state, local_key(state),
        conceal=lambda address, now: f"{address} at {now:.0f}", taken=taken.append,
        clock=lambda: 1_800_000_000.0, timer=lambda: 0.0,
    )  # fmt: skip


async def test_what_is_kept_of_a_client_is_not_its_affair(tmp_path: Path) -> None:
    taken: list[Objection] = []
    said = await desk(tmp_path, taken).take("7q4m 2xkd 93fh", " hello ", "192.0.2.7")
    assert (said.status, said.outcome, said.reference, said.wait) == (200, "received", REFERENCE, 0)
    assert [one.client for one in taken] == ["192.0.2.7 at 1800000000"]


async def test_a_network_of_64_bits_is_one_client(tmp_path: Path) -> None:
    d = desk(tmp_path, [], per_hour=1)
    said = [await d.take(REFERENCE, "hello", f"2001:db8:1:2::{n}") for n in range(2)]
    assert [one.status for one in said] == [200, 429]
    assert (await d.take(REFERENCE, "hello", "2001:db8:1:3::1")).status == 200


async def test_faulty(tmp_path: Path) -> None:
    assert await desk(tmp_path, []).take("", "hello", "192.0.2.7") == FAULTY
    assert await desk(tmp_path, []).take(REFERENCE, "", "192.0.2.7") == FAULTY


async def test_many_at_once_are_all_kept(tmp_path: Path) -> None:
    d = desk(tmp_path, [], per_hour=50)
    await asyncio.gather(*(d.take(REFERENCE, f"{n}", "192.0.2.7") for n in range(20)))
    assert len(read_objections(tmp_path)) == 20


async def test_what_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **more: object) -> None:
        raise UrlwardError("disk full")

    monkeypatch.setattr("urlward.objections.server.add_objection", fail)
    taken: list[Objection] = []
    said = await desk(tmp_path, taken).take(REFERENCE, "hello", "192.0.2.7")
    assert (said.status, said.outcome, said.wait, taken) == (503, "later", 600, [])
