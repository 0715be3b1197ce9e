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

from urlward.engine.errors import UrlError
from urlward.engine.titles import OWN_TITLE, titled
from urlward.engine.url import (
    C0_AND_SPACE,
    LETTERS,
    MAX_DECODES,
    MAX_ODD_PATH,
    MOST_ODD_HOST,
    PLAIN_MARKS,
    SLASHES,
    STRIPPED,
    bounded,
    canonical_host,
    escapes_of,
    in_ways_of_blanks,
    path_of_unescaped,
    spelled,
    split_authority,
    split_target,
    unescape_all,
    unescape_once,
    without_dots,
)

# Where sites have their own service for pictures, or pictures in several sizes (`_pictures`), and where the
# data of pages (`_page_of_data`) and ways into topics (`_topics`).
_PICTURES = (
    r"_(?:ipx/|(?:(?:next|vercel|amplify)/)?image|data/i/|[0-9AUTO]+x[0-9AUTO]+_)"
    r"|\.(?:netlify/images|media/t_)|image/(?:cache|upload)/"
    r"|i\.php(?:/|\Z)|media/pages/|a(?:pp/uploads/|ttachment\.php\Z)|wp-content/uploads/|optimized/"
    r"|c(?:dn(?:-cgi/image|/shop)/|ache/|ontent/images/size/)|data/(?:preview|sample|jpeg|thumbnails)/|normal_"
    r"|generated-thumbnails/|zp-core/|phoca_thumb_|var/(?:thumbs|resizes)/"
    r"|s(?:tyles/[^/]+/public/|/files/|mall/|torage/m/|ample[_/])|t(?:humb(?:/|nail[/_]|s?_))"
    r"|uploads/(?:placeholder|thumb|small|medium)2?x?/|[0-9]{13,}s\.|(?:180x18|360x36|720x72)0/"
)
_SIZE_BEHIND = r"\.(?:md|th|thumb|serendipityThumb)"
"""What Chevereto, Discuz and Serendipity put between a picture's name and its extension."""
_DATA = (
    r"_n(?:ext/data|uxt/static)/|(?:products|u)/[^/]+\.js|l/latest\.json"
    "|api/(?:(?:topic|category|user|post|discussions|v1/videos|public/(?:share|dl))/|v[34]/post|v2/Album)"
)
_TOPICS = (
    r"t/(?:[^/]+/)?[0-9]|(?:topic/[0-9]+/[^/]+|d/[0-9]+-[^/]+)/[0-9]+\Z|thread-[0-9]+-|topic,"
    r"|forum\.php\Z"
    r"|res/[0-9][^/.+]*(?:\+50|-100)\."
)
# What `is_plain_path` says, less what may stand for a file, or for a page whose data it is: dots are in the
# last segment alone, no `.php` has more behind it, it has no name of data or `&`, and it is no wiki's page.
_ONE_PAGE = re.compile(
    rf"(?=/)(?:/(?!{_DATA}|{_PICTURES}|{_TOPICS}|wiki/(?!{OWN_TITLE}\Z))"
    r"[!$')*,\-0-9:=@A-Z\[\]^_`a-z|}~\"<>][!$')(*,\-0-9:=@A-Z\[\]^_`a-z|}~\"<>]*+)*+"
    rf"(?:/|(?:(?!{_SIZE_BEHIND}\.)"
    r"\.(?![pP][hH][pP].|(?:(?<=(?:data|load|text)\.)json|(?<=_payload\.)js|data|rsc|txt)\Z)"
    r"[!$')(*,\-0-9:=@A-Z\[\]^_`a-z|}~\"<>]++)*+)\Z"
).match
_PARAMETER = rf"(?!t(?:itle=(?!{OWN_TITLE}(?:&|\Z))|opic=[0-9]+\.[mn]))[!-\"$'-:<->@-~]*+"
_ONE_QUERY = re.compile(rf"{_PARAMETER}(?:[&;]{_PARAMETER})*+").fullmatch
_MAX_WORK = 160 * 1024
"""Characters to look at until a target is judged, of all texts on the way to its readings and of those."""
_READ_COST = 400
"""Characters that cost what looking at one more text does, however short."""
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
_PLUSES_AT_END = re.compile(r"(?<!\+)(?<!%2[bB])(?:\+|%2[bB])++\Z").search
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
_MAY_BE_A_FILE = re.compile(r"&|\.(?:[^/.]++/|(?i:php).|(?:json|js|data|rsc|txt)?\Z)").search
_may_be_a_picture = re.compile(rf"/(?:{_PICTURES})|{_SIZE_BEHIND}\.").search
# Next.js, Vercel, Amplify, Astro, Netlify; Nuxt, Cloudflare, Drupal, Ghost, Cloudinary and Magento name in a
# segment what is done.
_PICTURE_IN_QUERY = re.compile(r"/(?:_(?:(?:next|vercel|amplify)/)?image|\.netlify/images)/?\Z").search
_PICTURE_IN_PATH = re.compile(
    r"(?:(?:/_ipx|\A/cdn-cgi/image)/[^/]+|(?<=/files)/styles/[^/]+/public"
    r"|(?<=/content/images)/size/[^/]+(?:/format/[^/]+)?|(?<=/image/upload)(?:/[a-z]{1,3}_[^/]+)++(?=/v[0-9])"
    r"|(?<=/catalog/product)/cache/[0-9a-f]{32})/"
).search
_PICTURE = r"\.(?i:avif|bmp|gif|heic|jfif|jpe?g|png|tiff?|webp)"
_is_a_picture = re.compile(rf"{_PICTURE}\Z").search
_PICTURE_AT_END = re.compile(rf"{_PICTURE}(?:\.avif|\.webp)?\Z").sub
_SHOPIFY = (
    "_(?:[0-9]+x[0-9]*|x[0-9]+|pico|icon|thumb|small|compact|medium|large|grande)"
    r"(?:_crop_(?:top|center|bottom|left|right))?(?:@[23]x)?(?:\.progressive)?"
)
_PIWIGO = "-(?:sq|th|2s|xs|sm|me|la|xl|xx|3x|4x|cu_[0-9A-Za-z_]+)"
_KIRBY = r"-(?:[0-9]+x[0-9]*|x[0-9]+)(?:-(?:crop(?:-[a-z]+)?|(?:blur|sharpen|q)[0-9]*|bw|left|right|[0-9]+))*"
_ZENPHOTO = "(?:_(?:[0-9]+|c?[wh][0-9]+|c[xy][0-9]+|thumb)){1,8}"
_IN_A_SIZE = [
    (re.compile(below).subn, instead, re.compile(rf"{name}({kind})(?:\.avif|\.webp)?").fullmatch)
    for below, instead, name, kind in (
        ("/wp-content/uploads/", "/wp-content/uploads/", "(.+?)-(?:scaled|[0-9]+x[0-9]+)", _PICTURE),
        ("/app/uploads/", "/app/uploads/", "(.+?)-(?:scaled|[0-9]+x[0-9]+)", _PICTURE),
        ("/cdn/shop/", "/cdn/shop/", f"(.+?){_SHOPIFY}", _PICTURE),
        ("/s/files/", "/s/files/", f"(.+?){_SHOPIFY}", _PICTURE),
        ("/optimized/", "/original/", "(.+?)_[0-9]+_[0-9]+x[0-9]+", _PICTURE),
        ("/thumb/", "/src/", "(.+?)[cs]?", _PICTURE),
        ("/", "/", rf"(.+{_PICTURE})\.thumb\.jpg", ""),
        ("/", "/", f"(.+?){_SIZE_BEHIND}", _PICTURE),
        ("/image/cache/", "/image/", "(.+?)-[0-9]+x[0-9]+", _PICTURE),
        ("/_data/i/", "/", f"(.+?){_PIWIGO}", _PICTURE),
        (r"/i\.php/", "/", f"(.+?){_PIWIGO}", _PICTURE),
        ("/media/pages/", "/media/pages/", f"(.+?){_KIRBY}", _PICTURE),
        ("/albums/", "/albums/", "(?:normal|thumb)_(.+?)", _PICTURE),
        ("/thumbs/", "/", "(?:thumbs|phoca_thumb_[sml])_(.+?)", _PICTURE),
        ("/var/(?:thumbs|resizes)/", "/var/albums/", "(.+?)", _PICTURE),
        ("/data/thumbnails/", "/data/media/", "(.+?)", _PICTURE),
        ("/thumbnails/", "/images/", "thumbnail_(.+?)", _PICTURE),
        ("/samples/", "/images/", "sample_(.+?)", _PICTURE),
        ("/small/", "/original/", "(.+?)", _PICTURE),
        ("/cache/", "/albums/", f"(.+?){_ZENPHOTO}", _PICTURE),
        (r"/_[0-9AUTO]+x[0-9AUTO]+_[^/]+/\Z", "/", "(.+?)", _PICTURE),
        ("/thumbnail/", "/media/", "(.+?)_[0-9]+x[0-9]+", _PICTURE),
        ("/storage/m/", "/storage/m/", "(.+?)_thumb", _PICTURE),
    )
]
"""Folders of pictures that WordPress (Bedrock: `app`), Shopify, Discourse, boards (vichan, TinyIB, Kusaba),
Chevereto, Serendipity, OpenCart, Piwigo, Kirby, Coppermine, NextGEN, Phoca, Gallery 3, 4images, Gelbooru,
Mastodon, Zenphoto, Craft, Shopware and Pixelfed keep in several sizes, where the picture itself is, and what
its name has for a size."""
_OF_ONE_NAME = [
    (re.compile(below).subn, instead, re.compile(name).fullmatch)
    for below, instead, name in (
        ("/file(_store)?/thumb/", r"/file\1/", "([0-9a-f]{64})"),
        (r"/thumb/(?=[0-9]{4}/[0-9]{2}/\Z)", "/image/", "([0-9]{13,})s"),
        ("/thumb/", "/src/", "([0-9]{10,}(?:-[0-9]+)?|[0-9a-f]{32,})[cs]?"),
        (r"/cat/\Z", "/src/", "([0-9]{13,})s"),
        ("/", "/", "([0-9]{13,})s"),
        ("/thumbnails/", "/images/", "thumbnail_([0-9a-f]{32,})"),
        ("/samples/", "/images/", "sample_([0-9a-f]{32,})"),
        ("/uploads/(?:placeholder|thumb|small|medium)(?:2x)?/", "/uploads/original/", "([0-9a-f]{28,})"),
        ("/small/", "/original/", "([0-9a-f]{16,})"),
        ("/generated-thumbnails/", "/posts/", "([0-9]+_[0-9a-f]{16})"),
        ("/(?:180x18|360x36|720x72)0/", "/original/", "([0-9a-f]{32})"),
        ("/sample/", "/original/", "sample-([0-9a-f]{32})"),
        ("/data/(?:preview|sample|jpeg)/(?=[0-9a-f]{2}/)", "/data/image/", "([0-9a-f]{32})"),
        (r"/data/(?:preview|sample|jpeg)/\Z", "/data/", "([0-9a-f]{32})"),
        (r"/\.media/\Z", "/.media/", "t_([0-9a-f]{32,}(?:-[0-9a-z]+)?)"),
    )
]
"""The same of pictures whose names are digests of them, or the time at which they came: their small ones
are often in another format. Of jschan, Infinity, FoolFuuka, the boards above, Futaba, 4chan, Gelbooru,
Lychee, Mastodon, Szurubooru, Danbooru, Moebooru and LynxChan."""
_MOST_OF_A_NAME = 3 * 255
"""Characters of a file's name, escaped: file systems have 255 bytes."""
_FORMATS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".webm", ".mp4")
_may_be_a_title = re.compile(r"/wiki/|/index\.php(?:/|\Z)").search
# What Discourse makes of a title has a hyphen, or is `topic` where it could make nothing.
_TITLE = "(?:topic|(?=[^/]*-)[^/]++)/"
_TITLE_AND_NUMBER = re.compile(rf"(?<=/t/){_TITLE}(?=[0-9]++(?:/[0-9]++)?\Z)").subn
_TOPIC = re.compile(rf"(.*?/t/({_TITLE})?[0-9]++)(/[0-9]++)?(\.(?:json|rss))?").fullmatch
_may_be_a_topic = re.compile(rf"/(?:{_TOPICS})").search
# Discuz links a topic with the page of the list that its visitor comes from, which is the first to robots,
# and leads to last posts by the address that it has without rewriting.
_OF_DISCUZ = re.compile(r"(.*/)thread-([0-9]+)-([0-9]+)-([0-9]+)\.html").fullmatch
_AT_A_POST = re.compile(r"((?:(?:\A|[&;])topic=|/topic,)[0-9]+)\.(?:msg[0-9]+|new)(?![^&;.])").sub
"""What SMF has in place of `.0` where it leads to a post of a topic."""
_IN_A_TOPIC = [
    re.compile(rf"(?<=/)({topic}){part}").subn
    for topic, part in (
        ("topic/[0-9]+/[^/]+|d/[0-9]+-[^/]+", r"/[0-9]+\Z"),
        ("thread-[0-9]+", r"-post-[0-9]+(?=\.html\Z)"),
        ("res/[0-9]+(?:-[^/+]*)?", r"(?:\+50|-100)(?=\.html\Z)"),
    )
]
"""Topics of NodeBB, Flarum and MyBB with a post's place or number, and threads of boards (vichan, Kusaba)
with what their last and first posts have."""
_NUMBER_OF_POST = re.compile(r"(?:\A|&)id=([0-9]+)(?:&|\Z)").search
_WHOLE_URL = re.compile(r"(?i:https?):/+([^/?#]+)(.*)").fullmatch
# Looked for where a run begins: from each place in it, the time would grow by the square of its length.
_DOTS_AT_ENDS = re.compile(r"(?<!\.)\.++(?=/)|(?<!\.)(?<!%20)(?:\.|%20)++\Z").sub
_SCRIPTS = frozenset(
    {"asp", "aspx", "cfm", "cgi", "do", "fcgi", "jsp", "php", "php3", "php4", "php5", "php7", "php8"}
    | {"phtml", "pl", "py", "rb"}
)
"""Extensions of what an origin runs rather than serves; the path behind it is passed to the script."""
_FILES = _SCRIPTS | frozenset(
    {
        # pages
        "htm", "html", "mht", "mhtml", "php2", "php6", "phps", "shtm", "shtml", "stm", "txt", "xht",
        "xhtml", "xml",
        # images
        "apng", "avif", "bmp", "gif", "heic", "heif", "ico", "jfif", "jpe", "jpeg", "jpg", "png", "psd",
        "svg", "svgz", "tif", "tiff", "webp", "cr2", "heics", "heifs", "hif", "j2k", "jp2", "jpf", "jpx",
        "jxl", "jxr", "mng", "nef", "wbmp", "wmf",
        # films
        "3g2", "3gp", "asf", "avi", "divx", "f4v", "flv", "m2ts", "m3u8", "m4v", "mkv", "mov", "mp4", "mpe",
        "mpeg", "mpg", "mts", "ogv", "qt", "rm", "rmvb", "swf", "vob", "webm", "wmv", "3gpp", "m1v", "m2v",
        "m4s", "mk3d", "wmx", "wvx",
        # sound
        "aac", "aif", "aiff", "amr", "flac", "m4a", "mid", "midi", "mp3", "oga", "ogg", "opus", "wav",
        "wma", "m3u", "mka", "mp2", "mpga", "wax",
        # archives and programs
        "7z", "apk", "bz2", "cab", "deb", "dmg", "exe", "gz", "ipa", "iso", "jar", "lz", "msi", "rar",
        "rpm", "tar", "tbz", "tgz", "torrent", "txz", "war", "xz", "zip", "zst",
        # books and documents
        "cbr", "cbz", "azw", "azw3", "csv", "djvu", "doc", "docm", "docx", "epub", "mobi", "odp", "ods",
        "odt", "pdf", "pps", "ppt", "pptx", "ps", "rtf", "xls", "xlsm", "xlsx",
        # made by programs
        "ashx", "asmx", "axd", "cfc", "jspa", "jspx",
    }
)  # fmt: skip
"""Extensions of files. `john.doe`, `v1.2` and `commander.js` are more often names with other pages below."""


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
            or _may_be_a_picture(path)
            or "/api/" in path
            or _may_be_a_topic(path)
            or "topic=" in query
            or "/_nuxt/" in path
            or _may_be_a_title(path)
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
    texts = dict.fromkeys((narrowed, *_passed_on(narrowed, work)))
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
        # What is left out may have been a way to another page: `/a;/../b` is `/b`, or `/a`.
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
            work.spend(len(other))
            found.append(reading._replace(path=other, script=True, respelled=True))
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
        [r._replace(shorter=True, script=r.script or not (named or _is_file(r.path))) for r in readings]
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


