"""Pictures: the one that a picture in another size is made of.

Sites have pictures in several sizes, in folders of their own or beside each other, or a service that makes
a size when it is asked for, and their pages show these. Here are tables of common programs': a row has the
program, what is asked for, and where the picture itself is.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from urlward.engine.errors import UrlError
from urlward.engine.extensions import is_file
from urlward.engine.url import (
    C0_AND_SPACE,
    STRIPPED,
    canonical_host,
    query_value,
    split_authority,
    unescape_once,
)
from urlward.engine.words import at_first_use, beginning_of, search_for

_PICTURE = r"\.(?i:avif|bmp|gif|heic|jfif|jpe?g|png|tiff?|webp)"
_is_a_picture = re.compile(rf"{_PICTURE}\Z").search
_FORMATS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".webm", ".mp4")
_WHOLE_URL = re.compile(r"(?i:https?):/+([^/?#]+)(.*)").fullmatch
_MOST_OF_A_NAME = 3 * 255
"""Characters of a file's name, escaped: file systems have 255 bytes."""

_SHOPIFY = (
    "_(?:[0-9]+x[0-9]*|x[0-9]+|pico|icon|thumb|small|compact|medium|large|grande)"
    r"(?:_crop_(?:top|center|bottom|left|right))?(?:@[23]x)?(?:\.progressive)?"
)
_BLOGGER = "(?:s|w[0-9]+-h)[0-9]++(?:-[a-z]++)*+"
_PIWIGO = "-(?:sq|th|2s|xs|sm|me|la|xl|xx|3x|4x|cu_[0-9A-Za-z_]+)"
_KIRBY = r"-(?:[0-9]+x[0-9]*|x[0-9]+)(?:-(?:crop(?:-[a-z]+)?|(?:blur|sharpen|q)[0-9]*|bw|left|right|[0-9]+))*"
_ZENPHOTO = "(?:_(?:[0-9]+|c?[wh][0-9]+|c[xy][0-9]+|thumb)){1,8}"
_WORDPRESS = "(.+?)-(?:scaled|[0-9]+x[0-9]+)"
_IN_ANOTHER = r"\.{0}(?:(?<=\.[A-Za-z]{{3}}\.{0})|(?<=\.[A-Za-z]{{4}}\.{0}))\Z"
# WordPress makes a smaller picture of a very large one, and all sizes of the large one.
_OR_SCALED = (r"\2", r"-scaled\2")


class _Size(NamedTuple):
    """A folder of pictures in a size.

    Attributes:
        program: that has it.
        folder: expression of it; more may be behind it, up to the picture's name.
        instead: template of the folder that has the pictures themselves; several where it may be one of them.
        name: expression of a name in a size, up to its extension, with the picture's own name as its group.
        tells: expression that all paths have that this may be of, behind a slash or with a dot in front;
            `folder` where that is empty.
        kind: expression of the extension.
        ends: templates of what the picture's own name ends in.
    """

    program: str
    folder: str
    instead: str | tuple[str, ...]
    name: str
    tells: str = ""
    kind: str = _PICTURE
    ends: tuple[str, ...] = (r"\2",)


def _in_any_format(
    program: str, folder: str, instead: str, name: str, tells: str = "", kind: str = rf"(?:{_PICTURE})?"
) -> _Size:
    """Of pictures whose names are digests of them, or the time at which they came: small ones are often in
    another format."""
    return _Size(program, folder, instead, name, tells, kind, _FORMATS)


