"""Readings of a target: the other pages that origins take a request for, beside the one it names.

Servers, frameworks and what stands in front of them read one target in ways of their own; a filter that knows
fewer of them than the origin can be walked around, and one that knows more blocks what is not listed. So each
is one that a common origin has. Text is a *byte string*, as in `urlward.engine.url`, which has the spelling
that all of one page have.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from urlward.engine import data_routes, pictures, topics
from urlward.engine.errors import UrlError
from urlward.engine.extensions import FILES, SCRIPTS, is_file
from urlward.engine.titles import OWN_TITLE, titled
from urlward.engine.url import (
    LETTERS,
    MAX_DECODES,
    MAX_ODD_PATH,
    MOST_ODD_HOST,
    PADDED,
    PLAIN_MARKS,
    SLASHES,
    STRIPPED,
    bounded,
    canonical_host,
    escapes_of,
    in_ways_of_blanks,
    numbered,
    path_of_unescaped,
    spelled,
    split_authority,
    split_target,
    unescape_all,
    unescape_once,
    without_dots,
)
from urlward.engine.words import behind, search_for

_TELLING = (*pictures.TELLING, *data_routes.TELLING, *topics.TELLING)
_may_be_a_programs = search_for(_TELLING)
# What `is_plain_path` says, less what may stand for a file, or is a program's of its own: dots are in the
# last segment alone, no `.php` has more behind it, it has no telling word or `&`, no number with zeros in
# front, and it is no wiki's page.
_ONE_PAGE = re.compile(
    rf"(?=/)(?:/(?!{behind('/', _TELLING)}|{PADDED}|wiki/(?!{OWN_TITLE}\Z))"
    r"[!$')*,\-0-9:=@A-Z\[\]^_`a-z|}~\"<>][!$')(*,\-0-9:=@A-Z\[\]^_`a-z|}~\"<>]*+)*+"
    rf"(?:/|(?:\.(?![pP][hH][pP].|{behind(r'\.', _TELLING)})"
    r"[!$')(*,\-0-9:=@A-Z\[\]^_`a-z|}~\"<>]++)*+)\Z"
).match
_PARAMETER = rf"(?!\+*t(?:itle=(?!{OWN_TITLE}(?:&|\Z))|opic=[0-9]+\.[mn]))[!-\"$'-:<->@-~]*+"
_ONE_QUERY = re.compile(rf"{_PARAMETER}(?:[&;]{_PARAMETER})*+").fullmatch
_MAX_WORK = 160 * 1024
"""Characters to look at until a target is judged, of all texts on the way to its readings and of those."""
_READ_COST = 400
"""Characters that cost what looking at one more text does, however short."""
_NUMBERS_A_TEXT = 8
"""Segments that may be numbers that cost what looking at one more text does."""
_READ_DECODES = 2
"""Times that an origin, or two behind each other, unescape before they look for dot segments."""

# `%u002e` is a dot to IIS, and in a query to ASP.NET and to Perl's CGI.
_WIDE_ESCAPES = re.compile(r"(?:%[uU][0-9A-Fa-f]{4})+").sub
_OVERLONG = re.compile(
    r"(?i:%c[01]%[89ab][0-9a-f]|%e0%[89][0-9a-f]%[89ab][0-9a-f]"
    r"|%(?:f0|f8%80|fc%80%80)%8[0-9a-f](?:%[89ab][0-9a-f]){2})"
).sub
_BEYOND_ASCII = re.compile(r"(?:%[89A-Fa-f][0-9A-Fa-f]|[\x80-\xff])+")
_PLUSES = re.compile(r"\+|%2[bB]").sub
_PLUSES_AT_END = re.compile(r"(?<!\+)(?<!%2[bB])(?:\+|%2[bB])++/?\Z").search
_BREAKS = re.compile(r"%(?:25)*(?:09|0[aA]|0[dD])").sub
_UP_TO_LAST_BRACE = re.compile(r".*(?:\}|%7[dD])", re.DOTALL).match
_BRACED = re.compile(r"(?:\{|%7[bB]).*?(?:\}|%7[dD])", re.DOTALL).sub
_STRAY_PERCENT_AND_MORE = re.compile(r"%(?![0-9A-Fa-f]{2}).{2}", re.DOTALL)
_ENDS_IN_DOTS = re.compile(r"[/\\]\.\.?\Z").search
_DOT_SEGMENT = re.compile(r"(?:^|[/\\])\.{1,3}(?:[/\\;]|\Z)").search
# `/d../x` is `/d/../x` where a server puts a folder with a slash at its end in the place of `/d`.
_DOTS_BEHIND_A_NAME = re.compile(r"[^/\\.](?<!%2[fF])(?<!%252[fF])(?<!%5[cC])(?<!%255[cC])\.\.[/\\;]").search
_STEP_UP = re.compile(r"[/\\]\.\.(?:[/\\;]|\Z)").search
_PLAIN_NAMES = re.compile(r"(?:/[0-9A-Za-z_~\-][0-9A-Za-z_~.\-]*)*").match
_DOT_IN_A_NAME = re.compile(r"(?<=[^/.])\.").finditer
_THREE_DOTS = re.compile(r"(?:^|(?<=[/\\]))\.{3}(?=[/\\;]|\Z)").sub
_TWO_SLASHES = re.compile(r"[/\\]{2}").match
# To WHATWG URL a backslash ends an authority, to RFC 3986 it does not; behind user information Node's
# `url.parse` ends it at whatever is in no host.
_AUTHORITIES_IN_PATH = [
    re.compile(pattern).match
    for pattern in (
        r"[/\\]{2,}[^/\\]+",
        r"//[^/]+",
        r"[/\\]{2,}[^/\\]*@[0-9A-Za-z.+_\-\x80-\xff]*(?::[0-9]*)?",
    )
]
_END = re.compile(r"%(?:(?:25)*[01][0-9A-Fa-f]|.?\Z|(?![0-9A-Fa-f]{2})..)", re.DOTALL).search
_ESCAPED_DOT = re.compile("%2[eE]")
_ESCAPED_SLASH = re.compile("%2[fF]").sub
_ESCAPED_MARK = re.compile("%(?:(3[fF])|23|20(?=(?i:HTTP)/))").search
_DOT_OR_BLANK = re.compile("%(?:(2[eE])|20)")
_PATH_PARAMETERS = re.compile(r";[^/]*")
# ASP.NET keeps the ids of clients without cookies in a segment of their own.
_SESSION = re.compile(r"/\((?:[A-Za-z]\([^/()]*\))+\)(?=/)")
_FILE_AND_MORE = re.compile(r"\.([^/.]++)(?=/)").finditer
# Caddy finds the script of `/a.php;x.php` wherever `.php` comes first.
_PHP_AND_MORE = re.compile(r"\.(php)(?=.)", re.IGNORECASE).finditer
_MAY_BE_A_FILE = re.compile(r"&|\.(?:[^/.]++/|(?i:php).|\Z)").search
_may_have_numbers = re.compile(f"/{PADDED}").search
_may_be_a_title = re.compile(r"/wiki/|/index\.php(?:/|\Z)").search
# Looked for where a run begins: from each place in it, the time would grow by the square of its length.
_DOTS_AT_ENDS = re.compile(r"(?<!\.)\.++(?=/)|(?<!\.)(?<!%20)(?:\.|%20)++\Z").sub


def _first_word(text: str) -> str:
    return next(iter(text.split(maxsplit=1)), "")


BEGINS_A_HOST = ("/", "\\", "%")
"""What a target's first slash is followed by where it may begin with a host."""


