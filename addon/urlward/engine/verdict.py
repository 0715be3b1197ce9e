"""Verdicts: decisions of the engine on requests."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from urlward.engine.entry import ALGORITHMS, PDQ, Kind

Action = Literal["block", "allow", "monitor", "pass"]


RANK_BITS = 17
"""Bits of a rank behind the kind: labels or segments, or of a file `STRENGTHS`."""

STRENGTHS: Mapping[str, int] = {name: 1 if name == PDQ else 8 * size for name, size in ALGORITHMS.items()}
"""How much a digest of an algorithm says of a file; none the same as another."""


class Verdict(NamedTuple):
    """Verdict on one request, and the entry that made it.

    Attributes:
        action: ``block``; ``allow`` where an ``@@`` entry decided; ``monitor`` where what is listed is to be
            said and not blocked; ``pass`` where no entry matched.
        kind: of the deciding entry (``page``, ``domain``, …), or empty.
        entry: its id, or the first 16 hexadecimal digits of its digest where it has none.
        category: or empty.
        list: name of the list it is on.
        rank: how specific the entry is, to choose among several.
        doubtful: whether the request has another port, or another value of a parameter's name, beside what
            the entry names. Origins differ in which they take, so it can block, and excuses nothing.
    """

    action: Action
    kind: str = ""
    entry: str = ""
    category: str = ""
    list: str = ""
    rank: int = 0
    doubtful: bool = False

    @property
    def algorithm(self) -> str:
        """Of the digest that a file is listed by; empty of other entries."""
        if self.kind != Kind.FILE.label:
            return ""
        strength = self.rank & ((1 << RANK_BITS) - 1)
        return next((algorithm for algorithm, says in STRENGTHS.items() if says == strength), "")

    @property
    def blocked(self) -> bool:
        """True for ``block``."""
        return self.action == "block"

    @property
    def listed(self) -> bool:
        """True for ``block`` and ``monitor``."""
        return self.action in ("block", "monitor")


PASS = Verdict("pass")

WEIGHTS: Mapping[Action, int] = {"allow": 3, "block": 2, "monitor": 1, "pass": 0}
"""Which action wins where several entries match: an exception beats all."""

type Decide = Callable[[list[Verdict]], Verdict]
"""Makes one verdict of those of all entries that match on one host, of which there is at least one."""


def decide(found: list[Verdict]) -> Verdict:
    """The verdict with the most weight; of equals the most specific entry's, and always the same of several.

    Where there is a policy, `urlward.policy.policy.View.decide` does so in its place. Before either,
    `urlward.engine.matcher` takes out exceptions that a guarded list does not heed.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        return PASS
    return max(found, key=lambda v: (WEIGHTS[v.action], v.rank, v.entry))