def _is_file(path: str) -> bool:
    return path.rpartition(".")[2].lower() in _FILES


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
    """Bytes that are not UTF-8 as letters of Western Europe, as IIS, Jetty and CherryPy have them."""
    return _BEYOND_ASCII.sub(_Spelled(_letters), target)


def _letters(escaped: str) -> str:
    data = unquote_to_bytes(escaped.encode("latin-1"))
    try:
        data.decode()
    except UnicodeDecodeError:
        return "".join(map(_ANSI.__getitem__, data))
    return escaped


def _with_blanks(target: str) -> str:
    """`+` in a path as a blank, as Amazon S3 and CivetWeb have it, and Sinatra, where it is escaped too.

    One at the end would then be left out, and is so where it is behind a file: the page `/C++` is not `/C`.
    """
    path, mark, query = target.partition("?")
    if "+" not in path and "%2" not in path:
        return target
    end = _PLUSES_AT_END(path)
    if end is not None and not _is_file(path[: end.start()]):
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


def _with_files(readings: list[Reading], work: Work) -> tuple[Reading, ...]:
    """Readings, and after them the files that they may stand for besides what they name.

    lighttpd serves ``/a.html`` for ``/a.html/b``, PHP runs ``/a.php`` for ``/a.php/b``; to Windows, and to
    matchers of Caddy, dots and blanks at the end do not count; to CivetWeb, dots at the end of any segment.
    To programs that are told of a path as a parameter (``/index.php?q=$1``), ``&`` begins further ones.
    What an application in the browser asks for in place of a page is that page, and so is what a site's own
    service makes of a picture.

    Raises:
        UrlError: too much work.
    """
    known = {(reading.path, reading.query) for reading in readings}
    files: dict[tuple[str, str], Reading] = {}
    pictures: list[Reading] = []
    for reading in readings:
        path, query = reading.path, reading.query
        if reading.shorter and not path.endswith("%3F"):  # which may be up to the last mark (`_cuts`)
            continue
        if (file := _DOTS_AT_ENDS("", path)) != path:
            file = SLASHES.sub("/", file)
            # `/Fun.` is another page than `/Fun`, and `/Fun ` is none.
            dots = path.replace("%20", "") != file.replace("%20", "")
            script = dots and file[-1] != "/" and not _is_file(file)
            files.setdefault((file, query), Reading(file, query, shorter=True, script=script))
        if "&" in path:
            page, _, more = path.partition("&")
            name = more.partition("/")[0]
            script = not (_is_file(page) or "=" in name)
            if query and not (script and name):  # of `/Food&Drink?page=2` they are its own
                more = f"{more}&{query}"
            files.setdefault((page, more), Reading(page, more, shorter=True, script=script))
        if (whose := _page_of_data(path, query)) is not None:
            work.spend(2 * len(path))
            for file in (whose or "/", f"{whose}/", *(topic for topic, _ in _topics(whose, query))):
                files.setdefault((file, query), Reading(file, query, shorter=True))
        for topic in _topics(path, query) if _may_be_a_topic(path) or "topic=" in query else ():
            work.spend(len(path) + len(query))
            files.setdefault(topic, Reading(*topic, shorter=True))
        for host, target in _pictures(path, query) if _may_be_a_picture(path) else ():
            work.spend(2 * len(target), 2)
            pictures += [r._replace(shorter=True, host=host) for r in _in_every_way(target, work)]
        for match in (*_FILE_AND_MORE(path), *_PHP_AND_MORE(path)):
            file, more, kind = path[: match.end()], path[match.end() :], match[1].lower()
            if more != "/" and kind not in _FILES:
                continue
            script = more != "/" and kind in _SCRIPTS
            if script and more[0] == "/" and file.endswith("/index.php"):
                # A front controller, which also stands for what is no file.
                work.spend(len(path))
                page = f"{file.removesuffix('/index.php')}{more}"
                files.setdefault((page, query), Reading(page, query, shorter=True))
            if (file, query) not in known and (file, query) not in files:
                work.spend(len(file))
                files[file, query] = Reading(file, query, shorter=True, script=script)
    return (*readings, *files.values(), *pictures)


