"""Plain lists of URLs, one per line.

A URL is that page. A line that is only a host, without scheme or slash, is that host alone, any path:
a list of URLs that names a host means no other host. A name without a dot is refused as a slip.
"""

from collections.abc import Iterator
from typing import BinaryIO

from urlward.engine.errors import UrlError
from urlward.engine.url import split_authority
from urlward.lists.formats.format import FormatOptions, Found, NotTakenError, Skipped, not_taken
from urlward.lists.formats.stream import text_lines
from urlward.lists.formats.write import attributes, host_alone, page


def read(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
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
            yield Found(_line(url) + more, number, column)
        except (UrlError, NotTakenError) as e:
            yield not_taken(number, column, e)


def _line(url: str) -> str:
    if len(url.split()) > 1:
        raise NotTakenError("white space inside, which is %20 in a URL", unsupported=False)
    if "://" in url or url.startswith("//"):
        return page(url)
    if any(c in url for c in "/\\?#@"):
        return page(url)
    host, port = split_authority(url)
    if "." not in host and not host.startswith("["):
        raise NotTakenError("a name without a dot", unsupported=False)
    if port == 0:
        raise NotTakenError("port 0", unsupported=False)
    return host_alone(host) + (f" port={port}" if port else "")
