"""Plain lists, of one entry a line: the list grammar's own, hosts files (hosts(5)), and URLs.

A name that a hosts file leads to nowhere is blocked, and that name alone, as a resolver that reads the file
would. What a line among URLs stands for, `urlward.lists.formats.write.address` says.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import BinaryIO

from urlward.engine.errors import UrlError
from urlward.engine.grammar import HOSTS_OWN_NAMES, HOSTS_SINKS, with_attribute
from urlward.lists.formats.format import FormatOptions, Found, NotTakenError, Skipped, not_taken, text_lines
from urlward.lists.formats.write import address, attributes, category_of, host_alone


def read_native(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    category = category_of(options.category)
    for line in text_lines(file, (b"#", b"!")):
        if isinstance(line, Skipped):
            yield line
            continue
        number, text = line
        yield Found(with_attribute(text, "category", category) if category else text, number)


_WORD = re.compile(r"[^\s#]+")


def read_hosts(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    more = attributes(category=options.category)
    for line in text_lines(file, (b"#",)):
        if isinstance(line, Skipped):
            yield line
            continue
        number, text = line
        address, *words = _WORD.finditer(text.partition("#")[0])
        names = [word for word in words if word[0].lower() not in HOSTS_OWN_NAMES]
        fault = _fault(address[0], any_names=bool(names), alone=not words)
        if fault is not None:
            yield Skipped(number, address.start() + 1, fault.reason, fault.unsupported)
            continue
        for name in names:
            yield _found(number, name.start() + 1, name[0], more)


def _found(number: int, column: int, name: str, more: str) -> Found | Skipped:
    try:
        line = host_alone(name)
        if not line.startswith("0"):
            raise NotTakenError("a hosts line names hosts, not addresses", unsupported=False)
    except (UrlError, NotTakenError) as e:
        return not_taken(number, column, e)
    return Found(line + more, number, column)


def _fault(address: str, *, any_names: bool, alone: bool) -> NotTakenError | None:
    if address in HOSTS_SINKS and not alone:
        return None
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return NotTakenError("a hosts line is an address and names", unsupported=False)
    if alone:
        return NotTakenError("an address without a name", unsupported=False)
    return NotTakenError("a name led to an address, not blocked") if any_names else None


def read_urls(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    more = attributes(category=options.category)
    for line in text_lines(file, (b"#", b"!", b";")):
        if isinstance(line, Skipped):
            yield line
            continue
        number, text = line
        url = text.lstrip()
        column = len(text) - len(url) + 1
        try:
            if len(url.split()) > 1:
                raise NotTakenError("white space inside, which is %20 in a URL", unsupported=False)
            yield Found(address(url) + more, number, column)
        except (UrlError, NotTakenError) as e:
            yield not_taken(number, column, e)