# The first that a path is of says what it is.
SIZES = (
    _in_any_format("jschan, Infinity", "/file(_store)?/thumb/", r"/file\1/", "([0-9a-f]{64})", "/thumb/"),
    _in_any_format("FoolFuuka", r"/thumb/(?=[0-9]{4}/[0-9]{2}/\Z)", "/image/", "([0-9]{13,})s", "/thumb/"),
    _in_any_format("boards", "/thumb/", "/src/", "([0-9]{10,}(?:-[0-9]+)?|[0-9a-f]{32,})[cs]?"),
    _in_any_format("Futaba", r"/cat/\Z", "/src/", "([0-9]{13,})s", r"/[0-9]{13,}s\.", _PICTURE),
    _in_any_format("4chan", "/", "/", "([0-9]{13,})s", r"/[0-9]{13,}s\.", _PICTURE),
    _in_any_format("Gelbooru", "/thumbnails/", "/images/", "thumbnail_([0-9a-f]{32,})", "/thumbnail_"),
    _in_any_format("Gelbooru", "/samples/", "/images/", "sample_([0-9a-f]{32,})", "/sample_"),
    _in_any_format(
        "Lychee",
        "/uploads/(?:placeholder|thumb|small|medium)(?:2x)?/",
        "/uploads/original/",
        "([0-9a-f]{28,})",
    ),
    _in_any_format("Mastodon", "/small/", "/original/", "([0-9a-f]{16,})"),
    _in_any_format("Szurubooru", "/generated-thumbnails/", "/posts/", "([0-9]+_[0-9a-f]{16})"),
    _in_any_format("Danbooru", "/(?:180x18|360x36|720x72)0/", "/original/", "([0-9a-f]{32})"),
    _in_any_format("Danbooru", "/sample/", "/original/", "(?:__.+__)?sample-([0-9a-f]{32})"),
    _in_any_format("Danbooru", "/original/", "/original/", "__.+__([0-9a-f]{32})", "/__"),
    _in_any_format(
        "Moebooru", "/data/(?:preview|sample|jpeg)/(?=[0-9a-f]{2}/)", "/data/image/", "([0-9a-f]{32})"
    ),
    _in_any_format(
        "Moebooru",
        r"/data/(?:preview|sample|jpeg)/\Z",
        "/data/",
        "([0-9a-f]{32})",
        "/data/(?:preview|sample|jpeg)/",
    ),
    _in_any_format(
        "LynxChan", r"/\.media/\Z", "/.media/", "t_([0-9a-f]{32,}(?:-[0-9a-z]+)?)", r"/\.media/t_"
    ),
    _Size("WordPress", "/wp-content/uploads/", "/wp-content/uploads/", _WORDPRESS, ends=_OR_SCALED),
    _Size("Bedrock", "/app/uploads/", "/app/uploads/", _WORDPRESS, ends=_OR_SCALED),
    _Size("Shopify", "/cdn/shop/", "/cdn/shop/", f"(.+?){_SHOPIFY}"),
    _Size("Shopify", "/s/files/", "/s/files/", f"(.+?){_SHOPIFY}"),
    _Size("Discourse", "/optimized/", "/original/", "(.+?)_[0-9]+_[0-9]+x[0-9]+"),
    _Size("vichan, TinyIB, Kusaba X; Shimmie", "/thumb/", ("/src/", "/image/"), "([0-9]+(?:-[0-9]+)?)[cs]?"),
    _Size("Discuz", "/", "/", rf"(.+{_PICTURE})\.thumb\.jpg", r"\.thumb\.", kind="()"),
    _Size(
        "Chevereto, MediaGoblin",
        "/",
        "/",
        r"(.+?)\.(?:md|th|thumb|medium|thumbnail)",
        r"\.(?:md|th|thumb|medium|thumbnail)\.",
    ),
    _Size("Serendipity", "/", "/", r"(.+?)\.serendipityThumb", r"\.serendipityThumb\."),
    _Size("OpenCart", "/image/cache/", "/image/", "(.+?)-[0-9]+x[0-9]+"),
    _Size("Piwigo", "/_data/i/", "/", f"(.+?){_PIWIGO}"),
    _Size("Piwigo", r"/i\.php/", "/", f"(.+?){_PIWIGO}"),
    _Size("Kirby", "/media/pages/", "/media/pages/", f"(.+?){_KIRBY}"),
    _Size("Coppermine", "/albums/", "/albums/", "(?:normal|thumb)_(.+?)", "/(?:normal|thumb)_"),
    _Size("NextGEN", "/thumbs/", "/", "thumbs_(.+?)", "/thumbs_"),
    _Size("Phoca", "/thumbs/", "/", "phoca_thumb_[sml]_(.+?)", "/phoca_thumb_"),
    _Size("Gallery 3", "/var/(?:thumbs|resizes)/", "/var/albums/", "(.+?)"),
    _Size("4images", "/data/thumbnails/", "/data/media/", "(.+?)"),
    _Size("Gelbooru", "/thumbnails/", "/images/", "thumbnail_(.+?)", "/thumbnail_"),
    _Size("Gelbooru", "/samples/", "/images/", "sample_(.+?)", "/sample_"),
    _Size("Mastodon", "/small/", "/original/", "(.+?)"),
    _Size("Zenphoto", "/cache/", "/albums/", f"(.+?){_ZENPHOTO}"),
    _Size("Craft", r"/_[0-9AUTO]+x[0-9AUTO]+_[^/]+/\Z", "/", "(.+?)", "/_[0-9AUTO]+x[0-9AUTO]+_"),
    _Size(
        "Bitrix",
        # From each such folder, the rest would be looked through.
        r"\A(?>(.*?)/resize_cache/)(.+/)[0-9]+_[0-9]+_[0-9a-f]+/\Z",
        r"\1/\2",
        "(.+?)",
        "/resize_cache/",
    ),
    _Size(
        "Blogger", rf"/{_BLOGGER}/\Z", ("/s1600/", "/s4000/", "/s16000/", "/s0/"), "(.+?)", f"/{_BLOGGER}/"
    ),
    _Size("Shopware", "/thumbnail/", "/media/", "(.+?)_[0-9]+x[0-9]+"),
    _Size("Pixelfed", "/storage/m/", "/storage/m/", "(.+?)_thumb"),
    _Size("CarrierWave, llgal", r"/(?:\.llgal/)?\Z", "/", "thumb_(.+?)", "/thumb_"),
    _Size("sigal, fgallery, thumbsup", "/thumb(?:s|nails)/", ("/", "/imgs/", "/large/"), "(.+?)"),
    _Size(
        "easy-thumbnails",
        "/",
        "/",
        rf"(.+{_PICTURE})\.[0-9]+x[0-9]+_[^/]*",
        r"\.[0-9]+x[0-9]+_",
        ends=("",),
    ),
    _Size("LiteSpeed, Imagify", "/", "/", rf"(.+{_PICTURE})\.webp", _IN_ANOTHER.format("webp"), "()"),
    _Size("Imagify", "/", "/", rf"(.+{_PICTURE})\.avif", _IN_ANOTHER.format("avif"), "()"),
)
_SIZES = [
    (
        beginning_of(size.tells or size.folder),
        at_first_use(size.folder),
        (size.instead,) if isinstance(size.instead, str) else size.instead,
        at_first_use(rf"{size.name}({size.kind})(?:\.avif|\.webp)?"),
        size.ends,
    )
    for size in SIZES
]


