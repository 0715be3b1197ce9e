"""Labels of metrics: bounded in number, and none that could name an entry.

A label's value that nobody foresaw is counted as ``other``, so that neither a list's publisher nor a client
can make more series than a fixed number.
"""

import re
from collections.abc import Callable, Iterable

OTHER = "other"
NONE = "none"
"""Where an entry has no category."""

STAGES = ("dns", "peek", "match")
VERDICTS = ("pass", "allow", "block", "monitor", "refuse", "error")
ERRORS = ("decision", "page", "layer", "reload", "records", "snapshot", "descriptors")
"""Kinds of errors of ours."""

TROUBLES = {
    "canary": ("canary-back", "the canary comes through"),
    "steer-set": ("steer-set-room", "there is room"),
    "resolvers": ("resolvers-back", "a resolver answers again"),
    "spool-down": ("spool-back", "the disk takes events again"),
    "users": ("users-read", "the users' file is in force"),
    "passwords": ("passwords-room", "all find room to wait"),
    "authority": ("authority-valid", "the authority's certificate lasts"),
}
"""Kinds of what a worker says is wrong for as long as it is; each is an alarm's kind too, and has the kind of
what ends that alarm, and its text."""

MAX_LISTS = 128
MAX_CATEGORIES = 64
MAX_PAIRS = 1000
"""Lists with categories, as they come together."""

MAX_STORES = 16

_NAME = re.compile(r"\w[\w. -]{0,63}").fullmatch
"""Letters of any alphabet: files are called as their owners write."""
_CATEGORY = re.compile(r"[a-z0-9_-]{1,64}").fullmatch


def among(values: Iterable[str]) -> Callable[[str], str]:
    """Make a function that keeps these values, and turns all others into ``other``."""
    known = {value: value for value in values}
    return lambda value: known.get(value, OTHER)


class Bounded:
    """Bounded set of a label's values: the first ones seen; all further ones are ``other``.

    Args:
        most: how many there may be besides.
        fits: whether a value may stand in a label at all.
    """

    def __init__(self, most: int, fits: Callable[[str], object] = _NAME) -> None:
        self._fits = fits
        self._known = {OTHER: OTHER, NONE: NONE}
        self._most = most + len(self._known)

    def __call__(self, value: str) -> str:
        """Map a value to its label."""
        known = self._known.get(value)
        if known is not None:
            return known
        if len(self._known) >= self._most or not self._fits(value):
            return OTHER
        self._known[value] = value
        return value


class Categories(Bounded):
    """Categories of entries. Those with a dot are ``other``: they could be a host."""

    def __init__(self) -> None:
        super().__init__(MAX_CATEGORIES, _CATEGORY)

    def __call__(self, value: str) -> str:
        """Map a category to its label; ``none`` where an entry has none."""
        return super().__call__(value) if value else NONE


class Origins:
    """Labels of blocks: list and category.

    Attributes:
        known: the labels of a list's name and a category, for those that have been seen; whoever is in haste
            looks here first.
        lists: labels of lists.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], tuple[str, str]] = {}
        self.lists = Bounded(MAX_LISTS)
        self._categories = Categories()
        self._pairs: set[tuple[str, str]] = set()

    def __call__(self, list_: str, category: str) -> tuple[str, str]:
        """Map a list and a category to their labels."""
        pair = self.lists(list_), self._categories(category)
        if pair not in self._pairs:
            if len(self._pairs) >= MAX_PAIRS:
                pair = (OTHER, OTHER)
            self._pairs.add(pair)
        if len(self.known) < 2 * MAX_PAIRS:
            self.known[list_, category] = pair
        return pair
