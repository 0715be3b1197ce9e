"""What happens to feeds and allows becomes events, once."""

from pathlib import Path
from typing import Any

from lists.support import SECRET
from urlward.config import FeedTable
from urlward.engine.digest import Key
from urlward.lists.allows import add_allow, end_allow
from urlward.lists.feed_facts import Facts
from urlward.lists.feed_store import FeedStore
from urlward.records.watches import Watches

NOW = 1_800_000_000.0
FEED = FeedTable(name="body", url="http://127.0.0.1:1/list", stale_after=100.0)


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any], str]] = []

    def __call__(self, kind: str, detail: dict[str, Any], **fields: Any) -> None:
        self.events.append((kind, detail, fields["list"]))

    def take(self) -> list[tuple[str, dict[str, Any], str]]:
        taken, self.events = self.events, []
        return taken


def test_refreshes_and_alarms_of_feeds(tmp_path: Path) -> None:
    told, now = Told(), [NOW]
    store = FeedStore(tmp_path, "body")
    watches = Watches([FEED], tmp_path, told, clock=lambda: now[0])
    with store.locked():
        store.write_facts(Facts(last_attempt=NOW, last_success=NOW, last_change=NOW, entries=3))
    watches.look()
    assert told.take() == [], "what was before is not told"
    with store.locked():
        store.write_facts(
            Facts(
                last_attempt=NOW + 5, last_success=NOW + 5, last_change=NOW + 5, entries=5, added=2, serial=9
            )
        )
    watches.look()
    assert told.take() == [("feed", {"entries": 5, "added": 2, "removed": 0}, "body")]
    watches.look()
    assert told.take() == [], "once"
    with store.locked():
        store.write_facts(
            Facts(last_attempt=NOW + 9, last_success=NOW + 5, last_change=NOW + 5, entries=5, reason="html")
        )
    watches.look()
    ((kind, detail, name),) = told.take()
    assert (kind, name, detail["reason"]) == ("feed", "body", "html")
    now[0] = NOW + 500
    watches.look()
    ((kind, detail, name),) = told.take()
    assert (kind, name, detail["alarm"]) == ("alarm", "body", "stale")
    watches.look()
    assert told.take() == []


def test_allows(tmp_path: Path) -> None:
    told, now = Told(), [NOW]
    watches = Watches([], tmp_path, told, clock=lambda: now[0])
    watches.look()
    made = add_allow(tmp_path, Key(SECRET), "a.example", 60, "x", "me", whole_host=False, now=NOW)
    watches.look()
    ((kind, detail, _),) = told.take()
    assert (kind, detail["id"], detail["action"]) == ("allow", made.id, "allowed")
    assert "a.example" not in str(detail)
    end_allow(tmp_path, made.id, "done", "me", now=NOW)
    watches.look()
    assert told.take() == [("allow", {"id": made.id, "action": "ended"}, "")]