def page_by_number(path: str) -> str:
    """The page that all ways to a topic are read as, of one way that is listed: Discourse's application asks
    for ``/t/a-title/5`` by ``/t/5.json``, which `target_readings` has as ``/t/5``, and Discuz has
    ``/thread-5-1-1.html`` for ``/thread-5-1-2.html``, too. Empty where there is no other."""
    if match := _OF_DISCUZ(path):
        base, number, page, of_list = match.groups()
        return f"{base}thread-{number}-{page}-1.html" if of_list != "1" else ""
    page, found = _TITLE_AND_NUMBER("", path)
    return page if found else ""


def _topics(path: str, query: str) -> list[tuple[str, str]]:
    """The topics of forums, as path and query, that a target has the data, feed or a part of, or that it is
    another way to."""
    if match := _TOPIC(path):
        topic, title, post, kind = match.groups(default="")
        return (
            [(topic, query), (f"{topic}{post}", query)]
            if kind
            else [(topic, query)]
            if title and post
            else []
        )
    if match := _OF_DISCUZ(path):
        base, number, page, of_list = match.groups()
        sent = f"mod=viewthread&tid={number}&extra=page%3D{of_list}&page={page}"
        return [(f"{base}thread-{number}-{page}-1.html", query), (f"{base}forum.php", sent)]
    if path.endswith("/forum.php"):
        number, page = _value(query, "tid"), _value(query, "page") or "1"
        is_one = _value(query, "mod") == "viewthread" and number.isdigit() and page.isdigit()
        return [(f"{path.removesuffix('forum.php')}thread-{number}-{page}-1.html", query)] if is_one else []
    topic, sent = _AT_A_POST(r"\1.0", path), _AT_A_POST(r"\1.0", query)
    if (topic, sent) != (path, query):
        return [(topic, sent)]
    for part in _IN_A_TOPIC:
        topic, found = part(r"\1", path)
        if found:
            return [(topic, query)]
    return []


