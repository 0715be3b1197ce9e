import json
from pathlib import Path
from typing import Any

import pytest

from records.recording import SECRET, block, records
from urlward.engine.verdict import Verdict
from urlward.records.event import Event
from urlward.records.events import Events
from urlward.records.privacy import UrlDigest

NOW = 1_795_500_000_123_456_789


def made(tmp_path: Path, **changes: Any) -> Events:
    return Events(records(**changes), tmp_path, SECRET, "3", clock=lambda: NOW)


def said(events: Events) -> list[Event]:
    emitter = events.emitter
    return [event for event in map(emitter._made, emitter._new) if event is not None]


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


@pytest.mark.parametrize(
    ("would", "cut", "kind"),
    [(False, False, "block"), (True, False, "would-block"), (False, True, "cut"), (True, True, "would-cut")],
)
def test_kinds(tmp_path: Path, would: bool, cut: bool, kind: str) -> None:
    events = made(tmp_path)
    events.blocked(
        verdict=Verdict("monitor"),
        client="",
        client_port=0,
        protocol="tls",
        stage="peek",
        would=would,
        cut=cut,
    )
    (event,) = said(events)
    assert (event.kind, event.verdict, event.digest) == (kind, "monitor", "")


def test_privacy(tmp_path: Path) -> None:
    events = made(tmp_path, privacy="short")
    block(events, "R-1")
    assert [(event.client, event.client_port) for event in said(events)] == [("192.0.2.0/24", 0)]
    events = made(tmp_path, privacy="counts")
    block(events, "R-1")
    events.started()
    assert [event.kind for event in said(events)] == ["start"]


def test_operations(tmp_path: Path) -> None:
    events = made(tmp_path)
    events.list_changed("main", 7, 5, 1, 0)
    events.alarm("stall", "x" * 5000)
    events.started()
    events.stopped()
    changed, alarm, start, stop = said(events)
    assert (changed.kind, changed.list, changed.serial) == ("list", "main", 7)
    assert json.loads(changed.detail) == {"entries": 5, "added": 1, "removed": 0}
    assert json.loads(alarm.detail) == {"alarm": "stall", "text": "x" * 1000}
    assert [json.loads(event.detail) for event in (start, stop)] == [{"process": "worker 3"}] * 2


def test_nothing_is_raised_whatever_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = made(tmp_path)
    events.blocked(verdict=None, client="confidential", client_port=0, protocol="tls", stage="peek")  # type: ignore[arg-type]
    events.list_changed("main", 7, {1}, 1, 0)  # type: ignore[arg-type]
    assert said(events) == []
    assert "could not be made: AttributeError" in caplog.text
    assert "confidential" not in caplog.text


def test_no_two_workers_have_one_name(tmp_path: Path) -> None:
    assert len({made(tmp_path).emitter._worker for _ in range(10)}) == 10
