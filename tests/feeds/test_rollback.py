"""Rollback of a feed to an earlier list, pausing, and trying one without keeping anything."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from feeds.feed_support import Feed, Server, feed, hosts
from lists.support import OTHER_SECRET, SECRET, artifact, names_in
from obstacles import audit_on_a_full_disk
from urlward.engine.errors import UrlwardError
from urlward.engine.signing import SigningKey
from urlward.feeds import feed as feeds_feed
from urlward.feeds.rollback import release, roll_back
from urlward.feeds.status import status, table
from urlward.feeds.store import VERSIONS, FeedStore
from urlward.state.folder import StateError

SIGNER = SigningKey(bytes([1]) * 32)


def issue(serial: int, *, signer: SigningKey | None = None, until: int = 0, secret: bytes = SECRET) -> bytes:
    """A body's artifact with as many entries."""
    lines = hosts(*range(serial)).splitlines()
    return artifact(lines, secret, "body", serial=serial, valid_until=until, signer=signer)


def three(tmp_path: Path, site: Server) -> Feed:
    made = feed(tmp_path, url=site.url(), max_shrink=1.0)
    for count in (10, 11, 12):
        site.put("feed", hosts(*range(count)))
        assert made.refresh().state == "new"
    return made


def back(made: Feed, serial: int | None = None) -> int:
    held = roll_back(made.table, made.config, made.state, serial, why="too many", who="Ann", now=made.now)
    return held.serial


def entries(made: Feed) -> int:
    in_force = FeedStore(made.state, made.table.name).in_force()
    assert in_force is not None
    return int(in_force.meta["entries"])


def test_an_earlier_list_is_in_force_until_it_is_released(tmp_path: Path, site: Server) -> None:
    made = three(tmp_path, site)
    store = FeedStore(made.state, made.table.name)
    serials = [version.serial for version in store.versions()]
    assert len(serials) == 2
    assert back(made) == serials[0]
    assert entries(made) == 11
    assert back(made) == serials[1]
    assert entries(made) == 10
    site.put("feed", hosts(*range(20)))
    site.seen()
    assert made.refresh().text.startswith(f"held at serial {serials[1]} by Ann")
    assert site.seen() == []
    assert entries(made) == 10
    row = status(made.table, made.state, made.now + 1e6)
    assert (row["state"], row["held"]["why"], row["next_run"], row["alarms"]) == (
        "held",
        "too many",
        None,
        {},
    )
    assert any(f"urlward feeds release {made.table.name} --why TEXT" in line for line in table([row]))
    release(made.table, made.state, why="mended", who="Ann", now=made.now)
    assert made.refresh().state == "new"
    assert entries(made) == 20
    told = [json.loads(line) for line in (made.state / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in told] == ["rolled-back", "rolled-back", "released"]
    assert (told[0]["serial"], told[0]["entries"], told[0]["why"]) == (serials[0], 11, "too many")


def test_a_signed_list_comes_back_after_a_release(tmp_path: Path, site: Server) -> None:
    """Its serial is one that the feed has had, and no forgery."""
    made = feed(tmp_path, url=site.url(), max_shrink=1.0)
    for serial in (5, 6):
        site.put("feed", issue(serial))
        assert made.refresh().state == "new"
    assert back(made, 5) == 5
    release(made.table, made.state, why="mended", who="Ann", now=made.now)
    assert made.refresh().state == "new"
    assert entries(made) == 6


def test_what_is_not_kept_is_refused(tmp_path: Path, site: Server) -> None:
    made = three(tmp_path, site)
    with pytest.raises(UrlwardError, match="no list of serial 1 is kept; there are: "):
        back(made, 1)
    back(made)
    back(made)
    with pytest.raises(UrlwardError, match="no list before the one in force is kept"):
        back(made)
    release(made.table, made.state, why="x", who="Ann", now=made.now)
    with pytest.raises(UrlwardError, match="not held"):
        release(made.table, made.state, why="x", who="Ann", now=made.now)


def test_a_damaged_version_changes_nothing(tmp_path: Path, site: Server) -> None:
    made = three(tmp_path, site)
    version = FeedStore(made.state, made.table.name).versions()[0]
    data = version.path.read_bytes()
    version.path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UrlwardError, match="damaged"):
        back(made)
    assert entries(made) == 12
    assert made.facts.held is None


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (issue(2), "not signed"),
        (issue(2, signer=SigningKey(bytes([3]) * 32)), "signed by "),
        (issue(2, signer=SIGNER, until=1_700_000_100), "expired at "),
        (issue(2, signer=SIGNER, secret=OTHER_SECRET), "key"),
    ],
    ids=["not signed", "another's", "expired", "of another key"],
)
def test_what_would_not_be_fetched_does_not_come_back(
    version: bytes, why: str, tmp_path: Path, site: Server
) -> None:
    made = feed(tmp_path, url=site.url(), trust=(str(SIGNER.public),))
    store = FeedStore(made.state, made.table.name)
    with store.locked():
        for data in (issue(1, signer=SIGNER), version, issue(3, signer=SIGNER)):
            store.write_artifact(data)
    with pytest.raises(UrlwardError, match=f"serial 2 is not taken: .*{why}"):
        back(made)
    assert entries(made) == 3
    assert made.facts.held is None
    assert back(made, 1) == 1
    assert entries(made) == 1


