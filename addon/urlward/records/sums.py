"""What all workers have counted together, those that have ended as well, so that no counter goes down."""

from collections import OrderedDict

from urlward.records.snapshot import Counts, Snapshot, add

MOST_GONE = 256
"""Workers that may come back under their name and be known; older ones are added up for good."""


class Sums:
    """Adds up workers' snapshots, each of which is cumulative since its worker's start.

    Attributes:
        live: the last snapshot of each worker that is connected, by its name.
    """

    def __init__(self) -> None:
        self.live: dict[str, Snapshot] = {}
        self._gone: OrderedDict[str, Snapshot] = OrderedDict()
        self._ended: Counts = {}

    def take(self, worker: str, snapshot: Snapshot) -> None:
        """Put a worker's snapshot in the place of its last."""
        last = self.live.pop(worker, None) or self._gone.pop(worker, None)
        if last is not None:
            if last.started == snapshot.started:
                # Whatever comes late, or twice, takes nothing back.
                _raise_to(snapshot.counts, last.counts)
            else:
                add(self._ended, last.counts)
        self.live[worker] = snapshot

    def gone(self, worker: str) -> None:
        """A worker has ended or lost its connection; should it come back, nothing is counted twice."""
        last = self.live.pop(worker, None)
        if last is None:
            return
        self._gone[worker] = last
        while len(self._gone) > MOST_GONE:
            add(self._ended, self._gone.popitem(last=False)[1].counts)

    def total(self) -> Counts:
        """Of all workers since the start."""
        total = dict(self._ended)
        for snapshot in (*self._gone.values(), *self.live.values()):
            add(total, snapshot.counts)
        return total


def _raise_to(counts: Counts, least: Counts) -> None:
    for key, count in least.items():
        if counts.get(key, 0) < count:
            counts[key] = count
