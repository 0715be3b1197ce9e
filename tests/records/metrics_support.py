"""An exposition that has every metric, and a server that gives it as the admin address does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lists.support import artifact
from urlward.config import FeedTable
from urlward.feeds.store import Facts, FeedStore
from urlward.records.delivery import RecorderState, StoreState
from urlward.records.exposition import (
    CONTENT_TYPE,
    Exposition,
    FleetFigures,
    PublishedList,
    PublishFigures,
)
from urlward.records.metrics import ListFacts, Metrics, RulesFacts

TOKEN = "a-token"
NOW = 1_800_000_000.0


def full(state: Path) -> tuple[Exposition, Metrics]:
    """The exposition, and the metrics of its one worker."""
    store = FeedStore(state, "feed")
    with store.locked():
        store.write_artifact(artifact(["a.example"], valid_until=int(NOW) + 30 * 86_400))
        store.write_facts(Facts(last_success=NOW - 60, next_run=NOW + 60, entries=1))
    recorder = RecorderState(stores={"sqlite": StoreState(written=5)}, spool_limit=1 << 28)
    exposition = Exposition(
        [FeedTable(name="feed", path="none")],
        state,
        recorder=lambda: recorder,
        fleet=lambda: FleetFigures(True, {"up": 2, "failing": 0, "away": 0}),
        publishing=lambda: PublishFigures(
            True, [PublishedList("phish", "tried", 7, 8, 10, 0.5, NOW - 3)], {"phish": 1}
        ),
        clock=lambda: NOW,
        steady=lambda: 0.0,  # a worker that says nothing more would not count after some seconds
    )
    metrics = Metrics(started=NOW)
    metrics.lists([ListFacts("one", 3, 10, int(NOW) - 7200)])
    metrics.rules(RulesFacts())
    metrics.shares = True
    metrics.resolvers = lambda: 2
    metrics.hooked("steered")
    metrics.requests("match", "block")
    metrics.blocked("one", "phishing")
    metrics.check(3e-6)
    metrics.looks_at_files = True
    metrics.matched("one", "pdq")
    exposition.take("worker", metrics.snapshot())
    return exposition, metrics


@contextmanager
def admin(exposition: Exposition, port: int) -> Iterator[None]:
    """Serve it on the loopback, to whoever has the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            body = exposition.render() if allowed and self.path == "/metrics" else b""
            self.send_response(200 if body else 404 if allowed else 401)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