def test_the_record_comes_first(tmp_path: Path, site: Server) -> None:
    made = three(tmp_path, site)
    with audit_on_a_full_disk(), pytest.raises(StateError):
        back(made)
    assert entries(made) == 12
    assert made.facts.held is None


def test_so_many_versions_are_kept_and_no_more(tmp_path: Path, site: Server) -> None:
    made = feed(tmp_path, url=site.url(), max_shrink=1.0)
    for count in range(10, 10 + VERSIONS + 3):
        site.put("feed", hosts(*range(count)))
        made.refresh()
    versions = FeedStore(made.state, made.table.name).versions()
    assert len(versions) == VERSIONS
    assert back(made, versions[-1].serial) == versions[-1].serial
    assert entries(made) == 12


def test_a_paused_feed_keeps_its_list_and_asks_nobody(tmp_path: Path, site: Server) -> None:
    made = three(tmp_path, site)
    paused = replace(made, table=made.table.model_copy(update={"paused": True}))
    site.seen()
    assert paused.refresh().text.startswith("paused: ")
    assert site.seen() == []
    row = status(paused.table, made.state, made.now + 1e6)
    assert (row["state"], row["next_run"], row["alarms"], row["entries"]) == ("paused", None, {}, 12)
    site.put("feed", hosts(*range(13)))
    assert made.refresh().state == "new"


@pytest.mark.parametrize("how", ["deleted", "damaged"])
def test_a_list_that_is_held_and_lost_comes_back_as_it_is_kept(
    tmp_path: Path, site: Server, how: str
) -> None:
    """Nothing is fetched while it is held: nothing on it would be blocked until somebody releases it."""
    made = feed(tmp_path, url=site.url(), max_shrink=1.0)
    for count in range(10, 10 + VERSIONS + 1):
        site.put("feed", hosts(*range(count)))
        made.refresh()
    store = FeedStore(made.state, made.table.name)
    back(made, store.versions()[-1].serial)
    if how == "deleted":
        store.path.unlink()
    else:
        data = store.path.read_bytes()
        store.path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    site.seen()
    assert made.refresh().text.startswith("lost, and put in force again as it is kept; held at serial ")
    assert site.seen() == []
    assert entries(made) == 10
    assert made.refresh().text.startswith("held at serial ")


