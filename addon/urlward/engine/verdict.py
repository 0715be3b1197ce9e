"""Verdicts: what the engine says of a request."""

from dataclasses import dataclass
from typing import Literal

Action = Literal["block", "monitor", "allow", "pass"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one request and the entry that made it.

    Attributes:
        action: ``block``; ``monitor`` where it is said and counted, but passes; ``allow`` where an ``@@``
            entry decided; ``pass`` where no entry matched.
        kind: of the deciding entry (``page``, ``domain``, …), or empty.
        entry: its id, or the first 16 hexadecimal digits of its digest where it has none.
        category: or empty.
        list: name of the list it is on.
        rank: how specific the entry is, to choose among several.
    """

    action: Action
    kind: str = ""
    entry: str = ""
    category: str = ""
    list: str = ""
    rank: int = 0

    @property
    def blocked(self) -> bool:
        """True for ``block``."""
        return self.action == "block"


PASS = Verdict("pass")


def decide(found: list[Verdict]) -> Verdict:
    """Allow beats block; among equals the most specific entry is named."""
    if not found:
        return PASS
    return max(found, key=lambda v: (v.action == "allow", v.rank))
