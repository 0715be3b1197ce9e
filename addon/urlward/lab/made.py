"""Generated lists: any number of entries of reserved names, and URLs that are listed or just not.

The same number and seed give the same list. Of ten entries, six are pages, two are prefixes, one is a
parameter and one a host.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

DOMAIN = "made.example"
_PAGES_PER_HOST = 8


@dataclass(frozen=True, slots=True)
class Drawn:
    """URLs drawn from a generated list: listed ones, and unlisted ones on the same hosts."""

    listed: tuple[str, ...]
    unlisted: tuple[str, ...]


def lines(entries: int, seed: int = 1) -> Iterator[str]:
    """Lines of the generated list, one an entry."""
    for number in range(entries):
        yield f"{_entry(number, seed)} id=MADE-{number} category=made\n"


def draw(entries: int, count: int, seed: int = 1) -> Drawn:
    """Draw URLs from a generated list, `count` of each kind."""
    chosen = random.Random(seed).choices(range(entries), k=count)
    return Drawn(
        tuple(_listed(number, seed) for number in chosen),
        tuple(f"http://{_host(number)}/free/{number * 7919 + seed}.html" for number in chosen),
    )


def _host(number: int) -> str:
    return f"h{number // _PAGES_PER_HOST}.{DOMAIN}"


def _entry(number: int, seed: int) -> str:
    match number % 10:
        case 9:
            return f"whole{number}-{seed}.{DOMAIN}"
        case 8:
            return f"http://{_host(number)}/view?item={number}-{seed}"
        case 6 | 7:
            return f"http://{_host(number)}/dir{number}-{seed}/*"
    return f"http://{_host(number)}/p{number}-{seed}.html"


def _listed(number: int, seed: int) -> str:
    entry = _entry(number, seed)
    match number % 10:
        case 9:
            return f"http://{entry}/any"
        case 8:
            return f"{entry}&page=2"
        case 6 | 7:
            return entry.replace("*", "deep/page.html")
    return entry
