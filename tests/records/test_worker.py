import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from records.recording import SECRET, block, records
from records.support import own_messages
from rows import each_row
from urlward.engine.verdict import Verdict
from urlward.records.event import Event
from urlward.records.outbox import Outbox, Position
from urlward.records.privacy import UrlDigest
from urlward.records.worker import Hit, KnownFile, Recording

NOW = 1_795_500_000_123_456_789


def made(tmp_path: Path, **changes: Any) -> Recording:
    return Recording(records(**changes), tmp_path, SECRET, "3", clock=lambda: NOW)


def said(recording: Recording) -> list[Event]:
    writer = recording.writer
    return [event for event in map(writer._made, writer._new) if event is not None]


def test_a_block_has_all_that_is_known_and_no_url(tmp_path: Path) -> None:
    events = made(tmp_path)
    block(events, "R-1")
    (event,) = said(events)
    assert event == Event(
        id=event.id,
        time=NOW // 1_000_000,
        kind="block",
        node="gw1",
        client="192.0.2.7",
        client_port=40213,
        protocol="http",
        destination="198.51.100.7",
        destination_port=80,
        stage="match",
        list="main",
        serial=7,
        entry="7",
        category="phishing",
        verdict="block",
        reference="R-1",
        digest=UrlDigest(SECRET)("example.test/a"),
    )
    assert "example" not in repr(event)


@each_row(
    ("would", "cut", "kind"),
    [(False, False, "block"), (True, False, "would-block"), (False, True, "cut"), (True, True, "would-cut")],
)
def test_kinds(tmp_path: Path, would: bool, cut: bool, kind: str) -> None:
    events = made(tmp_path)
    events.hit(Hit(Verdict("monitor"), "", 0, "tls", "peek", would=would, cut=cut))
    (event,) = said(events)
    assert (event.kind, event.verdict, event.digest) == (kind, "monitor", "")


FILE = KnownFile("pdq", "cut", "image/jpeg", 4_000, distance=12, score=0.5, part="range", frame=2.00049)


@each_row(
    ("file", "detail"),
    [
        (KnownFile("md5", "learn"), {"algorithm": "md5", "action": "learn", "media": "", "size": 0}),
        (
            FILE,
            {
                "algorithm": "pdq", "action": "cut", "media": "image/jpeg", "size": 4_000, "distance": 12,
                "part": "range", "frame": 2.0,
            },
        ),
        (
            KnownFile("classifier", "alert", "image/png" * 50, 4, score=0.98765),
            {
                "algorithm": "classifier", "action": "alert", "media": ("image/png" * 50)[:100], "size": 4,
                "score": 0.988,
            },
        ),
    ],
)  # fmt: skip
def test_a_known_file_has_its_match_and_no_url(
    file: KnownFile, detail: dict[str, Any], tmp_path: Path
) -> None:
    events = made(tmp_path)
    verdict = Verdict("block", "file", "H-7", "csam", "hotline")
    events._serials = {"hotline": 9}
    url = "listed.example/picture.jpg"
    events.hit(Hit(verdict, "192.0.2.7", 40213, "http", "body", "R-1", lambda: url, cut=True, file=file))
    events.hit(Hit(verdict, "192.0.2.7", 40213, "http", "body", "R-2", file=file, prefetched=True))
    event, ahead = said(events)
    assert json.loads(ahead.detail) == detail | {"purpose": "prefetch"}
    assert (event.kind, event.stage, event.verdict, event.reference) == ("file", "body", "block", "R-1")
    assert (event.list, event.serial, event.entry, event.category) == ("hotline", 9, "H-7", "csam")
    assert (event.client, event.client_port, event.digest) == ("192.0.2.7", 40213, UrlDigest(SECRET)(url))
    assert json.loads(event.detail) == detail
    assert "listed.example" not in repr(event)
    counted = events.metrics.snapshot()
    assert (counted["matches"], counted["blocks"]) == ({"hotline": {file.algorithm: 2}}, {})


def test_a_known_file_is_counted_where_no_person_is_recorded(tmp_path: Path) -> None:
    events = made(tmp_path, privacy="counts")
    events.hit(Hit(Verdict("block", list="hotline"), "192.0.2.7", 40213, "http", "body", file=FILE))
    assert said(events) == []
    assert events.metrics.snapshot()["matches"] == {"hotline": {"pdq": 1}}


def test_privacy(tmp_path: Path) -> None:
    events = made(tmp_path, privacy="short")
    block(events, "R-1")
    assert [(event.client, event.client_port) for event in said(events)] == [("192.0.2.0/24", 0)]
    events = made(tmp_path, privacy="counts")
    block(events, "R-1")
    events.alarm("stall", "x")
    assert [event.kind for event in said(events)] == ["alarm"]
    assert events.metrics.snapshot()["blocks"] == {"main": {"phishing": 1}}


def test_operations(tmp_path: Path) -> None:
    events = made(tmp_path)
    events.tell("list", {"entries": 5}, list="main", serial=7)
    events.alarm("stall", "x" * 5000)
    changed, alarm = said(events)
    assert (changed.kind, changed.list, changed.serial) == ("list", "main", 7)
    assert json.loads(changed.detail) == {"entries": 5}
    assert json.loads(alarm.detail) == {"alarm": "stall", "text": "x" * 1000}


async def test_a_worker_says_that_it_begins_and_ends(tmp_path: Path) -> None:
    recording = made(tmp_path)
    task = asyncio.ensure_future(recording.run())
    await asyncio.sleep(0)
    await recording.close()
    task.cancel()
    found = Outbox(tmp_path).read("a", Position(), 10).events
    assert [(event.kind, json.loads(event.detail)) for event in found] == [
        ("start", {"process": "worker 3"}),
        ("stop", {"process": "worker 3"}),
    ]


async def test_metrics_that_cannot_be_told_cost_no_last_event(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> int:
        raise ZeroDivisionError("what is confidential")

    recording = made(tmp_path)
    recording._open = fails
    block(recording, "R-1")
    await recording.close()
    found = Outbox(tmp_path).read("a", Position(), 10).events
    assert [event.kind for event in found] == ["block", "stop"]
    assert own_messages(caplog) == ["records: the metrics cannot be told: ZeroDivisionError"]


@each_row("privacy", ["short", "digest", "counts"])
async def test_no_more_of_a_client_is_on_the_disk_than_may_be_kept(tmp_path: Path, privacy: str) -> None:
    recording = made(tmp_path, privacy=privacy)
    for n in range(300):
        block(recording, f"R-{n}")
    await recording.close()
    found = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"192.0.2.7" not in found
    assert b"40213" not in found
    assert b"example.test" not in found
    assert (b"R-299" in found) == (privacy != "counts")


async def test_what_the_disk_does_not_take_is_a_trouble_that_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = made(tmp_path)
    recording.writer.trouble = "outbox.db: full"
    assert recording.snapshot()["troubles"] == {"spool-down": "outbox.db: full"}
    recording.writer.trouble = ""
    assert recording.snapshot()["troubles"] == {}


def test_nothing_is_raised_whatever_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = made(tmp_path)
    events.hit(Hit(None, "confidential", 0, "tls", "peek"))  # type: ignore[arg-type]
    events.tell("list", {"entries": {1}})
    assert said(events) == []
    assert "could not be made: AttributeError" in caplog.text
    assert "confidential" not in caplog.text


def test_no_two_workers_have_one_name(tmp_path: Path) -> None:
    assert len({made(tmp_path).writer.name for _ in range(10)}) == 10
