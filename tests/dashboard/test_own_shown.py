"""Which of many own entries a page shows, and how often they are read for it."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from urlward.config import Config
from urlward.dashboard import live_sources
from urlward.dashboard.live_sources import LiveSources
from urlward.dashboard.pages import SHOWN, shown_of
from urlward.policy.own import FILE, OwnEntry, add_own, draft, own_entries, remove_own
from urlward.state.folder import local_key

ENTRIES = [{"id": f"o-{n}"} for n in range(2 * SHOWN + 1)]


def test_the_newest_come_first_and_all_are_reached() -> None:
    found, before, pages = [], "", 0
    while pages == 0 or before:
        rows, before = shown_of(ENTRIES, before)
        assert len(rows) <= SHOWN
        found += rows
        pages += 1
    assert found == ENTRIES[::-1]
    assert pages == 3


def test_few() -> None:
    assert shown_of([], "") == ([], "")
    assert shown_of(ENTRIES[:SHOWN], "") == (ENTRIES[:SHOWN][::-1], "")
    assert shown_of(ENTRIES[:2], "gone")[0] == ENTRIES[:2][::-1]
    assert shown_of(ENTRIES, "o-0") == ([], "")


def test_what_was_revealed_is_shown_wherever_it_is() -> None:
    assert shown_of(ENTRIES, "", {"o-1": "a line"}) == ([{"id": "o-1"}], "")


def test_they_are_read_once_for_as_long_as_they_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand take a second and 100 MB: forty who asked at a time had the process at 4 GB."""
    state, reads = tmp_path / "state", []

    def counted(folder: Path) -> list[OwnEntry]:
        reads.append(folder)
        return own_entries(folder)

    monkeypatch.setattr(live_sources, "own_entries", counted)
    live = LiveSources(Config(), state)
    assert live.own() == []
    added = [
        add_own(state, local_key(state), draft(f"{name}.test"), "ann", now=time.time()).id for name in "ab"
    ]
    reads.clear()
    with ThreadPoolExecutor(8) as threads:
        shown = list(threads.map(lambda _: [row["id"] for row in live.own()], range(20)))
    assert shown == [added] * 20
    assert len(reads) == 1
    # What another process changes, or damages, is seen at once.
    remove_own(state, added[0], "typo", "ben", now=time.time())
    assert [row["id"] for row in live.own()] == added[1:]
    (state / FILE).write_bytes(b"x")
    assert live.own() == []
    add_own(state, local_key(state), draft("c.test"), "ann", now=time.time())
    assert len(live.own()) == 1
