"""Feeds that root refreshes for a service: what the service may not read is not read for it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from feeds.feed_support import Server
from gateway.unprivileged import NOBODY
from urlward.config import Config, FeedTable
from urlward.feeds.feed import Feed
from urlward.state import folder
from urlward.state.folder import StateError, other_owner

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that others may look into, with a service's state folder in it."""
    with tempfile.TemporaryDirectory(prefix="urlward-owner-") as name:
        place = Path(name)
        place.chmod(0o755)
        state = place / "state"
        state.mkdir(0o700)
        os.chown(state, NOBODY, NOBODY)
        yield place


def feed(place: Path, **keys: str) -> Feed:
    table = FeedTable.model_validate({"name": "one", **keys})
    return Feed(table, Config(feed=(table,)), place / "state")


def test_a_file_of_roots_is_compiled_for_nobody(place: Path) -> None:
    """Such as one that the dashboard's file names, which the service may write."""
    secret = place / "secret"
    secret.write_text("secret.example\n")
    secret.chmod(0o600)
    made = feed(place, path=str(secret))
    outcome = made.refresh()
    assert outcome.state == "failed"
    assert "Permission denied" in outcome.text
    assert not made.store.path.exists()
    secret.chmod(0o644)
    assert made.refresh().state == "new"
    files = [path for path in (place / "state").rglob("*") if path.is_file()]
    assert {path.stat().st_uid for path in files} == {NOBODY}, "which the service can use"


def test_a_password_of_roots_is_sent_to_nobody(place: Path, site: Server) -> None:
    secret = place / "secret.password"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    site.put("list.txt", "a.example\n")
    site.seen()
    made = feed(place, url=site.url("list.txt"), user="anna", password_file=str(secret))
    outcome = made.refresh()
    assert outcome.state == "failed"
    assert "Permission denied" in outcome.text
    assert not site.seen()
    secret.chmod(0o644)
    assert made.refresh().state == "new"


def test_an_urlward_that_the_service_cannot_start_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = place / "closed/python"
    program.parent.mkdir(0o700)
    program.symlink_to("/usr/bin/python3")
    monkeypatch.setattr("sys.executable", str(program))
    with pytest.raises(StateError, match=r"state belongs to nobody, who may not start .*closed/python"):
        feed(place, path=str(place / "list")).refresh()


def test_whose_a_folder_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert other_owner(place) is None
    assert other_owner(place / "none") is None
    found = other_owner(place / "state")
    assert found is not None
    assert (found.user, found.group, found.name) == (NOBODY, NOBODY, "nobody")
    os.chown(place / "state", 54_321, 54_322)
    assert other_owner(place / "state") == (54_321, 54_322, [])
    monkeypatch.setattr(folder.os, "geteuid", lambda: NOBODY)
    assert other_owner(place / "state") is None, "who is not root acts as themselves"