def _page_of_data(path: str, query: str) -> str | None:
    """The page that a path has the data of, without the slash at its end: where a link is followed, an
    application in the browser asks for these, and shows the page by its own address."""
    path = path.rstrip("/")
    if "/api/" in path:
        base, _, page = path.partition("/api/")
        if page.startswith(("topic/", "category/", "user/", "post/")):  # NodeBB, Szurubooru
            return f"{base}/{page}"
        if page.startswith(("public/share/", "public/dl/")):  # File Browser
            return f"{base}/share/{page.partition('/')[2].partition('/')[2]}"
        if page in ("v2/Album", "v2/Album::head", "v2/Album::photos") and (
            album := _value(query, "album_id")
        ):
            return f"{base}/gallery/{album}"  # Lychee
        if page.startswith("discussions/") and "bySlug=" in query:  # Flarum
            return f"{base}/d{page.removeprefix('discussions')}"
        if page.startswith("v1/videos/"):  # PeerTube
            return f"{base}/w{page.removeprefix('v1/videos')}"
        if page in ("v3/post", "v4/post") and (number := _NUMBER_OF_POST(query)):  # Lemmy
            return f"{base}/post/{number[1]}"
    head, _, name = path.rpartition("/")
    name, dot, kind = name.rpartition(".")
    page = f"{head}/{name}"
    if not dot:
        return None
    if kind in ("data", "rsc"):  # React Router, Remix
        return head if name in ("", "_", "_root") else page
    if kind in ("js", "json") and head.endswith("/products"):  # Shopify
        return page
    if kind == "json" and head.endswith("/u"):  # Discourse
        return page
    if kind == "json" and page.endswith("/l/latest"):  # its categories and tags
        return page.removesuffix("/l/latest")
    if kind == "txt":  # Next.js, exported as files
        if name.startswith("__next."):
            return head
        return page.removesuffix("/index") if "&_rsc=" in f"&{query}" else None
    if kind == "js" and name == "_payload":  # Nuxt 3, before 3.5
        return head
    if kind == "js" and name == "payload":  # Nuxt 2, behind the id of what was built
        base, static, page = head.partition("/_nuxt/static/")
        return f"{base}{page[len(page.partition('/')[0]) :]}" if static else None
    if kind != "json":
        return None
    if name in ("__data", "_payload", "q-data", "index.pageContext"):  # SvelteKit, Nuxt, Qwik, Vike
        return head
    if name.endswith(".html__data"):
        return page.removesuffix("__data")
    base, next_data, page = page.partition("/_next/data/")
    if next_data:  # behind the id of what was built
        _, found, page = page.partition("/")
    elif name == "page-data":  # Gatsby
        base, found, page = head.partition("/page-data/")
    else:
        return None
    if not found:
        return None
    if page == "index":
        return base
    return f"{base}/{page.removeprefix('index/') if next_data else page}"