def hosts_in_path(target: str) -> tuple[str, ...]:
    """Hosts that a target as sent begins with, in canonical form: programs that go by its URL take them for
    what is asked for, whatever the Host field says (``new URL("//a/b", base)`` is of the host ``a``), some
    once they have unescaped it."""
    if target[1:2] not in BEGINS_A_HOST or _BEYOND_ASCII.match(target, 1):
        return ()
    path, _ = split_target(target)
    steps = {path: None}
    if "%" in path and len(path) <= MAX_ODD_PATH:
        with suppress(UrlError):  # nested too deep for anybody
            once = unescape_once(path)
            for step in (once, unescape_once(once), unescape_all(path)):
                steps[step.translate(STRIPPED)] = None
    found: dict[str, None] = {}
    for step in steps:
        for authority, _ in _in_front(step):
            with suppress(UrlError):  # what is no host is none to them either
                found[canonical_host(split_authority(authority.lstrip("/\\"))[0])] = None
    return tuple(host for host in found if len(host) <= MOST_ODD_HOST)


class Work:
    """Work limit for judging one target, counted in steps and not in time, so that a verdict is the same on
    every machine."""

    left = _MAX_WORK

    def spend(self, characters: int, texts: int = 1) -> None:
        """Count work against the limit.

        Args:
            characters: of all texts together.
            texts: how many those are.

        Raises:
            UrlError: that is too much.
        """
        self.left -= characters + _READ_COST * texts
        if self.left < 0:
            raise UrlError("a target that may be read in too many ways to be judged")


