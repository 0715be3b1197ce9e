"""Exactness at large: what is listed is blocked however clients ask for it, what sites have beside it passes.

Each of some thousands of forms of URLs is listed on a host of its own, all in one list. What is blocked
beside it is what the grammar and the readings (`docs/lists.md`) say; `BESIDE` counts that, so that a change
shows.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from string import ascii_letters, digits
from unicodedata import normalize
from urllib.parse import quote, unquote_to_bytes

import can_ada
import pytest

from engine.support import key, load_lines
from urlward.engine.errors import UrlError
from urlward.engine.matcher import Matcher
from urlward.engine.url import byte_string

DATA = Path(__file__).parent.parent / "data"
WORDS = {
    "Latin": "about music garden picture summer window history letter winter kitchen",
    "accents": "été straße niño garçon łódź über señal année",
    "Cyrillic": "новости город музыка история письмо зима книга",
    "Han": "新闻 图片 音乐 历史 花园 关于我们 夏天",
    "Kana": "ニュース 写真 音楽 ひらがな カタカナ",
    "Hangul": "뉴스 사진 음악 역사 편지",
    "Arabic": "أخبار صورة موسيقى تاريخ حديقة",
    "Greek": "νέα εικόνα μουσική ιστορία κήπος",
    "Thai": "ข่าว รูปภาพ ดนตรี ประวัติ",
    "Hindi": "समाचार चित्र संगीत इतिहास",
}


def lines(name: str) -> list[str]:
    text = (DATA / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("# ")]


def filled(form: str, rng: random.Random, script: str) -> str:
    """A URL's path and query of a form, in Unicode."""
    words = WORDS[script].split()

    def part(match: re.Match[str]) -> str:
        several = rng.sample(words, 4 if len(words) > 4 else 3)
        match match[1]:
            case "n":
                return str(rng.randrange(2, 10 ** rng.choice((1, 2, 4, 7))))
            case "i":
                return "".join(rng.choices(ascii_letters + digits + "_-", k=8)) + "aB3"
            case "h":
                return "".join(rng.choices("0123456789abcdef", k=8))
            case "d":
                return f"{rng.randrange(2003, 2026)}/{rng.randrange(1, 13):02}/{rng.randrange(1, 29):02}"
            case "x":
                return rng.choice(("jpg", "jpeg", "png", "gif", "webp", "JPG"))
            case "f":
                return rng.choice(("mp4", "webm", "flv", "avi", "mkv"))
            case "a":
                return rng.choice(("zip", "rar", "7z", "pdf", "epub"))
            case "c":
                return several[0].capitalize()
            case "s":
                return "-".join(several)
            case "u":
                return "_".join(several)
            case "p":
                return "+".join(several)
            case _:
                return several[0]

    return re.sub(r"\{(\w)\}", part, form)


# -- how clients send what they are given


def browser(target: str) -> str | None:
    """As the WHATWG URL standard has it."""
    url = can_ada.parse(f"http://a.example{target}")
    return str(url.pathname + url.search)


def curl(target: str) -> str | None:
    """Without dot segments; what is beyond ASCII is escaped in small letters, but not in the query."""
    if " " in target:
        return None
    path, mark, query = target.partition("#")[0].partition("?")
    dots = re.sub(r"(?<=/)(?:\.|%2[eE]){1,2}(?=/|\Z)", lambda m: re.sub("%2[eE]", ".", m[0]), path)
    path = re.sub(r"[^\0-\x7f]+", lambda m: quote(m[0]).lower(), resolved(dots))
    return f"{path}{mark}{byte_string(query)}"


def requests(target: str) -> str | None:
    """As Python's urllib3 and requests in turn: escapes in capitals, those of plain letters undone."""
    path, _, query = target.partition("#")[0].partition("?")
    path, query = encoded(resolved(path), "/:@!$&'()*+,;=-._~"), encoded(query, "/?:@!$&'()*+,;=-._~")
    text = f"{path}?{query}" if query else path
    plain = frozenset(ascii_letters + digits + "-._~")
    return quote(
        re.sub("%[0-9A-F]{2}", lambda m: c if (c := chr(int(m[0][1:], 16))) in plain else m[0], text),
        safe="!#$%&'()*+,/:;=?@[]~",
    )


