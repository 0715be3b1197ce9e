"""Scrubber: takes out of texts whatever could name an entry, a client, a host, a person or a secret.

It knows which words may stay, and not which have to go: those of this program's own source code, numbers,
times, and names that it is given. A host, an address, a path, a token and a name that somebody has chosen are
none of these.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

GONE = "[…]"
"""In place of what was taken out."""

_WORD = re.compile(r"[A-Za-z][A-Za-z_'-]*[A-Za-z]|[A-Za-z]")
_TOKEN = re.compile(r"[^\s\"'`(){}\[\],;<>|=“”…]+")
_EDGES = re.compile(r"^([.:!?#+*/-]*)(.*?)([.:!?*/-]*)$", re.DOTALL)
_NUMBER = re.compile(
    r"""
    [+-]?[0-9]{1,12}(\.[0-9]{1,9})?(e[+-]?[0-9]{1,3})?(%|ms|[smhd]|[kMG]i?B|B)?
    | [0-9]{4}-[0-9]{2}-[0-9]{2}([T_][0-9:.]{5,15}(Z|[+-][0-9:]{4,6})?)?   # RFC 3339
    | [0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?Z?
    | [0-9]{1,9}/[0-9]{1,9}
    """,
    re.VERBOSE | re.ASCII,
).fullmatch
_METRIC = re.compile(r"urlward_[a-z_]+").fullmatch


class Scrubber:
    """Scrubber of texts and of what JSON has.

    Args:
        names: further words that may stay; a name with a dot, which a host could have, is not taken.
        known: tells whether a word may stay that is none of these.
    """

    def __init__(self, names: Iterable[str] = (), known: Callable[[str], bool] = lambda _: False) -> None:
        self._words = own_words() | {name for name in names if re.fullmatch(r"[\w-]{1,64}", name)}
        self._known = known

    def text(self, text: str) -> str:
        """Text without what may not stay."""
        return _TOKEN.sub(lambda found: self._token(found[0]), text)

    def value(self, value: Any) -> Any:
        """What JSON has, its texts and names without what may not stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.value(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        return value if value is None or isinstance(value, bool | int | float) else GONE

    def _token(self, token: str) -> str:
        if self._stays(token):
            return token
        before, middle, after = _EDGES.match(token).groups()  # type: ignore[union-attr]
        return f"{before}{middle if self._stays(middle) else GONE}{after}"

    def _stays(self, token: str) -> bool:
        return (
            not token
            or token in self._words
            or token.lower() in self._words
            or _NUMBER(token) is not None
            or (_METRIC(token) is not None and all(part in self._words for part in token.split("_")))
            or self._known(token)
        )


@cache
def own_words() -> frozenset[str]:
    """Words of this program's own source code."""
    found: set[str] = set()
    for path in Path(__file__).parent.rglob("*.py"):
        for word in _WORD.findall(path.read_text(encoding="utf-8", errors="replace")):
            found.add(word)
            found.update(word.split("_"))
    return frozenset(found)