class Reading(NamedTuple):
    """Interpretation of a request target that an origin may have.

    Attributes:
        path: in the form in which paths of entries are canonical; a slash that the origin keeps inside a
            segment stays escaped.
        query: as sent.
        shorter: whether the target has more that is left out here. What allows the whole allows this too,
            unless it is a path sequence, which may be in what is left out. Never where there are dot
            segments.
        script: whether what is left out may make another page of it: what is behind a script, or behind an
            escaped mark, ``&`` without a value, or dots at its end, where there is no file. To an entry with
            parameters `path` is its page.
        respelled: whether the target is spelt in another way here, for an origin that takes the two for one.
            What allows it as it was sent allows this too, and what allows all that is `shorter` as it was
            sent allows what is so here. Never where there are dot segments.
        host: the only one that has this page, in canonical form; empty for all that the request names.
    """

    path: str
    query: str
    shorter: bool = False
    script: bool = False
    respelled: bool = False
    host: str = ""


def is_plain_path(path: str) -> bool:
    """Whether a path as sent is canonical, and the same to every origin: without empty and dot segments, or
    dots at the end of one with another behind it."""
    return (
        path.isascii()
        and b"?"[0] not in path.encode().translate(PLAIN_MARKS)
        and path[:1] == "/"
        and "//" not in path
        and "/." not in path
        and "./" not in path
        and "/(" not in path
    )


def indexed(path: str) -> str:
    """The other path by which a program gets parameters: `/?topic=5` is `/index.php?topic=5`. Empty where
    there is none."""
    if path[-1:] == "/":
        return f"{path}index.php"
    return path.removesuffix("index.php") if path.endswith("/index.php") else ""


is_one_page, is_one_query = _ONE_PAGE, _ONE_QUERY
"""Whether a path, and a query that is not empty, as sent are one page to every origin (`target_readings`)
but for a slash at the path's end, which some take for none, and parameters to a folder (`indexed`)."""


def target_readings(target: str, work: Work | None = None) -> tuple[Reading, ...]:
    """Everything that common origins take a target for, the canonical reading first.

    They differ in how often they unescape, in whether they do so before they take out dot segments and
    empty ones, in whether an escaped slash, a backslash or ``;`` ends a segment, in whether ``//a`` names a
    host, in what ends the path and begins the query, in what they make of more path behind a file, in
    whether ``%u0041`` is an escape, and in whether a slash at the end makes another page. Nearly every target
    is the same to all.

    Args:
        target: as sent.
        work: what that may cost, with what is done before and after.

    Raises:
        UrlError: it cannot be judged in bounded time.
    """
    path, _, query = target.partition("?")
    if _ONE_PAGE(path) and (not query or _ONE_QUERY(query)):
        # A named tuple's own constructor takes twice as long.
        readings: tuple[Reading, ...] = (tuple.__new__(Reading, (path, query, False, False, False, "")),)
        if path[-1] == "/" != path:
            readings += (tuple.__new__(Reading, (path[:-1], query, False, False, True, "")),)
        if query and (other := indexed(path)):
            readings += (tuple.__new__(Reading, (other, query, False, True, True, "")),)
        return readings
    if (
        is_plain_path(path)
        and "#" not in query
        and target.isascii()
        and not ("%" in query and (_narrowed(query) != query or _from_latin1(query) != query))
        and not has_path_behind(query)
        and not ("?" in query and _may_have_a_file_above(path))
    ):
        reading = Reading(path, query)
        if (
            _MAY_BE_A_FILE(path)
            or _may_be_a_programs(path)
            or "topic=" in query
            or _may_be_a_title(path)
            or _may_have_numbers(path)
            or (query and indexed(path))
        ):
            work = work or Work()
            return _with_same_pages(_with_files([reading], work), work)
        if path[-1] == "/" != path:
            return reading, Reading(path[:-1], query, respelled=True)
        return (reading,)
    work = work or Work()
    readings = _with_files(_in_every_way(target, work), work)
    narrowed = _narrowed(target)
    texts = dict.fromkeys((target, narrowed, *_passed_on(narrowed, work)))
    for text in texts:
        if text != target:
            readings += _with_files(_in_every_way(text, work), work)
        readings += _up_to_escaped_mark(text, work)
        readings += _up_to_script(text, work)
    readings = tuple(dict.fromkeys(readings))
    ends = [] if target.isascii() else [*in_ways_of_blanks(target), *in_ways_of_blanks(target, _first_word)]
    unbroken = [joined for text in (*texts, *ends) for joined in _joined(text)]
    ends += unbroken
    respelled = _respelled(target, narrowed)
    if respelled or ends:
        found = dict.fromkeys(readings)
        for text in dict.fromkeys(ends):
            if text not in respelled:
                ways = *_with_files(_in_every_way(text, work), work), *_up_to_escaped_mark(text, work)
                found |= {r._replace(shorter=True): None for r in ways}
        for text in respelled:
            ways = *_with_files(_in_every_way(text, work), work), *_up_to_escaped_mark(text, work)
            found |= {r._replace(respelled=True): None for r in ways}
        for text in _respelled(*ends):
            if text not in respelled:
                found |= {
                    r._replace(shorter=True, respelled=True): None
                    for r in _with_files(_in_every_way(text, work), work)
                }
        readings = tuple(found)
    has_dots = any(_DOT_SEGMENT(unescape_all(text.partition("?")[0])) for text in (narrowed, *unbroken))
    readings = _with_same_pages(readings, work, of_shorter=not has_dots)
    if has_dots:
        # What is left out may have been a way to another page: `/a;/../b` is `/b`, or `/a`. And to routers
        # that take out no dot segments `/gallery/5/../x` is below `/gallery/5/`.
        parts = map(split_target, (target, *respelled))
        kept = [Reading(spelled(unescape_all(path).replace("\\", "/")), query) for path, query in parts]
        readings = (*readings, *_with_numbers(kept, work))
        return tuple([reading._replace(shorter=False, respelled=False) for reading in readings])
    return readings