def go(target: str) -> str | None:
    """Go escapes a path anew where a byte in it has to be; a query goes as it is."""
    path, mark, query = target.partition("#")[0].partition("?")
    if re.search("%(?![0-9A-Fa-f]{2})", path):
        return None
    if re.search(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/%\[\]]", path):
        path = quote(unquote_to_bytes(path), safe="-_.~$&+,/:;=@")
    return byte_string(f"{path}{mark}{query}")


def java(target: str) -> str | None:
    """`java.net.http`: nothing is changed but what is beyond ASCII, which is escaped in normal form."""
    text = target.partition("#")[0]
    if re.search(r'["<>\\^`{|} ]|%(?![0-9A-Fa-f]{2})', text) or "[" in text.partition("?")[0]:
        return None
    return re.sub(r"[^\0-\x7f]+", lambda m: quote(normalize("NFC", m[0])), text)


CLIENTS: tuple[Callable[[str], str | None], ...] = (browser, curl, requests, go, java)


def resolved(path: str) -> str:
    if "/." not in path:
        return path
    found: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            del found[-1:]
        elif part != ".":
            found.append(part)
    return "/".join(["", *found, *([""] if parts[-1] in (".", "..") else [])])


def encoded(text: str, safe: str) -> str:
    text = re.sub("%[0-9a-fA-F]{2}", lambda m: m[0].upper(), text)
    escaped = text.count("%") == len(re.findall("%[0-9A-F]{2}", text))
    return quote(text, safe=f"{safe}%" if escaped else safe)


# -- what an ordinary site has beside a page

_EXTENSIONS = {
    "html": "htm",
    "htm": "html",
    "php": "html",
    "jpg": "png",
    "png": "jpg",
    "pdf": "doc",
    "mp4": "webm",
}


def neighbours(target: str) -> Iterator[tuple[str, str]]:
    """Other pages of the host, with what makes them others; nothing is said of their order."""
    path, mark, query = target.partition("#")[0].partition("?")
    rest = mark + query
    # Nothing inside an escape is a number or a word.
    bare = re.sub("%[0-9A-Fa-f]{2}", "   ", path)
    if numbers := list(re.finditer("[0-9]+", bare)):
        begin, end = numbers[-1].span()
        yield "another number", f"{path[:begin]}{int(path[begin:end]) + 1:0{end - begin}}{path[end:]}{rest}"
    if words := list(
        re.finditer("[A-Za-z]{3,}(?![A-Za-z0-9]*\\Z)|[A-Za-z]{3,}\\Z", re.sub(r"\.\w+\Z", "", bare))
    ):
        begin, end = words[-1].span()
        yield "another word", f"{path[:begin]}{path[begin:end].translate(_NEXT)}{path[end:]}{rest}"
        many = path[begin : end - 1] if path[end - 1] == "s" else f"{path[begin:end]}s"
        yield "another grammatical number", f"{path[:begin]}{many}{path[end:]}{rest}"
        other = path[begin:end].lower() if path[begin].isupper() else path[begin:end].capitalize()
        yield "another case of a word", f"{path[:begin]}{other}{path[end:]}{rest}"
    if letters := list(re.finditer("%[89AB][0-9A-F](?!%[89AB])", path)):
        at = letters[-1].end()
        yield "another letter", f"{path[: at - 2]}{int(path[at - 2 : at], 16) ^ 1:02X}{path[at:]}{rest}"
    for named in re.finditer(
        r"(?<=[/=])(?=[A-Za-z_\-]*[0-9])(?=[a-z0-9_\-]*[A-Z])[A-Za-z0-9_\-]{8,}(?=[/.?&]|\Z)", target
    ):
        if any(c.islower() for c in named[0]):
            begin, end = named.span()
            yield "another case of an id", f"{target[:begin]}{named[0].swapcase()}{target[end:]}"
            break
    if query:
        name, equals, value = query.rpartition("&")[2].partition("=")
        shorter = rest.removesuffix(f"{name}{equals}{value}")
        more = (
            f"{value[:-1]}{(int(value[-1]) + 1) % 10}"
            if value[-1:].isdigit() and value[-1:].isascii()
            else f"{value}x"
        )
        yield "another value", f"{path}{shorter}{name}{equals or '='}{more}"
        if len(shorter) > 1:
            yield "without the last parameter", f"{path}{shorter[:-1]}"
        yield "without parameters", path
        yield "with one more parameter", f"{target}&page=2"
    else:
        yield "page=2", f"{path}?page=2"
    stem, dot, extension = path.rpartition(".")
    if dot and extension in _EXTENSIONS:
        yield "another extension", f"{stem}.{_EXTENSIONS[extension]}{rest}"
        yield "without an extension", f"{stem}{rest}"
    elif not path.endswith("/"):
        yield "with an extension", f"{path}.html{rest}"
    if path.strip("/"):
        folder = path.rstrip("/")
        _, _, below = path[1:].partition("/")
        yield "the folder above", f"{folder.rpartition('/')[0]}/"
        yield "below", f"{folder}/garden{rest}"
        yield "feed", f"{folder}/feed"
        yield "page/2", f"{folder}/page/2{rest}"
        yield "in another folder", f"/en{path}{rest}"
        yield "one folder less", f"/{below}{rest}"
        for sign in ".,)":
            yield f"behind it {sign}", f"{path}{sign}{rest}"


