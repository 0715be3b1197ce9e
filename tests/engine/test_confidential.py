"""No plaintext entry in an artifact, nor anywhere in memory once a list is compiled and loaded."""

import gc
import types
from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.support import OTHER_SECRET, SECRET, build, compile_lines, examples, rows_of
from urlward.engine.artifact import Section, dump, parse
from urlward.engine.compiler import Compiler
from urlward.engine.digest import Key
from urlward.engine.grammar import parse_line
from urlward.engine.loaded import LoadedList, load
from urlward.engine.matcher import Matcher
from urlward.engine.record import PatternSet

WORDS = [
    *[
        "hostalpha",
        "hostbravo",
        "hostcharlie",
        "hostdelta",
        "hostecho",
        "hostfoxtrot",
        "namegolf",
        "pathhotel",
    ],
    *[
        "pathindia",
        "pathjuliett",
        "pathkilo",
        "pathlima",
        "parammike",
        "paramnovember",
        "valueoscar",
        "pathpapa",
    ],
    *["parentquebec", "192.0.2.77", "198.51.100", "2001:db8:77", "notesierra"],
]
LINES = [
    "hostalpha.test",
    "0.0.0.0 hostbravo.example note=notesierra",
    "http://hostcharlie.test/pathhotel/pathindia.html",
    "http://hostdelta.test/pathjuliett/*",
    "http://hostecho.test/pathkilo?parammike=valueoscar&paramnovember=1 nocase",
    "http://hostfoxtrot.parentquebec.test/pathpapa subdomains",
    "namegolf.*",
    "*/pathlima/pathhotel/*",
    "192.0.2.77",
    "198.51.100.0/24",
    "2001:db8:77::/48",
]
# What would give a host away although no word above stands in it.
ENDINGS = [".test", ".example", "http", "www."]


def reachable(*roots: object) -> Iterator[object]:
    """All objects that the collector finds from here, types and modules and what is theirs left out."""
    seen: set[int] = set()
    queue = list(roots)
    while queue:
        found = queue.pop()
        if id(found) in seen or isinstance(found, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(found))
        yield found
        queue.extend(gc.get_referents(found))
        if isinstance(found, dict):
            queue.extend(found.keys())  # the collector passes over those of a dictionary keyed by text
        if isinstance(found, memoryview):
            yield found.tobytes()


def texts(*roots: object) -> Iterator[str]:
    for found in reachable(*roots):
        if isinstance(found, str):
            yield found.lower()
        elif isinstance(found, bytes | bytearray):
            yield bytes(found).decode("latin-1").lower()


def test_the_walk_finds_what_is_there() -> None:
    under = Key(SECRET)
    under.labels["hostalpha"]
    compiler = Compiler(under)
    for entry in parse_line("http://hostcharlie.test/pathhotel?parammike=1"):
        compiler.add(entry)
    found = "\n".join(texts(under, compiler))
    for word in ("hostalpha", "hostcharlie", "pathhotel", "parammike"):
        assert word in found
    assert "hostecho" in "\n".join(texts(memoryview(b"..hostecho..")))


def test_no_word_of_the_source_is_in_the_artifact() -> None:
    text = build(LINES, Key(SECRET)).decode("latin-1").lower()
    for word in WORDS + ENDINGS:
        assert word not in text
        assert word[::-1] not in text


def test_no_word_of_the_source_is_in_memory_after_loading() -> None:
    under = Key(SECRET)
    loaded = load(build(LINES, under), under)
    matcher = Matcher([loaded])
    assert matcher.check_host("unlisted.invalid").action == "pass"
    found = list(texts(loaded, matcher, under))
    assert len(found) > 50
    for word in WORDS:
        assert not [text for text in found if word in text]