def _with_same_pages(
    readings: tuple[Reading, ...], work: Work, *, of_shorter: bool = True
) -> tuple[Reading, ...]:
    """Readings, and after them those without the slash at the end: to Express, Koa, Nuxt, Mojolicious and
    Spring the two are one page, and servers of files lead from the one to the other. And what a wiki takes
    them for, and parameters to a folder as those to its `index.php`, and the reverse.

    Args:
        readings: of a target.
        work: what that may cost.
        of_shorter: whether that holds for what is `Reading.shorter` too.

    Raises:
        UrlError: too much work.
    """
    known = {(reading.path, reading.query) for reading in readings}
    found = list(readings)
    for reading in readings:
        path, query = reading.path, reading.query
        if reading.shorter and not of_shorter:
            continue
        same = [(path[:-1], query)] if path[-1] == "/" != path else []
        if _may_be_a_title(path):
            work.spend(len(path) + len(query))
            same.append(titled(path, query))
        for path, query in same:
            if (path, query) not in known:
                known.add((path, query))
                work.spend(len(path))
                found.append(reading._replace(path=path, query=query, respelled=True))
        if reading.query and (other := indexed(reading.path)):
            # Of a page without parameters another file may be the index.
            work.spend(len(other) + len(reading.query))
            queries = dict.fromkeys((reading.query, titled(other, reading.query)[1]))
            found += [reading._replace(path=other, query=q, script=True, respelled=True) for q in queries]
    return tuple(found)


_DOTS = re.compile(r"(?:/|%2[fF])(?:\.|%2[eE]){1,2}(?:[/?#]|%2[fF]|\Z)").search


_DOT, _SLASH = (re.compile(pattern).search for pattern in (r"\.|%2[eE]", "/|%2[fF]"))


def _may_have_a_file_above(path: str) -> bool:
    """Whether a path as sent may have more path behind a file."""
    dot = _DOT(path)
    return dot is not None and _SLASH(path, dot.end()) is not None


def has_path_behind(query: str) -> bool:
    """Whether a query has dot segments that lighttpd takes out of the path."""
    return "?" in query and _DOTS(query) is not None


def _respelled(*targets: str) -> dict[str, None]:
    """Targets in UTF-8 where they are not, and with blanks in the path in place of `+` or the reverse."""
    found = dict.fromkeys(targets)
    for respell in (_from_latin1, _with_blanks, _with_pluses):
        found |= dict.fromkeys(map(respell, tuple(found)))
    return {text: None for text in found if text not in targets}


def _passed_on(target: str, work: Work) -> list[str]:
    """Targets as a server in front passes them on to another: without fragment, dot segments are out, and
    what is no letter of a URL is escaped. What the other then finds may have been hidden by what is gone.

    Raises:
        UrlError: too much work.
    """
    path, mark, query = target.partition("#")[0].partition("?")
    once = unescape_once(path)
    if target.isascii() and "#" not in target and ";" not in once and not _DOT_SEGMENT(once):
        return []
    texts = dict.fromkeys((once, unescape_once(_slashes_kept(path)), once.replace("\\", "/")))
    work.spend(2 * len(texts) * len(path), 2 * len(texts))
    found = {without_dots(text, merge=merge): None for text in texts for merge in (False, True)}
    return [f"{text.translate(_ESCAPE_PASSED_ON)}{mark}{query}" for text in found]


