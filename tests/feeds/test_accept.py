import json
from pathlib import Path

import pytest

from feeds.feed_support import Feed, Server, feed, hosts
from obstacles import audit_on_a_full_disk
from urlward.feeds.refresh import refresh
from urlward.feeds.status import accept
from urlward.state.folder import StateError


def say(made: Feed) -> None:
    accept(made.table, made.state, why="said so", who="somebody", now=made.now)


def test_the_record_is_written_before_the_word_counts(tmp_path: Path) -> None:
    made = feed(tmp_path, path="none")
    with audit_on_a_full_disk(), pytest.raises(StateError):
        say(made)
    assert made.facts.accepted is None
    say(made)
    assert made.facts.accepted is not None
    (line,) = (made.state / "audit.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert {key: value for key, value in told.items() if key not in ("seq", "prev", "hash", "sign")} == {
        "time": "2027-01-15T08:00:00Z",
        "action": "accepted",
        "feed": "phish",
        "who": "somebody",
        "why": "said so",
        "entries": None,
        "before": 0,
    }


def test_an_accepted_list_may_have_moved_on_a_little(tmp_path: Path, site: Server) -> None:
    made = feed(tmp_path, url=site.url())
    site.put("feed", hosts(*range(100)))
    made.refresh()
    site.put("feed", hosts(*range(40)))
    assert made.refresh().state == "failed"
    say(made)
    site.put("feed", hosts(*range(20)))
    assert made.refresh().text.startswith("shrunk: 20 entries")
    site.put("feed", hosts(*range(42)))
    assert made.facts.used is None
    assert made.refresh().text.endswith("accepted by the operator")
    assert made.facts.accepted is None
    assert made.facts.used is not None, "what the other nodes of a fleet may have yet to hear of"
    site.put("feed", hosts(*range(10)))
    assert made.refresh().state == "failed"
    say(made)
    later = made.now + 8 * 86_400
    assert refresh(made.table, made.config, made.state, now=later).state == "failed"
    assert made.facts.used is None
