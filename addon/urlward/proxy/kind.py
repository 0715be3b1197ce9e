"""Protocol detection by a connection's first bytes, and detection of HTTP requests in relayed bytes."""

import re
from typing import Literal, Self

_MAX_LINE = 1 << 12

# What origins pass over before a request: line breaks and blanks, Python's too, if not NULs, which only make
# one doubtful.
_PASSED_OVER = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0"
# What an origin could read as a request line, if a lenient one: a word, blanks, and a target of any form;
# behind GET anything, since Python's servers take `GET page` for HTTP/0.9.
_COULD_BE = re.compile(
    rb"(?:(?i:GET)[\x00-\x20\x85\xa0]+[!-~]|[!-~]+[\x00-\x20\x85\xa0]+(?:[/*\\%]|[A-Za-z][A-Za-z0-9+.-]*:))"
).match
_COULD_BEGIN = re.compile(rb"(?:[!-~]+(?:[\x00-\x20\x85\xa0]+[A-Za-z0-9+.-]*)?)?").fullmatch

# Whoever reads a line up to a blank as a method takes any bytes for one; with NULs between, as in the lengths
# of binary protocols, only uWSGI, which reads on to a space, over the ends of lines too, and takes any words
# for a version.
_BLANK = rb"[\t\x0b\x0c\x1c-\x20\x85\xa0]"
_TARGET = rb"(?:[/*\\%]|[A-Za-z][A-Za-z0-9+.-]*:)"
_LATE = re.compile(rb"[^\0\t-\r\x1c-\x20\x85\xa0]++%b+%b" % (_BLANK, _TARGET)).match
_TO_UWSGI = re.compile(rb"(?:[^ ]*+ )?%b[^ ]*+ [^\r]*+\r\n" % _TARGET).match
# Where that could be text, with all its fields, none of which is without a colon.
_HEAD_TO_UWSGI = re.compile(
    rb"(?:[^ ]*+ )?%b[^ ]*+ [^\r]*+\r\n(?:[^\r:]*+:[^\r]*+(?:\r\n[ \t][^\r]*+)*+\r\n)*+\r\n" % _TARGET
).match
_VERSION = b"HTTP/"
# A request line as a whole: no two of its repeats take the same bytes beside each other, since then the time
# for a line would grow faster than the line.
_LINE = rb"[^\0-\x20][^\0-\x20\x85\xa0]*+%b[^\r\n]*%bHTTP/\d+\.\d+%b*\r?\n" % ((_BLANK,) * 3)
# Or HTTP/0.9's, which has a target of any form; where prose may begin like that, only one that looks like it.
_GET = rb"[Gg][Ee][Tt]%b+" % _BLANK
_IN_CONTENT = re.compile(
    rb"^(?:%b|%b[!-~]++%b*\r?\n|%b%b)" % (_LINE, _GET, _BLANK, _GET, _TARGET), re.MULTILINE
)
is_request_line = re.compile(_LINE).fullmatch
"""Whether a line with its end could be a request's, to an origin that takes any bytes for a method."""
_AT_ITS_BEGINNING = re.compile(rb"%b|%b%b" % (_LINE, _GET, _TARGET))
_WITHOUT_CONTENT = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"})
"""Methods that give content no meaning (RFC 9110 section 9.3); origins may leave it unread."""

# The PROXY protocol, https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, in either version.
_PROXY_HEADERS = (b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n")

_SEEN = 1 << 16
"""Bytes in which a request is looked for: Python's servers take a line of so many."""
_SHORT = 32
"""Bytes of a line in which HTTP/0.9's is looked for before it has ended."""


def kind_of(data: bytes) -> Literal["http", "other", "unknown"]:
    """Detect the protocol of a client's first bytes.

    Returns:
        ``other`` only where no origin would find a request in them, ``unknown`` where there are too few. What
        may still become a request when it should have, is ``http``.
    """
    text = data.lstrip(_PASSED_OVER)
    if _COULD_BE(text.lstrip(b"\0" + _PASSED_OVER)) or b"HTTP/" in data[:_MAX_LINE]:
        return "http"
    if not _COULD_BEGIN(text) or b"\n" in text:
        return "other"
    return "unknown" if len(data) < _MAX_LINE else "http"


def begins_proxy_header(data: bytes) -> bool | None:
    """Whether a client's first bytes begin a header of the PROXY protocol; None where there are too few.

    Only a proxy speaks it. A server that takes it, from anybody, finds HTTP or TLS behind it.
    """
    if data.startswith(_PROXY_HEADERS):
        return True
    return None if any(header.startswith(data) for header in _PROXY_HEADERS) else False


class LateRequest:
    """Detector of an HTTP request in relayed bytes that an origin could find at their beginning.

    Args:
        content: whether they are the content of a request whose method gives content no meaning (RFC 9110
            section 9.3.1), or of any: there are origins that leave it unread, and then read it as the next
            request. Otherwise they are what is neither HTTP nor TLS.
        chunked: whether it is in chunks, of which uWSGI knows nothing: a method may be `28\\r\\nPUT`.
        first: whether only the content's first line counts, which is where such an origin would begin. What
            has a meaning may quote requests further on, as a batch of them does.
    """

    __slots__ = ("_chunked", "_content", "_first", "_held", "done")

    done: bool
    """Whether so much has come that no origin would look for a request any more."""

    def __init__(self, *, content: bool, chunked: bool = False, first: bool = False) -> None:
        self.done = False
        self._content = content
        self._chunked = chunked
        self._first = first
        self._held = bytearray()

    @classmethod
    def in_content(cls, method: bytes, *, chunked: bool) -> Self:
        """For the content of a request."""
        return cls(content=True, chunked=chunked, first=method not in _WITHOUT_CONTENT)

    def found(self, data: bytes) -> bool:
        """Whether the new bytes complete a request with the ones before."""
        if self.done:
            return False
        held = self._held
        if not held:
            data = data.lstrip(b"\0" + _PASSED_OVER)
        seen = len(held)
        held += data[: _SEEN - seen]
        ended = b"\n" in data  # without that, no expression of a whole line finds more than before
        if self._content:
            start = held.rfind(b"\n", 0, seen) + 1
            look = _AT_ITS_BEGINNING.match if self._first else _IN_CONTENT.search
            past = self._first and start > 0
            found = not past and (ended or seen - start < _SHORT) and look(held, start) is not None
            found = found or (self._chunked and ended and _HEAD_TO_UWSGI(held) is not None)
        else:
            found = held.find(_VERSION, max(seen - len(_VERSION), 0), _MAX_LINE) >= 0 or any(
                look(held) is not None for look in (_LATE, _TO_UWSGI)
            )
        self.done = len(held) >= _SEEN or (self._first and not self._chunked and b"\n" in held)
        if self.done:
            held.clear()
        return found
