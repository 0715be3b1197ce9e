"""What a publisher asks of canaries, by the metrics that a filter really gives, over HTTP."""

import time
from pathlib import Path

import pytest

from feeds.feed_support import Server
from lists.support import artifact
from urlward.config import Config, FeedTable, PublishCanaryTable
from urlward.engine.errors import UrlwardError
from urlward.feeds.store import Facts, FeedStore
from urlward.publish.canaries import Sample, ask, protected_hosts
from urlward.records.delivery import RecorderState
from urlward.records.exposition import Exposition
from urlward.records.metrics import ListFacts, Metrics


def exposition(state: Path) -> bytes:
    """Metrics of a filter with two lists, as its dashboard gives them."""
    store = FeedStore(state, "phish")
    with store.locked():
        store.write_artifact(artifact(["h1.example"]))
        store.write_facts(Facts(since=1.0, last_success=time.time(), reason="shrunk", error="shrunk"))
    metrics = Metrics(time.time())
    for _ in range(3):
        metrics.requests("match", "pass")
        metrics.requests("peek", "pass")
        metrics.requests("dns", "pass")
    for name in ("phish", "phish", "other"):
        metrics.requests("match", "block")
        metrics.blocked(name, "phishing")
    metrics.error("decision")
    metrics.lists([ListFacts("phish", 7, 10), ListFacts("other", 9, 10)])
    recorded = RecorderState(events={"objection": 4, "block": 3})
    made = Exposition((FeedTable(name="phish", path="none"),), state, recorder=lambda: recorded)
    made.take("worker", metrics.snapshot())
    return made.render()


def test_a_canarys_counters(tmp_path: Path, site: Server) -> None:
    site.put("node/metrics", exposition(tmp_path / "state"))
    (tmp_path / "token").write_text("a-viewers\n")
    node = PublishCanaryTable(url=site.url("node"), token_file=str(tmp_path / "token"))
    site.seen()
    assert ask(node, "phish") == Sample(7, "failed", requests=9, blocks=2, faults=1, objections=4)
    (line,) = site.seen()
    assert '"Bearer a-viewers"' in line
    assert ask(node, "none") == Sample(0, "", requests=9, blocks=0, faults=1, objections=4)


def test_a_canary_that_does_not_say(tmp_path: Path, site: Server) -> None:
    (tmp_path / "token").write_text("token")
    site.put("page/metrics", "<html>log in</html>")
    for path, token, message in (
        ("page", "token", "no metrics of urlward"),
        ("nothing", "token", "no metrics there"),
        ("private", "token", "status 401"),
        ("page", "none", "none: No such file or directory"),
    ):
        node = PublishCanaryTable(url=site.url(path), token_file=str(tmp_path / token))
        with pytest.raises(UrlwardError, match=message) as raised:
            ask(node, "phish")
        assert "log in" not in str(raised.value)


def test_protected_hosts_are_those_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text(
        "# mine\n||own.example^ category=own\nhttp://page.example/a\n192.0.2.1\n"
    )
    shipped = protected_hosts(Config())
    assert {"localhost", "lencr.org"} <= set(shipped)
    own = Config(protect=False, protected=(str(tmp_path / "own.txt"),))
    assert protected_hosts(own) == ["own.example"]
    with pytest.raises(UrlwardError, match=r"gone\.txt"):
        protected_hosts(Config(protected=(str(tmp_path / "gone.txt"),)))