class _Service(NamedTuple):
    """Service that makes a size when it is asked for.

    Attributes:
        program: that has it.
        asked: expression of a part of its paths, from a slash on.
        pictures: makes targets, or whole URLs, of what was found and of the query.
        tells: as of `_Size`; `asked` where it is empty.
    """

    program: str
    asked: str
    pictures: Callable[[re.Match[str], str], list[str]]
    tells: str = ""


def _in_parameter(_: re.Match[str], query: str) -> list[str]:
    named = [piece.partition("=") for piece in query.replace("+", " ").split("&") if "=" in piece]
    return [
        unescape_once(value).translate(STRIPPED).strip(C0_AND_SPACE)
        for name, _, value in named
        if value and unescape_once(name) in ("url", "href")
    ]


def _behind(service: re.Match[str], query: str) -> list[str]:
    path = service.string
    base, picture = path[: service.start()], path[service.end() :]
    found = [picture if _WHOLE_URL(picture) else f"{base}/{picture}"]
    stem, _, kind = found[0].rpartition(".")
    if kind in ("avif", "webp") and is_file(stem):  # Drupal's `a.jpg.webp`
        found.append(stem)
    return _with(query, found)


def _in_album(service: re.Match[str], query: str) -> list[str]:
    base = service.string[: service.start()]
    return [f"{base}/albums/{query_value(query, 'a')}/{query_value(query, 'i')}"]


