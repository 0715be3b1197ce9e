"""Data routes: the page whose data an application in the browser asks for.

Where a link is followed, such an application does not ask for the page: it gets its data from an address that
the program has for that, and shows the page by its own. Here is a table of common programs': a row has the
program, what is asked for, and which page that is.
"""

import re
from typing import NamedTuple

from urlward.engine.url import unescape_once
from urlward.engine.words import BY_CHANCE, at_first_use, beginning_of, search_for


class _Route(NamedTuple):
    """Row of the table: a program's address of its pages' data.

    Attributes:
        program: that has them there.
        asked: expression of a part of the path.
        page: template of what the page's path has in its place; the parameter's value is behind that.
        tells: expression that all paths have that this may be of, behind a slash or with a dot in front;
            `asked` where that is empty.
        parameter: expression of one that the query has, with its value as a group where that is of use; empty
            where any query will do.
    """

    program: str
    asked: str
    page: str
    tells: str = ""
    parameter: str = ""


_NUMBERED = "(?:statuses/|[^/]++(?:/[^/]++){,3}/(?:[A-Z]*+[0-9]++(?![^/-])|[0-9a-f]{8}-))"
"""Expression of a path that has a number soon: `/api/auth/oauth2` and `/api/docs/v1` are of manuals."""
_CONSONANT, _VOWEL = "[bcdfghjklmnpqrstvwxyz]", "[aeiou]"
_PASTE = (
    "(?:[0-9A-Za-z](?=[a-z]*+[0-9A-Z])[0-9A-Za-z]{5,}+"
    f"|(?:{_CONSONANT}{_VOWEL}){{5}}|(?:{_VOWEL}{_CONSONANT}){{5}})"
)
"""Expression of a paste's name, which is made by chance, of letters and digits or Hastebin's syllables."""

