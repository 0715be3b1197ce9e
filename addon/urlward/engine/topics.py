"""Topics: the page of a forum's topic, or of a post or film, that has other addresses, too.

Forums and boards lead to a topic by its number alone, by the place of a post in it, and from a page of their
list, and have its feed and its data. Here is a table of common programs': a row has the program, what is
asked for, and the topic's own addresses. A listed topic counts as what all others are read as, too.
"""

import re
from typing import NamedTuple

from urlward.engine.url import query_value
from urlward.engine.words import BY_CHANCE, at_first_use, beginning_of, search_for

_LONG_NAME = "[0-9A-Za-z_-]{25,}"
# By which of several accounts it is looked at, and how.
_GOOGLE = (
    r"\A/(drive|file|document|spreadsheets|presentation|forms)(?:/u/[0-9]++)?"
    rf"/(folders/|d/(?:e/)?)({_LONG_NAME})(?:/(?:view|edit|preview|pub|mobilebasic|htmlview|viewform))?\Z"
)
_BASE_58 = "123456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
# What Discourse makes of a title has a hyphen, or is `topic` where it could make nothing.
_TITLE = "(?:topic|(?=[^/]*-)[^/]++)/"
# Discuz links a topic with the page of the list that its visitor comes from, which is the first to robots,
# and leads to last posts by the address that it has without rewriting.
_DISCUZ = r"(?<=/)thread-([0-9]+)-([0-9]+)-([0-9]+)\.html\Z"
_is_long = re.compile("(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch
_at_a_post = re.compile(r"((?:(?:\A|[&;])topic=|/topic,)[0-9]+)\.(?:msg[0-9]+|new)(?![^&;.])").sub
"""What SMF has in place of `.0` where it leads to a post of a topic."""


class _Way(NamedTuple):
    """A way to a topic.

    Attributes:
        program: that has it.
        asked: expression of a part of the path.
        topics: templates of what the topic's path, or path and query, has in its place.
        tells: expression that all paths have that this may be of, behind a slash.
    """

    program: str
    asked: str
    topics: tuple[str, ...]
    tells: str


# The first that a path is of says what it is.
WAYS = (
    _Way(
        "Discourse",
        rf"(?<=/)(t/(?:{_TITLE})?[0-9]++)(/[0-9]++)?\.(?:json|rss)\Z",
        (r"\1", r"\1\2"),
        r"/t/(?:[^/]+/)?[0-9]+(?:/[0-9]+)?\.",
    ),
    _Way("Discourse", rf"(?<=/)(t/{_TITLE}[0-9]++)/[0-9]++\Z", (r"\1",), "/t/[^/]+/[0-9]+/[0-9]"),
    _Way(
        "Discuz",
        _DISCUZ,
        (r"thread-\1-\2-1.html", r"forum.php?mod=viewthread&tid=\1&extra=page%3D\3&page=\2"),
        "/thread-[0-9]+-[0-9]+-",
    ),
    _Way("NodeBB", r"(?<=/)(topic/[0-9]+/[^/]+)/[0-9]+\Z", (r"\1",), r"/topic/[0-9]+/[^/]+/[0-9]+\Z"),
    _Way("Flarum", r"(?<=/)(d/[0-9]+-[^/]+)/[0-9]+\Z", (r"\1",), r"/d/[0-9]+-[^/]+/[0-9]+\Z"),
    _Way("MyBB", r"(?<=/)(thread-[0-9]+)-post-[0-9]+(?=\.html\Z)", (r"\1",), "/thread-[0-9]+-post-"),
    _Way("Vanilla", r"(?<=/)(discussion/[0-9]+/[^/]+)/p1\Z", (r"\1",), r"/discussion/[0-9]+/[^/]+/p1\Z"),
    # In others' frames.
    _Way(
        "Mastodon, Pixelfed",
        r"(?<=[^/]/)([0-9]{3,}+|(?=[^/0-9]*+[0-9])(?=[^/A-Z]*+[A-Z])[^/]++)/embed\Z",
        (r"\1",),
        r"/embed\Z",
    ),
    _Way(
        "YouTube, Invidious, Pornhub",
        rf"(?<=\A/)(?:embed|live|shorts)/{BY_CHANCE}([0-9A-Za-z_-]{{9,16}})\Z",
        (r"watch?v=\1", r"view_video.php?viewkey=\1"),
        "",
    ),
    _Way("MEGA", rf"(?<=\A/)embed/{BY_CHANCE}([0-9A-Za-z_-]{{8}})\Z", (r"file/\1",), ""),
    _Way(
        "Dailymotion, Spotify",
        rf"(?<=\A/)embed/(?=[a-z]+/{BY_CHANCE}[^/]+\Z)",
        ("",),
        r"/embed/[a-z]+/[^/]+\Z",
    ),
    _Way("Google Drive and Docs", _GOOGLE, (r"/\1/\2\3",), ""),
    _Way("Mastodon", r"(?<=/)users/([^/]+)/statuses/([0-9]+)\Z", (r"@\1/\2",), "/users/[^/]+/statuses/[0-9]"),
    _Way("PeerTube", r"(?<=/)videos/(?:watch|embed)/([^/]+)\Z", (r"w/\1",), "/videos/(?:watch|embed)/"),
    _Way("Moebooru", r"(?<=/)(post/show/[0-9]+)/[^/]+\Z", (r"\1",), "/post/show/[0-9]+/"),
    # The last and the first posts of a thread.
    _Way(
        "vichan, Kusaba X",
        r"(?<=/)(res/[0-9]+(?:-[^/+]*)?)(?:\+50|-100)(?=\.html\Z)",
        (r"\1",),
        r"/res/[0-9][^/.+]*(?:\+50|-100)\.",
    ),
)
_WAYS = [(beginning_of(way.tells), at_first_use(way.asked, re.DOTALL), way.topics) for way in WAYS]

TELLING = (
    *(r"/forum\.php\Z", "/topic,", "/w/[0-9A-Fa-f]{8}-", f"/d/(?:e/)?{_LONG_NAME}", f"/folders/{_LONG_NAME}"),
    *(rf"/{way}/[0-9A-Za-z_-]{{8,16}}/?\Z" for way in ("embed", "live", "shorts")),
    *[way.tells.replace(r"\Z", r"/?\Z") for way in WAYS if way.tells],
)
"""Expressions of which each path of a way to a topic has one, behind a slash. SMF's are in queries, too, as
``topic=``."""
_may_be = search_for(TELLING)


def topics(path: str, query: str) -> list[tuple[str, str]]:
    """The topics, as path and query, of which a path and query have the data, feed or a part, or are another
    way to them.

    Raises:
        UrlError: the query has too many percent signs that escape nothing.
    """
    if _may_be(path):
        path = path.rstrip("/")  # which is none to Rails and Express
    elif "topic=" not in query:
        return []
    for beginning, is_asked, instead in _WAYS:
        if beginning in path and (match := is_asked().search(path)):
            found = [f"{path[: match.start()]}{match.expand(way)}{path[match.end() :]}" for way in instead]
            parts = [_with_short_id(topic).partition("?") for topic in found]
            return [(topic, sent if mark else query) for topic, mark, sent in parts]
    if path.endswith("/forum.php"):
        number, page = query_value(query, "tid"), query_value(query, "page") or "1"
        if query_value(query, "mod") != "viewthread" or not (number.isdigit() and page.isdigit()):
            return []
        return [(f"{path.removesuffix('forum.php')}thread-{number}-{page}-1.html", query)]
    topic = _at_a_post(r"\1.0", _with_short_id(path)), _at_a_post(r"\1.0", query)
    return [topic] if topic != (path, query) else []


# The first that a listed path is of says what it is.
_OWN = [
    (at_first_use(asked), page)
    for asked, page in (
        (rf"(?<=/t/){_TITLE}(?=[0-9]++(?:/[0-9]++)?\Z)", ""),  # Discourse
        (_DISCUZ, r"thread-\1-\2-1.html"),
        (r"(?<=/post/show/)([0-9]++)/[^/]++\Z", r"\1"),  # Moebooru
        (_GOOGLE, r"/\1/\2\3"),
        (r"/videos/([0-9]++)/[^/]++/?\Z", r"/embed/\1"),  # Kernel Video Sharing, in others' frames
        (r"/(?:w|videos/watch)/(?=[^/]++\Z)", "/w/"),  # PeerTube
        # Mastodon's interface for programs, which its application and Pixelfed's and Pleroma's ask.
        (
            r"/(?:@[^/]++|p/[^/]++|i/web/post|notice)/([0-9]{3,}+|[0-9A-Za-z]{18})\Z",
            r"/statuses/\1",
        ),
        (r"(?<=/)__[^/]+__(?=[0-9a-f]{32}\.[a-z0-9]+\Z)", ""),  # Danbooru
        (r"/index\.php(?=/s/[^/]++\Z)", ""),  # Nextcloud, whose routes of a share's files have none
    )
]
_has_other = search_for(
    (
        *("/t/", "/thread-", "/post/show/", "/videos/", "/w/", "/@", "/p/", "/i/web/", "/notice/", "/__"),
        *("/d/", "/folders/"),
        r"/index\.php/s/",
    )
)


def page_by_number(path: str) -> str:
    """The page that all ways to a topic are read as, of one way that is listed: Discourse's application asks
    for ``/t/a-title/5`` by ``/t/5.json``, which `topics` has as ``/t/5``, and Discuz has
    ``/thread-5-1-1.html`` for ``/thread-5-1-2.html``, too. Empty where there is no other."""
    path = path.rstrip("/")
    if not _has_other(path):
        return ""
    for in_place, instead in _OWN:
        page, found = in_place().subn(instead, path, count=1)
        if found:
            page = _with_short_id(page)
            return page if page != path else ""
    return ""


def _with_short_id(path: str) -> str:
    """A path of a film of PeerTube's by the shorter of its two numbers."""
    page, way, number = path.rpartition("/w/")
    if not way or not _is_long(number):
        return path
    rest, letters = int(number.replace("-", ""), 16), ""
    for _ in range(22):
        rest, letter = divmod(rest, len(_BASE_58))
        letters = _BASE_58[letter] + letters
    return f"{page}{way}{letters}"