def _attachment(service: re.Match[str], query: str) -> list[str]:
    number = query_value(query, "thumbnail")
    return [f"{service.string}?aid={number}"] if number else []


def _in_query(service: re.Match[str], query: str) -> list[str]:
    return _full_sizes(f"{service.string}/{unescape_once(query.partition('&')[0]).lstrip('/')}")


SERVICES = (
    _Service("Next.js, Vercel, Amplify", r"/_(?:next|vercel|amplify)/image/?\Z", _in_parameter),
    _Service("Astro", r"/_image/?\Z", _in_parameter),
    _Service("Netlify", r"/\.netlify/images/?\Z", _in_parameter),
    _Service("Nuxt", "/_ipx/[^/]+/", _behind, "/_ipx/"),
    _Service("Cloudflare", r"/(?<=\A/)cdn-cgi/image/[^/]+/", _behind, "/cdn-cgi/image/"),
    _Service("Drupal", "/(?<=/files/)styles/[^/]+/public/", _behind, "/styles/[^/]+/public/"),
    _Service(
        "Ghost", "/(?<=/content/images/)size/[^/]+/(?:format/[^/]+/)?", _behind, "/content/images/size/"
    ),
    _Service(
        "Cloudinary", "/(?<=/image/upload/)(?:[a-z]{1,3}_[^/]+/)++(?=v[0-9])", _behind, "/image/upload/"
    ),
    _Service("Magento", "/(?<=/catalog/product/)cache/[0-9a-f]{32}/", _behind, "/cache/"),
    _Service("Zenphoto", r"/zp-core/(?:i|full-image)\.php\Z", _in_album),
    _Service("MyBB", r"/attachment\.php\Z", _attachment),
    _Service("Piwigo", r"/i\.php\Z", _in_query),
)
_service = re.compile(f"/(?:{'|'.join(f'({service.asked[1:]})' for service in SERVICES)})").search

TELLING = (
    *[size.tells or size.folder for size in SIZES],
    *[service.tells or service.asked for service in SERVICES],
    "/thumb/",  # MediaWiki
)
"""Expressions of which each path of a picture in a size has one, behind a slash or with a dot in front."""
_may_be = search_for(TELLING)


def pictures(path: str, query: str) -> Iterator[tuple[str, str]]:
    """The pictures, as host, if it is said, and target, of which a path and query are another size.

    Raises:
        UrlError: the query has too many percent signs that escape nothing.
    """
    if not _may_be(path):
        return
    if service := _service(path):
        targets = SERVICES[(service.lastindex or 0) - 1].pictures(service, query)
    else:
        targets = _with(query, _full_sizes(path))
    for target in targets:
        whole = _WHOLE_URL(target)
        if whole is None:
            yield "", target
            continue
        with suppress(UrlError):
            yield canonical_host(split_authority(whole[1])[0]), whole[2]


def _with(query: str, found: list[str]) -> list[str]:
    return [f"{picture}?{query}" for picture in found] if query else found


def _full_sizes(path: str) -> list[str]:
    """The pictures that a file in a folder of sizes may be made of."""
    folder, _, name = path.rpartition("/")
    if len(name) > _MOST_OF_A_NAME:
        return []
    if "px-" in name and "/thumb/" in folder and _is_a_picture(name):  # MediaWiki
        base, _, file = folder.rpartition("/thumb/")
        # A hyphen more where it is of a film; a name that is too long is left out.
        is_own = name.partition("px-")[2].lstrip("-").startswith((file.rpartition("/")[2], "thumbnail."))
        return [f"{base}/{file}"] if is_own else []
    folder += "/"
    for beginning, below, instead, in_a_size, ends in _SIZES:
        if beginning in path and (parts := in_a_size().fullmatch(name)):
            wholes = [below().subn(other, folder, count=1) for other in instead]
            if wholes[0][1]:
                return [f"{whole}{parts[1]}{parts.expand(end)}" for whole, _ in wholes for end in ends]
    return []
