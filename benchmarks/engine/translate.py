"""An entry in the syntax of each engine that urlward is compared with.

None of them can say everything that the list grammar says. Where one cannot, it gets the form that
still finds every listed request and, of several such, the one it is fastest at;
``benchmarks/README.md`` says what that form blocks besides.
"""

from urlward.engine.entry import Entry, Kind


def adblock_rule(entry: Entry) -> str:
    """The closest network filter; finds all that the entry lists, and sometimes more."""
    kind = entry.kind
    if kind in (Kind.DOMAIN, Kind.HOST):
        return f"||{entry.host}^"
    if kind is Kind.PARAMS:
        return f"||{entry.host}{entry.path}?*{parameter(entry)}^"
    if kind is Kind.NAME:
        return f"||{entry.host}."
    if kind is Kind.PATH:
        # Without the stars it would read as a regular expression.
        return f"*{entry.path}*"
    if kind is Kind.ADDRESS:
        return f"||{literal_address(entry)}^"
    # A caret behind a page would make it a regular expression, compiled at the first hit.
    return f"||{entry.host}{entry.path}"


def literal(entry: Entry) -> str:
    """A substring of `haystack` where the entry matches; parameters are left to be confirmed."""
    kind = entry.kind
    if kind is Kind.DOMAIN:
        return f".{entry.host}/"
    if kind is Kind.HOST:
        return f"^.{entry.host}/"
    if kind is Kind.NAME:
        return f".{entry.host}."
    if kind is Kind.PATH:
        return entry.path
    if kind is Kind.ADDRESS:
        return f"^.{literal_address(entry)}/"
    return f"^.{entry.host}{entry.path}" + ("" if kind is Kind.PREFIX else "?")


def haystack(host: str, path: str) -> str:
    """What is searched for `literal`."""
    return f"^.{host.removeprefix('www.')}{path}?"


def expression(entry: Entry) -> str | None:
    """A Safe Browsing host-suffix, path-prefix expression; None where there is none."""
    kind = entry.kind
    if kind in (Kind.NAME, Kind.PATH):
        return None
    if kind in (Kind.DOMAIN, Kind.HOST):
        return f"{entry.host}/"
    if kind is Kind.ADDRESS:
        return f"{literal_address(entry)}/"
    if kind is Kind.PARAMS:
        return f"{entry.host}{entry.path}?{parameter(entry)}"
    return f"{entry.host}{entry.path}"


def parameter(entry: Entry) -> str:
    """The one parameter of a benchmark's entry."""
    (param,) = entry.params
    return param


def literal_address(entry: Entry) -> str:
    """An address as the host of a URL."""
    address = entry.host.partition("/")[0]
    return f"[{address}]" if ":" in address else address