def _up_to_escaped_mark(target: str, work: Work) -> tuple[Reading, ...]:
    """Readings where a server in front passes the path on as it has unescaped it, so that an escaped ``?`` or
    ``#``, or a version of HTTP behind a blank, ends it: nginx does, told to pass on ``$uri`` or a part of it.

    To most origins the mark is part of a name, so only a file is one without what follows it, and what has
    parameters behind it, as links have that were escaped once too often: Nuxt unescapes them.

    Raises:
        UrlError: too much work.
    """
    path, mark, query = target.partition("?")
    match = _ESCAPED_MARK(path)
    if match is None:
        return ()
    behind = {"": None}
    if match[1]:
        # The query as sent follows, or is not passed on.
        begun = f"?{unescape_once(path[match.end() :])}"
        behind = {f"{begun}{mark}{query}": None, begun: None}
    readings = [
        reading
        for rest in behind
        for reading in _with_files(_in_every_way(path[: match.start()] + rest, work), work)
    ]
    named = match[1] and "=" in path[match.end() :]
    return tuple(
        [r._replace(shorter=True, script=r.script or not (named or is_file(r.path))) for r in readings]
    )


def _up_to_script(target: str, work: Work) -> tuple[Reading, ...]:
    """Readings where dot segments behind a script take nothing away: Caddy's `php_fastcgi` ends the path at
    the first ``.php`` of what was unescaped once.

    Raises:
        UrlError: too much work.
    """
    path, mark, query = target.partition("?")
    if ".." not in path and not _ESCAPED_DOT.search(path):
        return ()  # nothing is taken away
    once = unescape_once(path)
    match = next(_PHP_AND_MORE(once), None)
    if match is None or not _STEP_UP(once, match.end()):
        return ()
    work.spend(len(path))
    script = once[: match.end()].translate(_ESCAPE_PASSED_ON)
    return tuple(_in_every_way(f"{script}{mark}{query}", work))


def _narrowed(target: str) -> str:
    """A target without escapes that only some have: `%u002f` is a slash to IIS, the overlong `%c0%af` to
    SWI-Prolog."""
    return (
        _OVERLONG(_Spelled(_shortest), _WIDE_ESCAPES(_Spelled(_narrow), target)) if "%" in target else target
    )


class _Spelled(dict[str, str]):
    """How each part is spelt that a pattern finds in a text, made once: it may have the same 12,000 times.

    Args:
        spell: makes it.
    """

    __slots__ = ("_spell",)

    def __init__(self, spell: Callable[[str], str]) -> None:
        super().__init__()
        self._spell = spell

    def __call__(self, found: re.Match[str]) -> str:
        return self[found[0]]

    def __missing__(self, part: str) -> str:
        spelt = self[part] = self._spell(part)
        return spelt


def _narrow(wide: str) -> str:
    text = bytes.fromhex(wide.replace("%u", "").replace("%U", "")).decode("utf-16-be", "replace")
    return quote(text, safe="")


def _shortest(overlong: str) -> str:
    number = 0
    for byte in bytes.fromhex(overlong.replace("%", "")):
        number = number << 6 | byte & 0x3F
    return quote(chr(number & 0xFFFF), safe="", errors="surrogatepass")


def _joined(target: str) -> list[str]:
    """A target without escaped tabs and line breaks in its path: Python's `urlsplit` and Node's `new URL`
    take them out where they are given what has been unescaped, as `request.url` of Starlette is. And without
    what is in braces, which Caddy's `rewrite * /folder{uri}` takes for a placeholder that it does not know;
    the one may be in a page's name and the other not. A whole name at the end stays.
    """
    path, mark, query = target.partition("?")
    unbroken = _BREAKS("", path) if "%" in path else path
    found = [unbroken]
    if "}" in path or "%7" in path:
        found += [_without_braced(path), _without_braced(unbroken)]
    return [f"{joined}{mark}{query}" for joined in dict.fromkeys(found) if joined != path]


def _without_braced(path: str) -> str:
    # Up to where each brace is closed: from each that is not, the rest would be searched.
    match = _UP_TO_LAST_BRACE(path)
    if match is None:
        return path
    left, behind = _BRACED("", match[0]), path[match.end() :]
    if left == match[0] or (left[-1:] == "/" and not behind.strip("/")):
        return path  # not the folder, but a link that a template has not filled in: `/users/{id}`
    return SLASHES.sub("/", left + behind)


def _from_latin1(target: str) -> str:
    """Bytes that are not UTF-8 as letters of Western Europe, as IIS, Jetty and CherryPy have them, and digits
    of other scripts as ours, as Java and Python read numbers: Flask's `<int:id>` takes any."""
    return _BEYOND_ASCII.sub(_Spelled(_letters), target)


def _letters(escaped: str) -> str:
    data = unquote_to_bytes(escaped.encode("latin-1"))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "".join(map(_ANSI.__getitem__, data))
    return "".join([str(int(digit)) for digit in text]) if text.isdecimal() else escaped


