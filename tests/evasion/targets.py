"""Differential fuzzing of request targets: what any server serves as listed, the matcher blocks.

    python tests/evasion/targets.py --minutes 10 [--seed N] [--origin lighttpd]...

Two invariants. A target that some origin answers with a listed page never passes. An ordinary target (see
`is_ordinary`) that some origin answers with an unlisted page, and none with a listed one, is neither blocked
nor refused.
"""

import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from engine.support import matcher
from evasion.runs import arguments, servers_folder
from evasion.servers import HOST, LIST, answer_of, missing, running_origins
from urlward.engine.errors import UrlError


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PAGES = _words(
    "/listed.html /deep/listed-page.html /tree/x.html /tree/deep/y.html /tree/ /app/a /app/.. /app.html"
    " /caf%C3%A9/a%20b.html"
)
_IN_PAGES = (("%20", "+"), ("%20", "%2B"), ("%C3%A9", "%E9"), ("%C3%A9", "\xc3\xa9"), ("%C3%A9", "\xe9"))
_QUERIES = ("topic=q31337q", "user_id=5&a=1", "a=1&user_id=5")
_INNOCENT = _words(
    "/innocent.html /x.html /deep/x.html /trees/x.html /listed.htm /view.php?topic=3133 /view.php?a=1"
)
_NAMES = _words(
    r"""
    a x tree deep app listed.html innocent.html index.html view.php http: ... ~ + %20 %23 a%23 #
    . .. %2e %2e%2e .%2e %2E. %252e%252e %%32e. ..%00 %c0%ae%c0%ae ..; ..;x ; ;a=b a;b a%3bb %3b
    a%2fb a%5cb a\b a%252fb a%%32fb %c0%af %zz % %2
    """
)
_SLASHES = ("/",) * 12 + _words(
    r"""
    // /// /./ /%2e/ /.// \ \/ /\ %5c %255c %2f %2F %2f/ /%2f %252f %%32f %25%32f /;/ ;/ %3b/
    """
)
_TAILS = _words(
    r"""
    / /x // ; ;x ;x=1/ %3b %3bx /;/x %00 %00.html # #x ? ?x %3f %20 + . /. /.. /x/.. /%2e \ %5c %2f
    ::$DATA %0a %09 ~ /index.html /..?? /..?x?y /%2e%2e?? %2f..?x?
    """
)
_TAILS += ("\xa0", "\xa0x", "\x85", "\xc2\xa0", "\xe2\x80\xa8x", "%a0", "%85", "%c2%a0", "\xe9")
_IN_NAMES = {"_": _words("_ . + %20 [ %2e %2E %5b %5B %5f %252e __ %2b")}
_BEFORE_NAMES = ("",) * 3 + _words("+ %20 %20+ %00 %09 & x& x=1& x=1; ; %3b ? #& %26 [ topic=0& user_id=0&")
_AFTER_NAMES = ("",) * 4 + ("%00", "%00z", "[", "[]", "]", "%20", "+", ".", "%")
_AFTER_VALUES = ("",) * 5 + _words("& ; ;x #x %00 &x=%zz && %23 % &topic=0 %20 + %09")
_AFTER_VALUES += ("\xa0", "\x85x")
_AT_STARTS = _words(
    r"/ //a /\a \\a //a;b /. /.. //.. /a/.. /a//.. /%2f.. ///a //u%2f@x //u%5c@x /.//u%2f@x //u\@x //u@x%2f"
)
_AT_QUERIES = ("?",) * 12 + _words("? ?? # ; #? ;? #x? ;x=1& ?; ?#")
_STEPS_UP = (*[".."] * 3, "%2e/..", "%2e%2e", ".%2e", "..;", "%252e%252e")
_INSERTED = (
    *_words(r"; ;x %3b . %2e \ %5c %2f / # %23 %00 %09 %0a"),
    "\xa0",
    "\x85",
    "\xc2\xa0",
    "\xe2\x80\x8b",
)


