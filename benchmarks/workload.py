"""Entries and requests for benchmarks: invented, reserved names only, the same for every run.

What a filter costs depends on how words are shared among rules and requests, so the vocabulary is
drawn as texts have it: words of paths by Zipf's law (a few are everywhere, most are rare), names of
hosts nearly all different. The mix of kinds follows what lists of criminal pages hold: mostly pages
and hosts, some prefixes and parameters, a few path sequences and names that hop between suffixes.
"""

import random
from collections.abc import Iterator
from itertools import accumulate

KINDS = {"domain": 30, "host": 15, "page": 35, "params": 8, "prefix": 8, "name": 1, "path": 2, "address": 1}
"""Entries of each kind in a hundred."""

SUFFIXES = {"test": 55, "example": 20, "invalid": 10, "co.test": 8, "org.test": 4, "net.example": 3}
"""What a host ends in, in a hundred."""

WORDS = 40_000

_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
_EXTENSIONS = [".html"] * 4 + [".php"] * 3 + [".htm", ".jpg", ".png", ".mp4", ".zip"]
_ON_PAGES = ("page", "params", "prefix")
_CATEGORIES = ("csam", "phishing", "malware")
_SUBDOMAINS = ("m", "cdn", "shop", "mail", "blog", "static", "img", "app", "login", "forum")


class Workload:
    """A deterministic source of entries and requests.

    Args:
        seed: the same seed gives the same entries and requests. Vocabulary and its frequencies are
            the same for every seed, as two lists of one language share theirs.
    """

    def __init__(self, seed: int = 1) -> None:
        words = random.Random(0)
        vocabulary: dict[str, None] = {}
        while len(vocabulary) < WORDS:
            # The frequent words of a language are short.
            longest = 2 if len(vocabulary) < 400 else 3 if len(vocabulary) < 8000 else 4
            vocabulary["".join(words.choices(_SYLLABLES, k=words.randint(min(longest, 2), longest)))] = None
        self._words = list(vocabulary)
        self._frequencies = list(accumulate(1 / (rank + 2.7) for rank in range(WORDS)))
        self._suffixes = list(SUFFIXES)
        self._suffix_weights = list(accumulate(SUFFIXES.values()))
        self._random = random.Random(seed)

    def words(self, count: int) -> list[str]:
        """Words as frequent as in text."""
        return self._random.choices(self._words, cum_weights=self._frequencies, k=count)

    def name(self) -> str:
        """A label that hardly any other host has."""
        r = self._random
        style = r.random()
        if style < 0.15:
            return f"{self.words(1)[0]}-{r.choice(self._words)}{r.choice(self._words)}"
        if style < 0.25:
            return f"{r.choice(self._words)}{r.choice(self._words)}{r.randint(1, 999)}"
        return r.choice(self._words) + r.choice(self._words)

    def host(self) -> str:
        """A host name, one or two labels in front of the suffix's."""
        r = self._random
        name = f"{self.name()}.{r.choices(self._suffixes, cum_weights=self._suffix_weights)[0]}"
        if r.random() >= 0.2:
            return name
        return f"{r.choice(_SUBDOMAINS) if r.random() < 0.5 else self.words(1)[0]}.{name}"

    def path(self) -> str:
        """A path of one to five segments."""
        r = self._random
        first, second, *segments = self.words(2 + r.randint(0, 3))
        style = r.random()
        if style < 0.4:
            last = f"{first}-{second}-{r.randint(1, 99999)}{r.choice(_EXTENSIONS)}"
        elif style < 0.6:
            last = f"{first}-{second}"
        elif style < 0.75:
            last = f"{r.randint(1, 10**7)}"
        elif style < 0.9:
            last = f"{first}{r.choice(_EXTENSIONS)}"
        else:
            last = f"{first}/"
        return "/" + "/".join([*segments, last])

    def query(self) -> str:
        """A query of one to three parameters."""
        r = self._random
        names = self.words(r.randint(0, 2))
        return "&".join([f"page={r.randint(1, 50)}", *(f"{name}={r.randint(1, 10**6)}" for name in names)])

    def entries(self, count: int) -> Iterator[str]:
        """Different lines of the list grammar, with ids and a category."""
        r = self._random
        kinds, weights = list(KINDS), list(accumulate(KINDS.values()))
        # Hosters have pages of many, a few of them very many.
        shared = [self.host() for _ in range(max(count // 10, 1))]
        crowds = list(accumulate(1 / (rank + 20) for rank in range(len(shared))))
        seen: set[str] = set()
        while len(seen) < count:
            kind = r.choices(kinds, cum_weights=weights)[0]
            if kind in _ON_PAGES and r.random() < 0.5:
                host = r.choices(shared, cum_weights=crowds)[0]
            else:
                host = self.host()
            if kind == "domain":
                line = host
            elif kind == "host":
                line = f"0.0.0.0 {host}"
            elif kind == "page":
                line = f"http://{host}{self.path()}"
            elif kind == "params":
                line = f"http://{host}/{self.words(1)[0]}.php?id={r.randint(1, 10**6)}"
            elif kind == "prefix":
                line = f"http://{host}/{'/'.join(self.words(2))}/*"
            elif kind == "name":
                line = f"{self.name()}.*"
            elif kind == "path":
                first, second, third = self.words(3)
                line = f"*/{first}-{second}-{r.randint(1, 9999)}/{third}/*"
            else:
                line = f"2001:db8:{r.randint(0, 65535):x}:{r.randint(0, 65535):x}::{r.randint(1, 65535):x}"
            if line not in seen:
                yield f"{line} id=E{len(seen)} category={r.choice(_CATEGORIES)}"
                seen.add(line)

    def requests(self, count: int, hosts: int | None = None) -> list[tuple[str, str]]:
        """Pairs of host and target, nearly all of them unlisted.

        Args:
            count: how many different requests.
            hosts: on how many hosts; a fifth of `count` where not given.
        """
        r = self._random
        number = hosts or max(count // 5, 1)
        names = [("www." if r.random() < 0.3 else "") + self.host() for _ in range(number)]
        return [
            (r.choice(names), self.path() + (f"?{self.query()}" if r.random() < 0.4 else ""))
            for _ in range(count)
        ]
