"""AdBlock network rules with a host, or with a simple path.

https://help.adblockplus.org/hc/en-us/articles/360062733293 and what uBlock Origin and AdGuard make of it:
``||`` begins at any label of a host, ``|`` at the URL's start or end, ``^`` is a delimiter or the end, a
rule goes on with anything where it has no end, and letters compare without regard to case.

A rule that ends in a slash, ``^`` or ``|`` is taken whole. One that ends in a letter or digit goes on in a
browser (``||host/ad`` is ``/adult`` too); the path that it names and what is below are taken, and it is told
as taken in part. One that ends in another character (``||host/ad-``) does all its work behind its end, inside
a segment, which no entry can say. An exception that is not taken leaves blocked what it excepts.
"""

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from urlward.engine.errors import UrlError
from urlward.lists.formats.format import FormatOptions, Found, NotTakenError, Skipped, text_lines
from urlward.lists.formats.write import (
    FRAGMENT,
    attributes,
    domain,
    has_www,
    host_alone,
    literal,
    page,
    prefix,
)

_COSMETIC = re.compile(r"#@?(?:\$\??|\?|%)?#|\$@?\$")
_OPTION = r"~?[a-z0-9_\-]++(?:=[^,]*+)?"
_OPTIONS = re.compile(rf"{_OPTION}(?:,{_OPTION})*+", re.IGNORECASE).fullmatch
_MOST_DOLLARS = 8
"""Places where options may begin; a path may have the sign too."""

_ANYWHERE = re.compile(r"\|\|(?P<host>[^/^*|:?#$@]+)(?P<rest>.*)", re.DOTALL)
_AT_START = re.compile(
    r"\|(?P<scheme>https?|wss?)://(?P<host>[^/^*|:?#$@]+)(?P<port>:\d+)?(?P<rest>.*)",
    re.DOTALL | re.IGNORECASE,
)
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_ALL = "^", "/"
_HAS_CASE = "match-case"
_MEANS_NOTHING = ("all", _HAS_CASE)


def read(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    more = attributes(category=options.category)
    conditions = 0
    for line in text_lines(file, ()):
        if isinstance(line, Skipped):
            yield line
            continue
        number, text = line
        rule = text.lstrip()
        if rule.startswith("!#"):
            conditions = max(conditions + rule.startswith("!#if") - rule.startswith("!#endif"), 0)
            if rule.startswith("!#include"):
                yield Skipped(number, 1, "another list: give it itself", unsupported=True)
        if _is_comment(rule):
            continue
        column = len(text) - len(rule) + 1
        try:
            entries, whole = _entries(rule)
            if conditions:
                reason = "a rule under a condition (!#if)"
                yield Skipped(number, column, reason, unsupported=True, certain=True)
                continue
            for entry in entries:
                yield Found(entry + more, number, column, whole)
        except UrlError as e:
            yield Skipped(number, column, str(e))
        except NotTakenError as e:
            # No host begins like that (RFC 1123 section 2.1): `-ads.gif` is no name.
            certain = rule.removeprefix("@@").startswith(("-", "_"))
            yield Skipped(number, column, e.reason, e.unsupported, certain=certain)


def _is_comment(rule: str) -> bool:
    return rule[0] in "![" or rule == "#" or (rule[0] == "#" and rule[1].isspace())


def _entries(rule: str) -> tuple[list[str], bool]:
    """Lines for a rule, and whether they say all that it means.

    Raises:
        NotTakenError: no lines of the grammar mean the same.
        UrlError: no such host or URL.
    """
    if _COSMETIC.search(rule):
        raise NotTakenError("a cosmetic rule: it changes pages")
    allow = "@@" if rule.startswith("@@") else ""
    pattern = rule[len(allow) :]
    nocase = " nocase"
    pattern, options = _without_options(pattern)
    if any(name not in _MEANS_NOTHING for name in options):
        raise NotTakenError("an option that changes what the rule means")
    if _HAS_CASE in options:
        nocase = ""
    lines, whole = _lines(pattern, nocase)
    return [allow + line for line in lines], whole


def _without_options(pattern: str) -> tuple[str, list[str]]:
    """Split a rule into its pattern, and the options that follow it."""
    end = 0
    for _ in range(_MOST_DOLLARS):
        end = pattern.find("$", end + 1)
        if end < 0:
            return pattern, []
        if _OPTIONS(pattern, end + 1):
            return pattern[:end], pattern[end + 1 :].lower().split(",")
    raise NotTakenError("options that begin nobody knows where")


def _lines(pattern: str, nocase: str) -> tuple[list[str], bool]:
    if pattern.startswith("/") and pattern.endswith("/"):
        raise NotTakenError("a regular expression")
    # What comes behind the end of a rule is free anyhow.
    pattern = pattern.rstrip("*")
    match = _ANYWHERE.fullmatch(pattern)
    if match is not None:
        if match["rest"] in _ALL:
            return [_whole(match["host"], domain)], True
        if match["rest"] == "*^" and match["host"].endswith("."):
            # In a browser more than a public suffix may follow.
            return [f"{match['host']}*"], False
        return _paths(match["host"], match["rest"], nocase, subdomains=True)
    match = _AT_START.fullmatch(pattern)
    if match is None:
        if "*" in pattern:
            raise NotTakenError("a wildcard inside")
        raise NotTakenError(
            "a pattern that may stand anywhere in a URL: ||host^, ||host/path, |http://host/path|"
        )
    port = f" port={match['port'][1:] if match['port'] else _PORTS[match['scheme'].lower()]}"
    if match["rest"] in _ALL:
        return [_whole(match["host"], host_alone) + port], True
    return _paths(match["host"], match["rest"], port + nocase)


def _whole(host: str, write: Callable[[str], str]) -> str:
    if not host.strip(".-") or host[0] in ".-" or host[-1] in ".-":
        raise NotTakenError("part of a name")
    return write(host)


def _paths(host: str, rest: str, more: str, *, subdomains: bool = False) -> tuple[list[str], bool]:
    """Lines for a path, or for it and all below, and whether that is all that the rule means."""
    ends, delimits = rest.endswith("|"), rest.endswith("^")
    path = rest[:-1] if ends or delimits else rest
    if not path.startswith("/"):
        raise NotTakenError(
            "a port in a rule" if path.startswith(":") else "a name that may go on: ||host^ ends it"
        )
    if "*" in path:
        raise NotTakenError("a wildcard inside")
    if any(c in path for c in "^|"):
        raise NotTakenError("a delimiter or an anchor inside")
    if "?" in path and not ends:
        raise NotTakenError("a query that may go on: | ends it")
    if len(path.split()) != 1:
        raise NotTakenError("white space inside", unsupported=False)
    _whole(host, host_alone)
    # With subdomains a page on `www.` would be one on all hosts beside that.
    alone = subdomains and has_www(host)
    if subdomains and not alone:
        more = f" subdomains{more}"
    path, mark, query = path.partition("?")
    if "#" in query:
        raise NotTakenError(FRAGMENT)
    path = literal(path)
    folder = path.endswith("/")
    if not (ends or delimits or folder or path[-1].isalnum()):
        raise NotTakenError("a path that goes on inside a segment")
    # A delimiter behind a slash is a query's mark or the end: `/dir/^` is `/dir/` and not `/dir/page`.
    lines = [page(f"http://{host}{path}{mark}{query}")] if ends or delimits or not folder else []
    if not ends and not (delimits and folder):
        lines.append(prefix(host, path if folder else f"{path}/"))
    return [line + more for line in lines], (ends or delimits or folder) and not alone