def _with_blanks(target: str) -> str:
    """`+` in a path as a blank, as Amazon S3 and CivetWeb have it, and Sinatra, where it is escaped too.

    One at the end would then be left out, and is so where it is behind a file: the page `/C++` is not `/C`.
    """
    path, mark, query = target.partition("?")
    if "+" not in path and "%2" not in path:
        return target
    end = _PLUSES_AT_END(path)
    if end is not None and not is_file(path[: end.start()]):
        mark, path = f"{end[0]}{mark}", path[: end.start()]
    return f"{_PLUSES('%20', path)}{mark}{query}"


def _with_pluses(target: str) -> str:
    """The same for entries that have `+` for a blank: S3 writes URLs so."""
    path, mark, query = target.partition("?")
    return f"{path.replace('%20', '+')}{mark}{query}"


# As Windows has them in Western Europe: no page's name has the controls of Latin-1.
_ANSI = [quote(bytes((byte,)).decode("cp1252", "ignore") or chr(byte), safe="") for byte in range(256)]


def _in_every_way(target: str, work: Work) -> list[Reading]:
    cuts = dict.fromkeys(_cuts(target), False)
    # First of all, since it refuses what is too long.
    paths = {path: path_readings(path, work) for path, _, _ in cuts}
    path, mark, query = target.partition("?")
    if end := _END(path):
        # Perl's HTTP::Parser::XS ends a path at a zero byte, uWSGI at what is no escape, and to regular
        # expressions of Python and PHP `$` is before a line feed too.
        shorter = _cuts(path[: end.start()] + mark + query)
        cuts |= dict.fromkeys(shorter, True)
        paths |= {path: path_readings(path, work) for path, _, _ in shorter if path not in paths}
    found: dict[tuple[str, str], bool] = {}
    for (path, query, less), least in cuts.items():
        for read, short in paths[path].items():
            found[read, query] = found.get((read, query), True) and (less or least or short)
    return [Reading(read, query, shorter) for (read, query), shorter in found.items()]


def _cuts(target: str) -> list[tuple[str, str, bool]]:
    """Paths and queries that a target is cut into, with whether they are `Reading.shorter`.

    To Fastify a query begins at the first of ``?`` and ``#`` and, before version 5, ``;``. uWSGI ends the
    path at ``#`` and begins the query at the next ``?``. To Go there is no fragment, to aiohttp only behind
    ``?``. lighttpd takes dot segments out up to the last ``?``, where there are several, and the path ends at
    the first that is left; dots in front of that are a name to it. Behind a script it is all path.
    """
    path, query = split_target(target)
    found = [(path, query, False)]
    if "#" in target:
        whole, _, query = target.partition("?")
        path = whole.partition("#")[0]
        found += [(whole, query, False), (path, query, False), (path, target[len(path) + 1 :], False)]
        found.append((whole, query.partition("#")[0], False))
    if "?" in query and _DOTS(target):
        most, _, rest = target.partition("#")[0].rpartition("?")
        found.append((most, rest, False))
        text = _ESCAPED_SLASH("/", _ESCAPED_DOT.sub(".", most))
        for merge in (False, True):
            left, mark, more = without_dots(text, merge=merge).partition("?")
            name = "%3F" if mark and _ENDS_IN_DOTS(left) else ""
            found.append((left + name, f"{more}{mark}{rest}", False))
    elif "?" in query and _may_have_a_file_above(path):
        # What is between the marks is in no page's path, and to all others a value, such as a link back. So
        # only the file above is another page.
        found.append((f"{path}%3F", target.partition("#")[0].rpartition("?")[2], True))
    if ";" in path:
        path = path.partition(";")[0]
        found.append((path, target[len(path) + 1 :], True))
    return found


