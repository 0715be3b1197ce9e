"""Health and readiness checks of the filter: ``/healthz`` and ``/readyz``.

Names and numbers only, since whoever asks these needs no token: no list's content, and no error's text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from urlward.records.feed_figures import FeedFigures
from urlward.records.labels import OTHER
from urlward.records.metrics import ListFacts, RulesFacts
from urlward.records.recorder import RecorderState

REPORT_WITHIN = 5.0
"""Seconds in which each worker has to report."""

_SERVES = ("ok", "failed")
"""States of a feed whose list is good enough to filter by; one without a list gives an alarm, or waits."""


@dataclass(frozen=True, slots=True)
class Health:
    """Result of health checks.

    Attributes:
        checks: for each check what fails; empty where all is well.
    """

    checks: Mapping[str, Sequence[str]]

    @property
    def ok(self) -> bool:
        """Whether no check fails."""
        return not any(self.checks.values())

    @property
    def passed(self) -> dict[str, bool]:
        """Result of each check: whether it passed."""
        return {name: not what for name, what in self.checks.items()}

    @property
    def status(self) -> int:
        """HTTP status: 200 or 503."""
        return 200 if self.ok else 503

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        failing = {name: list(what) for name, what in self.checks.items() if what}
        return {"ok": self.ok, "checks": list(self.checks), "failing": failing}


def healthy(silence: Mapping[str, float], expected: int, rules: RulesFacts | None = None) -> Health:
    """Check health: whether the workers are there, and the rules of a gateway that are wanted.

    Args:
        silence: seconds since each connected worker has reported.
        expected: how many there should be.
        rules: of a gateway.
    """
    reporting = sum(seconds <= REPORT_WITHIN for seconds in silence.values())
    missing = [f"{reporting} of {expected} report"] if reporting < expected else []
    # Rules that the operator has taken away need no other process.
    unwanted = [what for what in rules.wrong if what != "down"] if rules is not None else []
    return Health({"workers": missing} | ({"rules": unwanted} if rules is not None else {}))


def ready(
    lists: Iterable[Sequence[ListFacts]],
    feeds: Iterable[FeedFigures],
    recorder: RecorderState,
    troubles: Mapping[tuple[str, str], str] | None = None,
    rules: RulesFacts | None = None,
) -> Health:
    """Check readiness: whether traffic is filtered and recorded as it should be.

    Args:
        lists: that are in force in each worker.
        feeds: how they are.
        recorder: what it says of itself.
        rules: of a gateway; None where there is none.
        troubles: what workers say of traffic, by kind and worker; of these, that the canary does not come
            through counts.
    """
    workers = list(lists)
    empty = sum(not any(facts.entries for facts in in_force) for in_force in workers)
    without = ["no worker has reported"] if not workers else []
    without += [f"{empty} of {len(workers)} workers have none"] if empty else []
    known = [{facts.name for facts in in_force} for in_force in workers]

    def lacks(feed: FeedFigures) -> bool:
        # Beyond so many lists a worker does not tell their names apart.
        return feed.state not in _SERVES or any(not names & {feed.name, OTHER} for names in known)

    return Health(
        {
            "lists": without,
            "stores": sorted(name for name, store in recorder.stores.items() if not store.up),
            "feeds": sorted(feed.name for feed in feeds if lacks(feed)),
            "canary": sorted(
                f"worker {worker}: {why}"
                for (kind, worker), why in (troubles or {}).items()
                if kind == "canary"
            ),
        }
        | ({"rules": list(rules.wrong)} if rules is not None else {})
    )