def _pictures(path: str, query: str) -> Iterator[tuple[str, str]]:
    """The pictures, as host, if it is said, and target, of which a site's own service gives another size."""
    if _PICTURE_IN_QUERY(path):
        named = [piece.partition("=") for piece in query.replace("+", " ").split("&") if "=" in piece]
        found = [
            unescape_once(value).translate(STRIPPED).strip(C0_AND_SPACE)
            for name, _, value in named
            if value and unescape_once(name) in ("url", "href")
        ]
    elif match := _PICTURE_IN_PATH(path):
        more, base = path[match.end() :], path[: match.start()]
        found = [more if _WHOLE_URL(more) else f"{base}/{more}"]
        stem, _, kind = found[0].rpartition(".")
        if kind in ("avif", "webp") and _is_file(stem):  # Drupal's `a.jpg.webp`
            found.append(stem)
        if query:
            found = [f"{picture}?{query}" for picture in found]
    elif path.endswith(("/zp-core/i.php", "/zp-core/full-image.php")):  # Zenphoto
        found = [f"{path.rpartition('/zp-core/')[0]}/albums/{_value(query, 'a')}/{_value(query, 'i')}"]
    elif path.endswith("/attachment.php"):  # MyBB
        found = [f"{path}?aid={number}"] if (number := _value(query, "thumbnail")) else []
    elif path.endswith("/i.php"):  # Piwigo, which makes a size when it is first asked for
        found = list(_full_sizes(f"{path}/{unescape_once(query.partition('&')[0]).lstrip('/')}"))
    else:
        found = [f"{picture}?{query}" if query else picture for picture in _full_sizes(path)]
    for target in found:
        whole = _WHOLE_URL(target)
        if whole is None:
            yield "", target
            continue
        with suppress(UrlError):
            yield canonical_host(split_authority(whole[1])[0]), whole[2]