# The first that a path is of says what it is.
ROUTES = (
    _Route("File Browser", "/api/public/(?:share|dl)/", "/share/"),
    _Route("Lychee", r"/api/v2/Album(?:::(?:head|photos))?\Z", "/gallery/", parameter="album_id=([^&]+)"),
    _Route("Flarum", "/api/discussions/", "/d/", parameter="bySlug=[^&]*"),
    _Route("Flarum", "/api/users/", "/u/", parameter="bySlug=[^&]*"),
    _Route("PeerTube", "/api/v1/videos/", "/w/"),
    _Route("PeerTube", "/api/v1/video-channels/", "/c/"),
    _Route("Lemmy", r"/api/v[34]/post\Z", "/post/", parameter="id=([0-9]+)"),
    _Route("Lemmy", r"/api/v[34]/community\Z", "/c/", parameter="name=([^&]+)"),
    _Route("Lemmy", r"/api/v[34]/post/list\Z", "/c/", parameter="community_name=([^&]+)"),
    _Route("Lemmy", r"/api/v[34]/(?:user|person)\Z", "/u/", parameter="username=([^&]+)"),
    _Route("Mastodon", r"(?<=/@)([^/]+)\.rss\Z", r"\1", r"/@[^/]+\.rss\Z"),
    _Route("Mastodon", r"/api/v1/accounts/lookup\Z", "/@", parameter="acct=([^&]+)"),
    _Route("PeerTube", "/api/v1/accounts/", "/a/"),
    _Route("NodeBB", "/api/(category|user)/", r"/\1/", "/api/(?:category|user)/"),
    _Route(
        "NodeBB, Szurubooru, kemono",
        f"/api/(?:v[0-9]+/)?(?={_NUMBERED})",
        "/",
        f"/api/(?:v[0-9]+/)?{_NUMBERED}",
    ),
    _Route(
        "Nextcloud",
        rf"(?:/index\.php)?/s/{BY_CHANCE}([^/]+)/(?:download|preview)(?:/[^/]*)?\Z",
        r"/s/\1",
        "/s/[^/]+/(?:download|preview)",
    ),
    _Route(
        "Nextcloud",
        r"(?:/index\.php)?/apps/files_sharing/publicpreview/",
        "/s/",
        "/apps/files_sharing/publicpreview/",
    ),
    _Route("Nextcloud", r"/public\.php/dav/files/([^/]+).*\Z", r"/s/\1", r"/public\.php/dav/files/"),
    _Route("ownCloud", r"(?:/remote\.php)?/dav/public-files/([^/]+).*\Z", r"/s/\1", "/dav/public-files/"),
    _Route(
        "Etherpad",
        r"(?<=/p/)([^/]+)/(?:timeslider|export/(?:docx?|etherpad|html|odt|open|pdf|txt|word))\Z",
        r"\1",
        "/p/[^/]+/(?:timeslider|export/)",
    ),
    # A file in a repository as it is, which the page that it has there shows.
    _Route("Gitea, Forgejo", "/raw/(branch|commit|tag)/", r"/src/\1/", "/raw/"),
    _Route("Gitea, Forgejo", "/media/(branch|commit|tag)/", r"/src/\1/", "/media/(?:branch|commit|tag)/"),
    _Route("GitLab", "/-/raw/", "/-/blob/"),
    _Route("GitHub", r"\A(/[^/]+/[^/]+)/raw/(?:refs/heads/)?(?=[^/]+/)", r"\1/blob/", "/raw/"),
    _Route("cgit", r"\A(/cgit(?:\.cgi)?/.*?|.*?\.git)/plain/", r"\1/tree/", "/plain/"),
    _Route("Pastebin, Hastebin, Stikked", rf"/raw/(?={_PASTE}\Z)", "/", "/raw/"),
    _Route("Telegram", r"\A/s(?=/[A-Za-z][0-9A-Za-z_]+/[0-9]+\Z)", "", r"/s/[A-Za-z][0-9A-Za-z_]+/[0-9]+\Z"),
    _Route("React Router, Remix", r"(?:/_?|/_root)?\.(?:data|rsc)\Z", "", r"\.(?:data|rsc)\Z"),
    _Route("Shopify", r"(?<=/products/)([^/]*)\.js(?:on)?\Z", r"\1", r"/products/[^/]*\.js"),
    _Route("Discourse", r"(?<=/u/)([^/]*)\.json\Z", r"\1", r"/u/[^/]*\.json\Z"),
    _Route("Discourse", r"/l/latest\.json\Z", ""),
    _Route("Next.js, exported as files", r"/__next\.[^/]*\.txt\Z", "", r"\.txt\Z"),
    _Route("Next.js, exported as files", r"(?:/index)?\.txt\Z", "", r"\.txt\Z", "_rsc=[^&]*"),
    _Route("Nuxt 3", r"/_payload\.js(?:on)?\Z", ""),
    # Behind the id of what was built, as in Next.js.
    _Route("Nuxt 2", r"\A(?>(.*?)/_nuxt/static/)[^/]*+(.*)/payload\.js\Z", r"\1\2", "/_nuxt/static/"),
    _Route("SvelteKit", r"/__data\.json\Z", ""),
    _Route("Qwik", r"/q-data\.json\Z", ""),
    _Route("Vike", r"/index\.pageContext\.json\Z", ""),
    _Route("SvelteKit", r"(?<=\.html)__data\.json\Z", "", r"\.html__data\.json\Z"),
    _Route(
        "Next.js",
        r"\A(?>(.*?)/_next/data/)[^/]*+(?:/index(?=\.json\Z)|(?:/index(?=/))?(/.*))\.json\Z",
        r"\1\2",
        "/_next/data/",
    ),
    _Route(
        "Gatsby",
        r"\A(?>(.*?)/page-data(?=/))(?:/index(?=/page-data\.json\Z)|(/.*))/page-data\.json\Z",
        r"\1\2",
        r"/page-data\.json\Z",
    ),
)
_ROUTES = [
    (
        beginning_of(route.tells or route.asked),
        at_first_use(route.asked, re.DOTALL),
        route.page,
        at_first_use(rf"(?:\A|&){route.parameter}(?:&|\Z)" if route.parameter else ""),
    )
    for route in ROUTES
]

TELLING = tuple([(route.tells or route.asked).replace(r"\Z", r"/?\Z") for route in ROUTES])
"""Expressions of which each path of data has one, behind a slash or with a dot in front."""
_may_be = search_for(TELLING)


def page_of_data(path: str, query: str) -> str | None:
    """The path of the page that a path has the data of, without a slash at its end; None where it has none.

    Raises:
        UrlError: the query has too many percent signs that escape nothing.
    """
    path = path.rstrip("/")
    if not _may_be(path):
        return None
    for beginning, is_asked, instead, is_in in _ROUTES:
        if beginning not in path:
            continue
        page, found = is_asked().subn(instead, path, count=1)
        if found and (parameter := is_in().search(query)):
            value = "".join(parameter.groups())
            return page + unescape_once(value.replace("+", " "))
    return None