def target(rng: random.Random) -> str:
    """A target that some origin might answer with a listed page."""
    page = rng.choice(_PAGES)
    query = ""
    if rng.random() < 0.3:
        page, query = "/view.php", rng.choice(_AT_QUERIES) + _query(rng, rng.choice(_QUERIES))
        if rng.random() < 0.1:
            query = rng.choice(("/x?", "/?", "?", "/x?y", "%2f?a/b?", "/..?")) + query
    if rng.random() < 0.5:
        page = page.replace(*rng.choice(_IN_PAGES))
    path = page if rng.random() < 0.6 else _walked(rng, page)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        path = _respelled(rng, path)
    if rng.random() < 0.25:
        path += rng.choice(_TAILS)
    if not query and rng.random() < 0.1:
        query = rng.choice(("?x", "?/../listed.html", "?/../listed.html?", "?topic=q31337q"))
    return path + query


def innocent(rng: random.Random) -> str:
    """A target of an unlisted page, as a client other than a browser may spell it."""
    path = rng.choice(_INNOCENT)
    path, mark, query = path.partition("?")
    for _ in range(rng.choice((0, 1, 2))):
        path = _respelled(rng, path)
    return path + mark + query


def _walked(rng: random.Random, page: str) -> str:
    """A detour: names, and as many steps up, in any order and spelling, before or inside of a path."""
    at = rng.choice([m.start() for m in re.finditer("/", page)])
    names = [rng.choice(_NAMES) for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))]
    names += [rng.choice(_STEPS_UP) for _ in range(rng.choice((1, 1, 2, 3)))]
    if rng.random() < 0.3:
        rng.shuffle(names)
    detour = "".join(rng.choice(_SLASHES) + name for name in names)
    return page[:at] + detour + rng.choice(_SLASHES) + page[at + 1 :]


def _respelled(rng: random.Random, path: str) -> str:
    at = rng.randrange(len(path))
    slash = rng.choice([i for i, c in enumerate(path) if c == "/"] or [at])
    match rng.randrange(6):
        case 0:
            return path[:slash] + rng.choice(_SLASHES) + path[slash + 1 :]
        case 1:
            form = rng.choice(("%{:02x}", "%{:02X}", "%25{:02x}", "%%{:02x}"))
            return path[:at] + (form.format(ord(path[at])) if path[at] != "%" else "%25") + path[at + 1 :]
        case 2:
            return path[:at] + rng.choice(_INSERTED) + path[at:]
        case 3:
            name = rng.choice(_SLASHES) + rng.choice(_NAMES) + rng.choice(_SLASHES)
            return path[:slash] + name + path[slash + 1 :]
        case 4:
            return rng.choice(_AT_STARTS) + path
        case _:
            return path.replace("/", rng.choice(_SLASHES), rng.choice((1, 2, -1)))


def _query(rng: random.Random, query: str) -> str:
    query = "".join(rng.choice(_IN_NAMES[c]) if c in _IN_NAMES and rng.random() < 0.7 else c for c in query)
    pairs = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if rng.random() < 0.3:
            at = rng.randrange(len(name))
            name = name[:at] + f"%{ord(name[at]):02x}" + name[at + 1 :]
        if rng.random() < 0.2:
            value = "".join(f"%{ord(c):02x}" for c in value)
        if rng.random() < 0.5:
            name = rng.choice(_BEFORE_NAMES) + name + rng.choice(_AFTER_NAMES)
        pairs.append(f"{name}{rng.choice(('=',) * 12 + ('%3d', '=='))}{value}{rng.choice(_AFTER_VALUES)}")
    return rng.choice(("&",) * 9 + (";", "%26")).join(pairs)


def is_sent(text: str) -> bool:
    """Whether the filter lets a target of these bytes through to an origin at all."""
    return text.startswith("/") and all(c > " " and c != "\x7f" for c in text)


_IN_SEVERAL_WAYS = re.compile(
    # Escapes of escapes and of controls, a backslash, `;`, an escaped slash, a fragment, `//host`: origins
    # differ, and where one's reading is of a listed folder a target is blocked though no such file is in it.
    # So do they over blanks beyond ASCII.
    r"[^!-~]|%[01][0-9a-f]|%25|%[0-9a-f]?%|\\|%5c|;|%3b|%2f|#|\A//"
    # Empty segments before dot segments; dots at the end, which do not count to Windows.
    r"|//.*(?:\.|%2e)|\A[^?]*(?:\.|%2e)(?:\?|\Z)"
    # Dot segments beside several marks: lighttpd takes them out up to the last one.
    r"|\A(?=.*/(?:\.|%2e))[^?]*\?.*\?"
    # To routers steps up are names below others.
    r"|\A[^?]*/(?:\.|%2e){2}(?:/|\?|\Z)"
    # An escaped `=` is one in a canonical query, of a parameter given twice any may count, and brackets and
    # blanks around names and values do to some; what follows a number is none of it to others; a file is
    # itself with more path behind it.
    r"|\?\?|\?.*(?:%3d|=0|=(?:\d|%3\d)++[^&]|[][+]|%5[bd]|%[01][0-9a-f]|%20)|\.(?:html?|php)/",
    re.IGNORECASE,
).search