def test_no_word_of_the_source_is_in_the_compiler_once_it_is_done() -> None:
    under = Key(SECRET)
    compiler = Compiler(under)
    for line in LINES:
        for entry in parse_line(line):
            compiler.add(entry)
    compiled = compiler.finish()
    data = dump(compiled, under, name="list", serial=1, created=0)
    compiled.networks.clear()
    for word in WORDS:
        assert not [text for text in texts(compiler, compiled, data, under) if word in text]


def test_networks_are_sealed() -> None:
    sections = parse(build(LINES, Key(SECRET))).sections
    bare = b"".join(bytes(part) for n, part in enumerate(sections) if n != Section.NETWORKS)
    for address in (bytes([192, 0, 2, 77]), bytes([198, 51, 100, 0]), bytes.fromhex("20010db80077")):
        assert address not in bare
        assert address not in bytes(sections[Section.NETWORKS])


# -- without the key nothing can be tested


def pieces(data: bytes, section: Section, size: int) -> set[bytes]:
    part = bytes(parse(data).sections[section])
    return {part[i : i + size] for i in range(0, len(part), size)} - {bytes(size)}


def test_the_same_list_under_two_keys_shares_no_digest() -> None:
    one, other = build(LINES, Key(SECRET)), build(LINES, Key(OTHER_SECRET))
    for section, size in ((Section.DIGESTS, 16), (Section.BELOW, 4), (Section.PARAMS, 16)):
        assert pieces(one, section, size)
        assert not pieces(one, section, size) & pieces(other, section, size)
    assert parse(one).sections[Section.NETWORKS] != parse(other).sections[Section.NETWORKS]


def test_words_under_two_keys_share_no_letters() -> None:
    one, other = (
        {tokens[word] for tokens in (key.labels, key.names, key.segments) for word in WORDS}
        for key in (Key(SECRET), Key(OTHER_SECRET))
    )
    assert len(one & other) <= 1  # one in common by chance is to be expected


def test_equal_words_of_different_use_have_nothing_in_common() -> None:
    """A page's host must not be found by looking for a listed domain's digest, nor a word in two places."""
    same = ["word.test", "0.0.0.0 word.test", "http://word.test/word/word?word", "word.*", "*/word/*"]
    compiled = compile_lines(same, Key(SECRET))
    digests = [row.digest for pool in compiled.rows for row in rows_of(pool)]
    assert len(set(digests)) == len(digests) == 5
    key = Key(SECRET)
    assert len({key.labels["word"], key.names["word"], key.segments["word"]}) == 3


@given(st.lists(st.text("abcdefgh", min_size=6, max_size=9), min_size=4, max_size=4, unique=True))
@examples(60)
def test_words_of_any_list_are_nowhere(words: list[str]) -> None:
    host, path, param, name = words
    lines = [f"{host}.test", f"http://{host}.test/{path}?{param}", f"{name}.*", f"*/{path}/*"]
    under = Key(SECRET)
    data = build(lines, under)
    loaded = load(data, under)
    found = list(texts(loaded, Matcher([loaded])))
    for word in words:
        assert not [text for text in found if word in text]


def test_released_lists_hold_no_automata() -> None:
    under = Key(SECRET)
    loaded: LoadedList = load(build(LINES, under), under)
    assert loaded.floating
    assert len(list(loaded.release())) >= 2
    assert not loaded.floating
    assert loaded.shard("\u0100") is None


def test_patterns_are_in_order_of_their_letters_and_not_of_the_source() -> None:
    """The order of rows must not tell that two entries stood side by side."""
    compiled = compile_lines([f"host{n}.test" for n in range(100)], Key(SECRET))
    rows = rows_of(compiled.rows[PatternSet.ANCHORED])
    patterns = list(compiled.patterns[PatternSet.ANCHORED])
    assert all(a.letters < b.letters for a, b in pairwise(patterns))
    for start, end in pairwise([*(pattern.row for pattern in patterns), len(rows)]):
        assert rows[start:end] == sorted(rows[start:end], key=lambda row: row.digest)