_NEXT = str.maketrans(ascii_letters, ascii_letters[1:] + "a")

_FILE = r"\.\w+(?:\?|\Z)"
_IIS = r"(?i:\.as(?:p|px|hx))(?:\?|\Z)"
MAY_BE_BLOCKED = {
    "page=2": "",
    "with one more parameter": "",
    "below": _FILE,
    "feed": _FILE,
    "page/2": _FILE,
    "behind it .": rf"{_FILE}|/(?:\?|\Z)|[?]|/\.\Z",
    "behind it ,": r"\.php\?",
    "behind it )": r"\.php\?",
    "another number": r"\A/thread-[0-9]+-[0-9]+-[0-9]+\.html\Z",
    "another case of a word": rf"/\.?(?:\?|\Z)|{_IIS}|/(?:wiki|index\.php)/[A-Z]",
    "another case of an id": _IIS,
    "another value": r"\?/|[&;?]\Z|;amp\Z",
    "without the last parameter": r"[&;]\Z",
    "one folder less": r"^//|^/\.\Z|\A/index\.php(?:\?|/s/)",
    "the folder above": r"/\.\Z",
}
"""Kinds of neighbours that readings block, with what is found in the target of a page beside which one is."""

BESIDE = {
    "page=2": 2656,
    "behind it .": 2275,
    "below": 1332,
    "page/2": 1332,
    "feed": 879,
    "with one more parameter": 813,
    "behind it ,": 229,
    "behind it )": 229,
    "another case of a word": 184,
    "another value": 9,
    "the folder above": 5,
    "one folder less": 45,
    "without the last parameter": 4,
    "another case of an id": 2,
    "another number": 1,
}
"""How many of each kind are blocked every day."""


def every_form(rng: random.Random) -> Iterator[str]:
    for form in lines("forms.txt"):
        for script in WORDS if re.search(r"\{[wcsup]\}", form) else ["Latin"]:
            yield filled(form, rng, script)


def judged(targets: Iterable[str]) -> Counter[str]:
    """What is blocked beside targets, by kind; each is blocked itself, as a page and with its parameters."""
    rows = [(f"h{number}.example", target) for number, target in enumerate(dict.fromkeys(targets))]
    pages = [(f"p.{host}", target.partition("?")[0]) for host, target in rows if "?" in target]
    matcher = Matcher([load_lines([f"http://{host}{target}" for host, target in (*rows, *pages)], key())])

    def action(host: str, target: str) -> str:
        try:
            return matcher.check(host, target).action
        except UrlError:
            return "refused"

    found: Counter[str] = Counter()
    for host, target in rows:
        for client in CLIENTS:
            if (sent := client(target)) is not None:
                assert action(host, sent) == "block", (client.__name__, target)
                assert "?" not in target or action(f"p.{host}", sent) == "block", (client.__name__, target)
        for kind, other in neighbours(target):
            said = action(host, str(browser(other))) if other != target else "pass"
            if said != "pass":
                assert said == "block", (target, other)
                assert re.search(MAY_BE_BLOCKED.get(kind, "never"), target.partition("#")[0]), (
                    kind,
                    target,
                    other,
                )
                found[kind] += 1
    return found


def test_what_is_listed_is_blocked_and_its_neighbours_are_not() -> None:
    real = lines("targets.txt")
    found = judged([*real, *every_form(random.Random(1))])
    assert len(real) == 1800
    assert found == BESIDE


@pytest.mark.long
def test_forms_filled_at_random() -> None:
    seed = os.environ.get("URLWARD_SEED") or str(random.randrange(1 << 32))
    print(f"URLWARD_SEED={seed}")
    rng = random.Random(seed)
    for _ in range(2):
        found = judged(every_form(rng))
        assert found.keys() <= MAY_BE_BLOCKED.keys()
