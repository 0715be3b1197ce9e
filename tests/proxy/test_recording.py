"""What the guard decides becomes an event and a count."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lists.support import SECRET
from proxy.driver import NOW, make_context, make_matcher
from proxy.test_guard import for_host
from proxy.test_names import request, to
from urlward.config import PageTable
from urlward.engine.digest import Key
from urlward.engine.verdict import Verdict
from urlward.feeds.keeper import Keeper, Taken
from urlward.proxy.block_page import BlockPage
from urlward.proxy.guard import Guard
from urlward.records.event import Event
from urlward.records.worker import Recording

pytestmark = pytest.mark.usefixtures("compiles_here")


def guard(recording: Recording, **changes: Any) -> Guard:
    matcher = make_matcher("blocked.example id=E-1 category=phishing", "192.0.2.66 id=E-2")
    page = BlockPage(PageTable())
    return Guard(
        lambda: matcher, page, metrics=recording.metrics, recording=recording, clock=lambda: NOW, **changes
    )


async def test_a_block(recording: Recording, told: list[Event]) -> None:
    guard(recording).answer(for_host("blocked.example", "/some/page"), make_context())
    (event,) = told
    assert (event.kind, event.node, event.list, event.entry) == ("block", "gw1", "test", "E-1")
    assert (event.client, event.client_port, event.protocol, event.stage) == (
        "192.0.2.1",
        1234,
        "http",
        "match",
    )
    assert (event.category, event.verdict) == ("phishing", "block")
    assert len(event.digest) == 32
    assert "blocked.example" not in repr(event)
    counted = recording.metrics.snapshot()
    assert counted["requests"]["match"]["block"] == 1
    assert counted["blocks"]["test"]["phishing"] == 1
    assert sum(counted["histograms"]["check"]["counts"]) == 1


@pytest.mark.parametrize(
    ("field", "detail"),
    [
        ((b"Sec-Purpose", b"prefetch;prerender"), '{"purpose":"prefetch"}'),
        ((b"purpose", b"Prefetch"), '{"purpose":"prefetch"}'),
        ((b"X-moz", b"prefetch"), '{"purpose":"prefetch"}'),
        ((b"X-Note", b"prefetch"), ""),
        ((b"Sec-Purpose", b"other;prefetch"), ""),
    ],
)
@pytest.mark.parametrize("monitor", [False, True])
async def test_a_prefetch_says_so(
    field: tuple[bytes, bytes], detail: str, monitor: bool, recording: Recording, told: list[Event]
) -> None:
    asked = request((b"Host", b"blocked.example"), field)
    guard(recording, monitor=monitor).answer(asked, make_context())
    (event,) = told
    assert (event.kind, event.detail) == ("would-block" if monitor else "block", detail)


async def test_equal_urls_have_equal_digests(recording: Recording, told: list[Event]) -> None:
    g = guard(recording)
    for path in ("/a", "/./a", "/b"):
        g.answer(for_host("blocked.example", path), make_context())
    assert told[0].digest == told[1].digest != told[2].digest


async def test_an_odd_name_is_recorded_as_the_host_it_means(recording: Recording, told: list[Event]) -> None:
    g = guard(recording, tls_block="alert")
    for name in (b"blocked.example", b"blocked.example:443", b"BLOCKED.example:x", b"a^b.blocked.example"):
        g.tls(make_context(), name)
    assert told[0].digest == told[1].digest == told[2].digest != told[3].digest
    assert len(told[3].digest) == 32


async def test_what_passes_leaves_a_count_alone(recording: Recording, told: list[Event]) -> None:
    guard(recording).answer(for_host("plain.example"), make_context())
    assert told == []
    assert recording.metrics.snapshot()["requests"]["match"]["pass"] == 1


async def test_monitored_and_cut_and_tls(recording: Recording, told: list[Event]) -> None:
    names = guard(recording, monitor=True).tls(make_context(), b"blocked.example")[1]
    assert names.told
    guard(recording).tls(to("192.0.2.66"), b"plain.example")
    guard(recording, tls_block="alert").tls(make_context(), b"blocked.example")
    guard(recording).review(names._replace(told=False), make_context().client)
    kinds = [(event.kind, event.protocol, event.stage) for event in told]
    assert kinds == [("would-block", "tls", "peek"), ("block", "tls", "peek"), ("cut", "tls", "peek")]


async def test_faults_and_refusals_are_counted(recording: Recording, told: list[Event]) -> None:
    def fail() -> Any:
        raise RuntimeError

    g = Guard(fail, BlockPage(PageTable()), metrics=recording.metrics, recording=recording, clock=lambda: NOW)
    g.answer(for_host("plain.example"), make_context())
    guard(recording).answer(for_host("not a host"), make_context())
    counted = recording.metrics.snapshot()
    assert counted["requests"]["match"] == {"error": 1, "refuse": 1}
    assert counted["errors"]["decision"] == 1
    assert told == []


async def test_by_dns(recording: Recording, told: list[Event]) -> None:
    verdict = Verdict("block", "domain", "E-1", "phishing", "test")
    for client, port in (("192.0.2.5", 4000), ("2001:db8::7:5", 53), ("192.0.2.5", 0)):
        recording.hit_by_dns(verdict, "blocked.example", client, port, "R")
        event = told.pop()
        assert (event.client, event.client_port, event.protocol, event.stage) == (client, port, "dns", "dns")


async def test_lists(recording: Recording, told: list[Event], tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.example\nb.example\n")
    keeper = Keeper([path], Key(SECRET))
    keeper.load()
    recording.take_lists(keeper)
    (shown,) = recording.metrics.snapshot()["lists"]
    assert shown[0] == "list"
    assert shown[2] == 2
    path.write_text("a.example\n")
    await keeper.reload()
    assert (told[-1].kind, told[-1].list, told[-1].detail) == (
        "list", "list", '{"entries":1,"added":0,"removed":1}',
    )  # fmt: skip
    path.write_text("<html>")
    await keeper.reload()
    assert recording.snapshot()["failed_reloads"] == 1
    assert list(recording.snapshot()["refused"]) == ["list"]
    assert "a web page" in recording.snapshot()["refused"]["list"]
    assert keeper.on_taken is not None
    keeper.on_taken(keeper, Taken("list", 1, 1, 1, 0.5))
    assert sum(recording.metrics.snapshot()["histograms"]["reload"]["counts"]) == 2


async def test_it_ends_in_time_where_nobody_records(recording: Recording) -> None:
    task = asyncio.create_task(recording.run(lambda: 7))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(60):
        await recording.close()
    task.cancel()
    assert recording.snapshot()["open"] == 7