def is_ordinary(text: str) -> bool:
    """Whether a target is the same to all origins, if spelled with needless escapes, slashes and dots."""
    return not _IN_SEVERAL_WAYS(text)


@dataclass
class Tally:
    """What has been found.

    Attributes:
        leaks: targets that pass, with the origins that serve a listed page for them.
        excess: ordinary targets that do not pass, with the origins that serve an unlisted page for them.
        listed: per origin, targets served as listed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    leaks: dict[str, list[str]] = field(default_factory=dict)
    excess: dict[str, list[str]] = field(default_factory=dict)
    listed: dict[str, list[str]] = field(default_factory=dict)


def fuzz(origins: Mapping[str, int], seed: int | str, targets: int, until: float) -> Tally:
    """Ask all origins for the same targets, side by side.

    Args:
        origins: ports by name.
        seed: the same one gives the same targets.
        targets: how many at most.
        until: when to stop, by `time.monotonic`.
    """
    rng, tally = random.Random(seed), Tally(listed={name: [] for name in origins})
    blocks = matcher(*LIST.splitlines())
    with ThreadPoolExecutor(len(origins)) as pool:
        done = 0
        while done < targets and time.monotonic() < until:
            batch = [
                t
                for t in (target(rng) if rng.random() < 0.8 else innocent(rng) for _ in range(100))
                if is_sent(t)
            ]
            done += len(batch)
            asked = {name: pool.submit(_answers, port, batch) for name, port in origins.items()}
            answers = {name: future.result() for name, future in asked.items()}
            for number, text in enumerate(batch):
                by = [name for name in origins if answers[name][number] == "listed"]
                others = [name for name in origins if answers[name][number] == "innocent"]
                for name in by:
                    tally.listed[name].append(text)
                try:
                    verdict = "blocked" if blocks.check(HOST, text).blocked else "passed"
                except UrlError:
                    verdict = "refused"
                kind = "listed" if by else "unlisted" if others else "nowhere"
                ordinary = is_ordinary(text)
                tally.counts[f"{'ordinary, ' if ordinary else ''}{kind}, {verdict}"] += 1
                if by and verdict == "passed":
                    tally.leaks[text] = by
                if verdict != "passed" and kind == "unlisted" and ordinary:
                    tally.excess[text] = others
        tally.counts["targets"] = done
    return tally


def _answers(port: int, batch: Iterable[str]) -> list[str]:
    return [answer_of(port, text.encode("latin-1")) for text in batch]


def main() -> int:
    given = arguments("Fuzz the matcher's reading of targets against bare origins.", "origin", "tomcat")
    with servers_folder("targets") as folder, running_origins(folder) as origins:
        origins = {name: port for name, port in origins.items() if not given.origin or name in given.origin}
        print(f"seed {given.seed}, origins: {' '.join(origins)}", flush=True)
        for name, packages in missing().items():
            print(f"not installed: {name} ({packages})")
        tally = fuzz(origins, given.seed, 1 << 60, time.monotonic() + given.minutes * 60)
    for text, by in list(tally.leaks.items())[:40]:
        print(f"LEAK {text}   {' '.join(by)}")
    for text, by in list(tally.excess.items())[:40]:
        print(f"EXCESS {text}   {' '.join(by)}")
    print(", ".join(f"{what}: {count}" for what, count in sorted(tally.counts.items())))
    print(", ".join(f"{name}: {len(texts)} listed" for name, texts in tally.listed.items()))
    print(f"{len(tally.leaks)} leaks, {len(tally.excess)} blocked in excess")
    return 1 if tally.leaks or tally.excess or not origins else 0


if __name__ == "__main__":
    sys.exit(main())