def _with_numbers(readings: list[Reading], work: Work) -> list[Reading]:
    """Readings, and after them those whose numbers are spelt otherwise.

    Raises:
        UrlError: too much work.
    """
    found = []
    for reading in readings:
        path, looked_at = numbered(reading.path)
        if looked_at:
            work.spend(len(path), looked_at // _NUMBERS_A_TEXT)
        if path != reading.path:
            found.append(reading._replace(path=path, respelled=True))
    return readings + found


def _with_files(readings: list[Reading], work: Work) -> tuple[Reading, ...]:
    """Readings, and after them the files that they may stand for besides what they name.

    lighttpd serves ``/a.html`` for ``/a.html/b``, PHP runs ``/a.php`` for ``/a.php/b``; to Windows, and to
    matchers of Caddy, dots and blanks at the end do not count; to CivetWeb, dots at the end of any segment;
    to databases that pad names (MariaDB, SQL Server), blanks in front of a slash at the end.
    To programs that are told of a path as a parameter (``/index.php?q=$1``), ``&`` begins further ones.
    What an application in the browser asks for in place of a page is that page, and so is what a site's own
    service makes of a picture.

    Raises:
        UrlError: too much work.
    """
    known = {(reading.path, reading.query) for reading in readings}
    files: dict[tuple[str, str], Reading] = {}
    in_size: list[Reading] = []
    for reading in readings:
        path, query = reading.path, reading.query
        if reading.shorter and not path.endswith("%3F"):  # which may be up to the last mark (`_cuts`)
            continue
        for end in (path, path[:-1]) if path.endswith("%20/") else (path,):
            if (file := _DOTS_AT_ENDS("", end)) == end:
                continue
            file = SLASHES.sub("/", file)
            # `/Fun.` is another page than `/Fun`, and `/Fun ` is none.
            dots = end.replace("%20", "") != file.replace("%20", "")
            script = dots and file[-1] != "/" and not is_file(file)
            files.setdefault((file, query), Reading(file, query, shorter=True, script=script))
        if "&" in path:
            page, _, more = path.partition("&")
            name = more.partition("/")[0]
            script = not (is_file(page) or "=" in name)
            if query and not (script and name):  # of `/Food&Drink?page=2` they are its own
                more = f"{more}&{query}"
            files.setdefault((page, more), Reading(page, more, shorter=True, script=script))
        of_page = data_routes.page_of_data(path, query)
        if of_page is not None:
            work.spend(2 * len(path))
            for file in (of_page or "/", f"{of_page}/", *(t for t, _ in topics.topics(of_page, query))):
                files.setdefault((file, query), Reading(file, query, shorter=True))
        for topic in topics.topics(path, query):
            work.spend(len(path) + len(query))
            files.setdefault(topic, Reading(*topic, shorter=True))
        for host, target in pictures.pictures(path, query):
            work.spend(2 * len(target), 2)
            in_size += [r._replace(shorter=True, host=host) for r in _in_every_way(target, work)]
        for match in (*_FILE_AND_MORE(path), *_PHP_AND_MORE(path)):
            file, more, kind = path[: match.end()], path[match.end() :], match[1].lower()
            if more != "/" and kind not in FILES:
                continue
            script = more != "/" and kind in SCRIPTS
            if script and more[0] == "/" and file.endswith("/index.php"):
                # A front controller, which also stands for what is no file.
                work.spend(len(path))
                page = f"{file.removesuffix('/index.php')}{more}"
                files.setdefault((page, query), Reading(page, query, shorter=True))
            if (file, query) not in known and (file, query) not in files:
                work.spend(len(file))
                files[file, query] = Reading(file, query, shorter=True, script=script)
                if script:  # such as what leads to a topic by its parameters
                    for topic in topics.topics(file, query):
                        files.setdefault(topic, Reading(*topic, shorter=True, script=topic[0] == file))
    return tuple(_with_numbers([*readings, *files.values(), *in_size], work))


def path_readings(path: str, work: Work | None = None) -> dict[str, bool]:
    """The paths that common origins take a path as sent for, the canonical one first.

    Returns:
        Each with whether it is `Reading.shorter`.

    Raises:
        UrlError: it cannot be judged in bounded time.
    """
    if is_plain_path(path):
        return {path: False}
    work = work or Work()
    text = bounded(path)
    work.spend(len(text))
    unescaped = unescape_all(text)
    wholes = [unescaped]
    if _TWO_SLASHES(unescaped):
        # `new URL(request.url, base)` takes `//a/b` for the path `/b` on another host.
        once = unescape_once(text)
        steps = dict.fromkeys((text, once, unescape_once(once), unescaped))
        wholes += [unescape_all(rest) for step in steps for rest in _behind_authority(step)]
    found = dict.fromkeys(map(path_of_unescaped, wholes), False)
    if _DOT_SEGMENT(unescaped) or _DOTS_BEHIND_A_NAME(unescaped):
        # Where no segment takes away another, what differs is only how segments are cut, and the finest
        # cut, which is the canonical one, has every page, folder and sequence that another has.
        _resolve_in_turn(text, unescaped, found, work, shorter=False)
        if _ENDS_IN_DOTS(unescaped):
            # Caddy and Node leave out the slash at the end with the dots: `/a/.` is `/a`.
            found |= {path[:-1]: False for path in tuple(found) if path[-1] == "/" and path[:-1] not in found}
            found.pop("", None)
        if unescaped.endswith((".", " ")):
            # Matchers of Caddy leave these out first of all.
            text = _DOT_OR_BLANK.sub(lambda match: "." if match[1] else " ", text).rstrip(". ")
            _resolve_in_turn(text, unescaped, found, work, shorter=True)
    if ";" in unescaped:
        for whole in (*wholes, unescape_all(_PATH_PARAMETERS.sub("", text))):
            found.setdefault(path_of_unescaped(_PATH_PARAMETERS.sub("", whole.replace("\\", "/"))), True)
    if "/(" in unescaped or "\\(" in unescaped:
        found |= {short: True for path in tuple(found) if (short := _SESSION.sub("", path)) not in found}
    return found


def _in_front(text: str) -> list[tuple[str, str]]:
    """The authorities that origins may find in front of a path, each with what is behind it.

    What is behind may begin with another: a target in absolute form is one that Varnish, say, takes out, and
    `new URL` finds the next.
    """
    found: dict[tuple[str, str], None] = {}
    texts = [text]
    for _ in range(2):
        parts = [
            (rest[: match.end()], rest[match.end() :])
            for rest in texts
            if _TWO_SLASHES(rest)
            for find in _AUTHORITIES_IN_PATH
            if (match := find(rest))
        ]
        found |= dict.fromkeys(parts)
        texts = [rest for _, rest in parts]
    return list(found)


def _behind_authority(text: str) -> list[str]:
    """The rest of a path for origins that look for an authority in front of it. Not where that is the root
    page: `//login.php` is how many a site links its own pages."""
    if not _TWO_SLASHES(text):
        return []
    return list(dict.fromkeys(rest for _, rest in _in_front(text) if rest.strip("/\\")))


def _resolve_in_turn(
    start: str, unescaped: str, found: dict[str, bool], work: Work, *, shorter: bool
) -> None:
    """Add what is left where dot segments are taken out before, between and after unescaping.

    Raises:
        UrlError: too much work.
    """
    # An escaped dot is a dot to everybody (RFC 3986 section 6.2.2.2), to uWSGI once dot segments are out, to
    # which a stray percent sign is an escape of two characters.
    first = _STRAY_PERCENT_AND_MORE.sub("~", start)
    rest = without_dots(first, merge=False, unescape=True)
    texts = {_ESCAPED_DOT.sub(".", text) for text in (start, rest)}
    if rest != first:
        texts.add(rest)  # of whose escaped dots some were so twice
    # To Mojolicious three dots are one, to others a name.
    texts |= {_THREE_DOTS(".", text) for text in texts}
    if _STEP_UP(unescaped):
        texts.update(_cut_at_dots(start, work))
    seen = set[str]()
    for _ in range(_READ_DECODES + 1):
        if "\\" in unescaped:
            # To some a backslash is a slash as sent (WHATWG URL standard, section 4.4), to some if escaped.
            texts.update([text.replace("\\", "/") for text in texts])
        if ";" in unescaped:
            # A backslash ends what follows a semicolon, or is in it.
            stripped = {_PATH_PARAMETERS.sub("", text) for text in texts}
            texts |= stripped
            texts.update([text.replace("\\", "/") for text in stripped])
        texts.update([rest for text in texts for rest in _behind_authority(text)])
        texts -= seen
        seen |= texts
        work.spend(sum(map(len, texts)), len(texts))
        resolved = {without_dots(text, merge=False) for text in texts}
        resolved.update([without_dots(text, merge=True) for text in texts if "//" in text])
        resolved.update([rest for text in resolved for rest in _behind_authority(text)])
        # nginx has `/d../d/a` led to `/files/d/../d/a` by `location /d { alias /files/d/; }`.
        dots = [(text, dot.start() + 1) for text in resolved if (dot := _DOTS_BEHIND_A_NAME(text))]
        resolved.update([without_dots(f"{text[:at]}/{text[at:]}", merge=False) for text, at in dots])
        for text in resolved:
            found.setdefault(spelled(_unescape_in_segments(text)), shorter)
        texts |= resolved
        texts = {unescape_once(text) for text in texts} | {
            unescape_once(_slashes_kept(text)) for text in texts
        }


def _cut_at_dots(path: str, work: Work) -> Iterator[str]:
    """A path as Connect has it, to which a mounted folder ends at a dot, too: `/d.x/../a` is `/d/.x/../a`.

    Raises:
        UrlError: too much work.
    """
    names = _PLAIN_NAMES(path)
    for dot in _DOT_IN_A_NAME(names[0] if names else ""):
        work.spend(len(path))
        yield f"{path[: dot.start()]}/{path[dot.start() :]}"


def _slashes_kept(text: str) -> str:
    """Escape escaped slashes once more."""
    return text.replace("%2f", "%252F").replace("%2F", "%252F") if "%" in text else text


def _unescape_in_segments(text: str) -> str:
    for _ in range(MAX_DECODES):
        if "%" not in text:
            break
        decoded = unescape_once(_slashes_kept(text))
        if decoded == text:
            break
        text = decoded
    return text


_ESCAPE_PASSED_ON = escapes_of(LETTERS + "!\"$%&'()*+,-./:;=@[\\]^_`{|}~<>")