def test_a_list_that_is_lost_while_its_source_is_away_is_the_one_before(tmp_path: Path, site: Server) -> None:
    """Or nothing on it would be blocked until the source is back, which then is asked for all of it."""
    made = three(tmp_path, site)
    now = entries(made)
    FeedStore(made.state, made.table.name).path.unlink()
    site.stop()
    try:
        outcome = made.refresh()
    finally:
        site.start()
    assert outcome.state == "failed"
    assert outcome.text.startswith("lost, and an earlier one put in force; ")
    assert 0 < entries(made) < now
    assert made.refresh().state == "new"
    assert entries(made) == now


def test_a_list_that_was_gone_back_to_and_is_lost_while_the_feed_is_paused_comes_back(
    tmp_path: Path, site: Server
) -> None:
    """And not the one that was wrong, whose serial is higher; where it is not kept, another is."""
    made = three(tmp_path, site)
    store = FeedStore(made.state, made.table.name)
    first = store.versions()[-1].serial
    back(made, first)
    made.table = made.table.model_copy(update={"paused": True})
    release(made.table, made.state, why="paused instead", who="Ann", now=made.now)
    store.path.unlink()
    assert made.refresh().text.startswith("lost, and put in force again")
    assert entries(made) == 10
    store.path.unlink()
    next(version.path for version in store.versions() if version.serial == first).unlink()
    assert made.refresh().text.startswith("lost, and put in force again")
    assert entries(made) == 12


def test_a_roll_back_that_was_cut_short_is_done_by_the_next_refresh(
    tmp_path: Path, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = three(tmp_path, site)

    def full(*_: object) -> None:
        raise StateError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FeedStore, "write_artifact", full)
        with pytest.raises(StateError, match="No space"):
            back(made)
    assert entries(made) == 12
    outcome = made.refresh()
    assert outcome.state == "new"
    assert outcome.text.startswith("put in force as it is kept; held at serial ")
    assert entries(made) == 11
    assert made.refresh().state == "unchanged"
    assert entries(made) == 11


def test_a_list_that_is_paused_and_lost_is_the_last_that_is_kept(tmp_path: Path, site: Server) -> None:
    made = three(tmp_path, site)
    paused = replace(made, table=made.table.model_copy(update={"paused": True}))
    FeedStore(made.state, made.table.name).path.unlink()
    site.seen()
    assert "; paused: " in paused.refresh().text
    assert site.seen() == []
    assert entries(made) == 11


def test_an_attempt_tells_and_keeps_nothing(tmp_path: Path, site: Server, compiles_here: None) -> None:
    made = three(tmp_path, site)
    site.put("feed", hosts(*range(13)) + "nothing at all?\n")
    before = made.facts
    tried = feeds_feed.Feed(made.table.model_copy(update={"max_errors": "5"}), made.config, made.state)
    found = tried.attempt()
    assert (found.state, found.text.partition(", serial")[0]) == ("new", "13 entries fetched")
    assert "+1 -0" in found.text
    assert "1 bad line left out" in found.text
    assert made.facts == before
    assert entries(made) == 12
    site.put("feed", hosts(*range(12)))
    assert tried.attempt().text == "12 entries, as in force"
    site.put("feed", hosts(*range(12)) + "nothing at all?\n")
    assert made.refresh(max_errors="5").state == "unchanged"
    strict = made.table.model_copy(update={"max_errors": "0"})
    assert feeds_feed.Feed(strict, made.config, made.state).attempt().reason == "bad-lines"
    site.put("feed", "<!DOCTYPE html><p>Log in</p>")
    assert tried.attempt().reason == "html"


def test_an_attempt_at_a_feed_that_is_not_there_leaves_no_file(tmp_path: Path, site: Server) -> None:
    made = feed(tmp_path, url=site.url())
    site.put("feed", hosts(*range(3)))
    assert feeds_feed.Feed(made.table, made.config, made.state).attempt().text.startswith("3 entries fetched")
    assert "feeds" not in names_in(made.state)
