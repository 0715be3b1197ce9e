"""Sums of all workers' counters, ended workers included, so that no counter goes down.

What a worker has told another before is left out: it was in the sums of the process whose place this one has
taken, and would be counted twice by whoever follows both. So all sums begin near zero, as counters do whose
process is new.
"""

from collections import OrderedDict

from urlward.records.snapshot import Counts, Snapshot, add

MOST_GONE = 256
"""Workers that may come back under their name and be known; older ones are added up for good."""


class Sums:
    """Sums of snapshots, each of which is cumulative since its worker's start.

    Attributes:
        live: the last snapshot of each worker that is connected, by its name; what was told before is not in
            its counts.
    """

    def __init__(self) -> None:
        self.live: dict[str, Snapshot] = {}
        self._before: dict[str, Counts] = {}
        self._gone: OrderedDict[str, Snapshot] = OrderedDict()
        self._ended: Counts = {}

    def take(self, worker: str, snapshot: Snapshot) -> None:
        """Replace a worker's last snapshot."""
        last = self.live.pop(worker, None) or self._gone.pop(worker, None)
        if last is None or last.started != snapshot.started:
            if last is not None:
                add(self._ended, last.counts)
            self._before[worker] = dict(snapshot.counts) if snapshot.told else {}
        for key, count in self._before[worker].items():
            snapshot.counts[key] = max(snapshot.counts.get(key, 0) - count, 0)
        if last is not None and last.started == snapshot.started:
            # Whatever comes late, or twice, takes nothing back.
            _raise_to(snapshot.counts, last.counts)
        self.live[worker] = snapshot

    def gone(self, worker: str) -> None:
        """Note that a worker has ended or lost its connection; should it come back, nothing is counted
        twice."""
        last = self.live.pop(worker, None)
        if last is None:
            return
        self._gone[worker] = last
        while len(self._gone) > MOST_GONE:
            name, snapshot = self._gone.popitem(last=False)
            del self._before[name]
            add(self._ended, snapshot.counts)

    def total(self) -> Counts:
        """Totals of all workers, since the beginning."""
        total = dict(self._ended)
        for snapshot in (*self._gone.values(), *self.live.values()):
            add(total, snapshot.counts)
        return total


def _raise_to(counts: Counts, least: Counts) -> None:
    for key, count in least.items():
        if counts.get(key, 0) < count:
            counts[key] = count