def _value(query: str, name: str) -> str:
    """The first value of a parameter, unescaped; empty where there is none."""
    values = (piece.partition("=")[2] for piece in query.split("&") if piece.startswith(f"{name}="))
    return unescape_once(next(values, "").replace("+", " "))


def _full_sizes(path: str) -> Iterator[str]:
    """The files that a file in a folder of pictures in several sizes may be made of."""
    folder, _, name = path.rpartition("/")
    if len(name) > _MOST_OF_A_NAME:
        return
    if "px-" in name and "/thumb/" in folder and _is_a_picture(name):  # MediaWiki
        base, _, file = folder.rpartition("/thumb/")
        # A hyphen more where it is of a film; a name that is too long is left out.
        if name.partition("px-")[2].lstrip("-").startswith((file.rpartition("/")[2], "thumbnail.")):
            yield f"{base}/{file}"
        return
    folder += "/"
    stem = _PICTURE_AT_END("", name)
    for below, instead, in_a_size in _OF_ONE_NAME:
        if parts := in_a_size(stem):
            whole, found = below(instead, folder, count=1)
            if found:
                yield from [f"{whole}{parts[1]}{kind}" for kind in _FORMATS]
                return
    for below, instead, in_a_size in _IN_A_SIZE:
        if parts := in_a_size(name):
            whole, found = below(instead, folder, count=1)
            if found:
                yield f"{whole}{parts[1]}{parts[2]}"
                if "/uploads/" in instead:
                    # WordPress makes a smaller picture of a very large one, and all sizes of the large one.
                    yield f"{whole}{parts[1]}-scaled{parts[2]}"
                return


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
