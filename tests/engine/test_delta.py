"""From one artifact to the next, whatever has changed; and nothing at all by a delta that is not right."""

import json
import random
import struct
import sys
import tracemalloc
from collections.abc import Buffer, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from engine.reference import Rule
from engine.support import CREATED, OTHER_SECRET, build, compile_lines, examples, file_line, key
from engine.test_artifact import LINES, forge, repaired
from engine.test_matcher_reference import SHAPES, rules, shapes
from rows import each_row
from urlward.engine import delta as engine_delta
from urlward.engine.artifact import HEADER_SIZE, Section, dump, parse, section_table
from urlward.engine.delta import MOST
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError
from urlward.engine.perceptual import sealed_size
from urlward.engine.table import RowTable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Both lists have these, so that a delta of short lists is worth it.
FILLER = [f"filler{n}.example" for n in range(150)]

# More of them than are sealed together would be another test: `LISTS` has it.
FILES = [
    file_line("md5", 1, category="phishing"),
    file_line("sha256", 1, id="f1"),
    file_line("pdq", 1, id="f2", distance=5),
    f"@@{file_line('pdq', 2)}",
    file_line("sha1", 1, category="other"),
]

IDS = st.sampled_from(["all", "all", "some", "none"])


def _lines(found: list[Rule], ids: str) -> list[str]:
    lines = [rule.line() for rule in found]
    bare = [line.replace(f" id={rule.id}", "") for line, rule in zip(lines, found, strict=True)]
    return {"all": lines, "some": lines[::2] + bare[1::2], "none": bare}[ids]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Lines of an old list and of a new one: some stay, some go, some come, in any order."""
    stay, go, come = (
        [replace(rule, id=f"{name}{n}") for n, rule in enumerate(draw(st.lists(rules(), max_size=8)))]
        for name in ("s", "g", "c")
    )
    if draw(st.booleans()):
        # An entry that differs in little but its id.
        stay, go, come = stay, go + stay[:1], come + [replace(rule, id="s") for rule in stay[:1]]
    old, new = draw(st.permutations(stay + go)), draw(st.permutations(stay + come))
    ids = draw(IDS)
    filler = draw(st.sampled_from([FILLER, FILLER[3:], FILLER[:-1]]))
    return _lines(old, ids) + FILLER, filler + _lines(new, draw(st.sampled_from([ids, draw(IDS)])))


def issue(lines: list[str], serial: int = 1) -> bytes:
    """An artifact of some lines, under `engine.support.key`."""
    under = key()
    return dump(compile_lines(lines, under), under, name="list", serial=serial, created=CREATED + serial)


def make_delta(old: bytes, new: bytes, under: Key) -> bytes:
    """`urlward.engine.delta.make_delta` of files."""
    return engine_delta.make_delta(parse(old), parse(new), under)


def apply_delta(old: bytes, delta: Buffer, under: Key, most: int = MOST) -> bytes:
    """`urlward.engine.delta.apply_delta` to a file."""
    return engine_delta.apply_delta(parse(old), delta, under, most)


OLD_LINES = [
    *FILLER,
    *LINES[::2],
    *FILES[1:],
    "http://sub.test/dir/page?a=1&b=2 id=16",
    "*/two/three/* id=17",
]
NEW_LINES = [
    *FILLER[2:],
    *LINES[1:],
    *FILES[:-1],
    "http://sub.test/dir/page?a=1&b=3&c=4 id=18",
    "203.0.113.7 category=new",
]
OLD, NEW = issue(OLD_LINES), issue(NEW_LINES, 2)
DELTA = make_delta(OLD, NEW, key())
HEADER = 48
"""Bytes before what is sealed."""


@given(pairs(), SHAPES)
@examples(200)
@pytest.mark.ours
def test_the_new_artifact_bit_by_bit(
    lists: tuple[list[str], list[str]], shape: tuple[int, int, int, int]
) -> None:
    with shapes(*shape):
        old, new = issue(lists[0]), issue(lists[1], 2)
        for before, after in ((old, new), (new, old)):
            delta = make_delta(before, after, key())
            assert make_delta(before, after, key()) == delta
            assert apply_delta(before, memoryview(delta), key()) == after


PAGES = [f"http://{host}.test/?a={n}&b={n % 2} id={host}{n} subdomains" for host in "abc" for n in range(9)]
LISTS = {
    "pages": PAGES,
    "pages in the middle": PAGES[:3] + PAGES[5:12] + PAGES[14:],
    "pages and others": [*PAGES[2:], "*/one/two/* id=1", "192.0.2.1 id=2", "name.* category=x"],
    "others": ["*/one/three/*", "192.0.2.2", "192.0.2.0/24", "other.* category=a", "@@a.test"],
    "no ids": [line.replace(" id=", " note=") for line in PAGES],
    "the longest id": [f"a.test id={'x' * 128}", "b.test id=y"],
    "files": [file_line("sha256", n, id=f"f{n}") for n in range(9)] + [file_line("pdq", n) for n in range(5)],
    "other files": [
        *(file_line("sha256", n, id=f"f{n}", category="b" if n % 2 else "a") for n in range(3, 12)),
        *(file_line("pdq", n, distance=n) for n in range(3, 9)),
        f"@@{file_line('pdq', 1)}",
        "a.test category=c",
    ],
    "nothing": [],
}


@each_row("new", LISTS)
def test_every_section(new: str) -> None:
    after = issue(FILLER + LISTS[new], 2)
    for old, lines in LISTS.items():
        before = issue(FILLER + lines)
        assert apply_delta(before, make_delta(before, after, key()), key()) == after, old


def test_pictures_beyond_one_sealed_block() -> None:
    lines = [file_line("pdq", n, distance=n % 60) for n in range(3000)]
    before, after = issue(lines[:-500]), issue(lines[300:], 2)
    for old, new in ((before, after), (after, before)):
        assert apply_delta(old, make_delta(old, new, key()), key()) == new


def test_header_and_signature_come_as_they_were() -> None:
    signed = bytearray(NEW)
    signed[64:80] = (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    signed[80:176] = bytes(range(96))
    new = repaired(signed)
    made = apply_delta(OLD, make_delta(OLD, new, key()), key())
    assert made == new
    assert parse(made).header.signature == bytes(range(32, 96))


def test_a_sieve_of_another_size() -> None:
    few, many = issue([f"{n}.test" for n in range(250)]), issue([f"{n}.test" for n in range(260)], 2)
    for old, new in ((few, many), (many, few)):
        assert apply_delta(old, make_delta(old, new, key()), key()) == new


def test_shapes_in_more_bytes() -> None:
    """As where there are more than 65,536 of them."""
    found = parse(NEW)
    wide = b"".join(number.to_bytes(4, "little") for number in RowTable(found).shape_numbers)
    meta = json.dumps(found.meta | {"shape_bytes": 4}, separators=(",", ":")).encode()
    other = forge(NEW, {Section.META: meta, Section.SHAPES: wide})
    for old, new in ((OLD, other), (other, OLD), (other, NEW)):
        assert apply_delta(old, make_delta(old, new, key()), key()) == new


# -- its size


def lines(count: int) -> list[str]:
    """Entries of several kinds that differ much, as those of a real list do."""
    r = random.Random(count)
    words = [f"{r.getrandbits(40):x}" for _ in range(count // 4)]
    made = []
    for n in range(count):
        host, page = f"{r.choice(words)}{n}.test", r.choice(words)
        made.append(
            [
                f"{host} id=E{n} category=malware",
                f"http://{host}/{page}.html id=E{n} category=phishing",
                f"http://shared{n % 50}.test/{page}/{n} id=E{n}",
                f"http://{host}/x?id={n} id=E{n}",
            ][n % 4]
        )
    return made


@pytest.mark.ours
def test_size_follows_the_change_and_not_the_list() -> None:
    """100 removed and 100 added of 20,000; 1,000 of 1,000,000 have 256 KiB."""
    every = lines(20_100)
    gone = set(random.Random(1).sample(range(20_000), 100))
    old = issue(every[:20_000])
    new = issue([line for n, line in enumerate(every) if n not in gone], 2)
    delta = make_delta(old, new, key())
    assert len(delta) <= 100 * 256
    assert apply_delta(old, delta, key()) == new


def test_a_new_serial_alone_is_a_few_hundred_bytes() -> None:
    assert len(make_delta(OLD, issue(OLD_LINES, 2), key())) < 700


def test_the_order_of_sources_changes_next_to_nothing() -> None:
    found = lines(400)
    assert len(make_delta(issue(found), issue(found[::-1], 2), key())) < 700


def test_a_shape_before_all_others_costs_next_to_nothing() -> None:
    """As a new category or date: the numbers of all shapes behind it are others then."""
    old = [f"{line} category=b{n % 7} expires=2030-01-0{n % 5 + 1}" for n, line in enumerate(lines(4000))]
    old = [line.replace(" category=malware", "").replace(" category=phishing", "") for line in old]
    new = [*old, "http://a.test/ category=a", "a.test category=a"]
    assert len(make_delta(issue(old), issue(new, 2), key())) < 700


# -- where none is made


def test_the_same_artifact_twice() -> None:
    with pytest.raises(ArtifactError, match="the same"):
        make_delta(OLD, OLD, key())


def test_no_delta_where_little_is_left() -> None:
    with pytest.raises(ArtifactError, match="would take"):
        make_delta(OLD, issue([f"{n}.test" for n in range(100)], 2), key())


def test_no_delta_under_another_key() -> None:
    other = Key(OTHER_SECRET)
    for old, new in ((OLD, build(FILLER, other)), (build(FILLER, other), OLD)):
        for under in (key(), other):
            with pytest.raises(ArtifactError, match="compiled under key"):
                make_delta(old, new, under)


def test_no_delta_of_sections_that_this_release_does_not_know() -> None:
    sections = [*map(bytes, parse(NEW).sections), b"more"]
    data = bytearray(b"".join([NEW[:HEADER_SIZE], section_table(map(len, sections)), *sections]))
    data[12:16], data[16:24] = len(sections).to_bytes(4, "little"), len(data).to_bytes(8, "little")
    new = repaired(data)
    assert len(parse(new).sections) == len(Section) + 1
    with pytest.raises(ArtifactError, match="does not know"):
        make_delta(OLD, new, key())


ROWS = len(parse(OLD).sections[Section.LENGTHS]) // 2
PATTERNS = len(parse(OLD).sections[Section.SHARED])


@each_row(
    ("section", "content"),
    [
        (Section.GROUPS, b"\xff" * 8),
        (Section.PARAM_ROWS, b"\xff" * 8),
        (Section.SHAPES, b"\xff" * 2 * ROWS),
        (Section.IDS, b"\xff"),
        (Section.ID_ENDS, b"\xff" * 4 * ROWS),
        (Section.ID_ENDS, (300).to_bytes(4, "little") * ROWS),
        (Section.SHARED, b"\xff" * PATTERNS),
        (Section.LETTERS, b""),
        (Section.GROUPS, bytes(4) + b"\2\0\0\0" + bytes(4) + b"\2\0\0\0"),
        (Section.GROUPS, b"\2\0\0\0" + b"\4\0\0\0" + bytes(4) + b"\2\0\0\0"),
        (Section.NETWORKS, b"not sealed"),
        (Section.NETWORKS, bytes(12) + ChaCha20Poly1305(key()._seal).encrypt(bytes(12), b"[]", key().id)),
        (Section.SIEVE, b""),
        (Section.FILE_SHAPES, b"\xff" * 2 * len(FILES[1:])),
        (Section.FILE_ID_ENDS, b"\xff" * 4 * len(FILES[1:])),
        (Section.PERCEPTUAL, bytes(sealed_size(1))),
    ],
)
def test_an_artifact_that_contradicts_itself(section: Section, content: bytes) -> None:
    bad = forge(OLD, {section: content})
    for old, new in ((bad, NEW), (NEW, bad)):
        try:
            delta = make_delta(old, new, key())
        except ArtifactError:
            continue
        assert apply_delta(old, delta, key()) == new


# -- each way to be wrong


def refused(delta: bytes, why: str, old: bytes = OLD, most: int = MOST) -> None:
    with pytest.raises(ArtifactError, match=why) as caught:
        apply_delta(old, delta, key(), most)
    assert "\n" not in str(caught.value)


def test_another_base() -> None:
    for base in (NEW, issue(OLD_LINES, 7), build(OLD_LINES, Key(OTHER_SECRET))):
        refused(DELTA, "for the artifact with checksum .*: fetch the full artifact", base)


def test_a_base_that_is_not_the_one_that_the_header_says() -> None:
    refused(DELTA[:32] + parse(NEW).header.checksum + DELTA[HEADER:], "not the new artifact", NEW)


def test_another_key() -> None:
    other = Key(OTHER_SECRET)
    with pytest.raises(ArtifactError, match="compiled under key"):
        apply_delta(OLD, DELTA, other)
    refused(DELTA[:24] + other.id + DELTA[32:], f"made under key {other.id.hex()}")
    refused(DELTA[:HEADER] + other.seal(key().unseal(DELTA[HEADER:])), "does not open")


@each_row("data", [b"", OLD, b"<!doctype html>" * 20, b"URLWCHG\n" + DELTA[8:]])
def test_not_a_delta(data: bytes) -> None:
    refused(data, "does not begin with the magic")


def test_another_version() -> None:
    refused(DELTA[:8] + b"\1\0" + DELTA[10:], "version 1, of an older release: fetch the full artifact")
    refused(DELTA[:8] + b"\3\0" + DELTA[10:], "version 3, this release reads 2: update urlward")


def test_truncated_at_every_length() -> None:
    for length in range(len(DELTA)):
        refused(DELTA[:length], "fetch")
    refused(DELTA + b"\0", "does not open")


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_any_changed_byte(mask: int) -> None:
    for at in range(len(DELTA)):
        data = bytearray(DELTA)
        data[at] ^= mask
        if 10 <= at < 16:  # these bytes mean nothing yet
            assert apply_delta(OLD, data, key()) == NEW
        else:
            refused(bytes(data), ".")


# -- what one who has the key could make that means harm


def forged(frame: bytes, size: int = len(NEW)) -> bytes:
    """A delta of anything, sealed."""
    return DELTA[:16] + size.to_bytes(8, "little") + DELTA[24:HEADER] + key().seal(frame)


def packed(form: bytes, **options: int) -> bytes:
    named = {getattr(zstd.CompressionParameter, name): value for name, value in options.items()}
    return zstd.compress(form, options=named)


def the_form() -> bytes:
    before = parse(OLD)
    return engine_delta._form(parse(NEW), before, key())


def test_a_frame_that_makes_no_use_of_the_base_is_as_good() -> None:
    assert apply_delta(OLD, forged(packed(the_form())), key()) == NEW


@each_row(
    "frame",
    [
        b"",
        b"x",
        b"\x28\xb5\x2f\xfd",
        packed(b""),
        packed(b"x"),
        packed(bytes(HEADER_SIZE)),
        packed(bytes(HEADER_SIZE + 8 * len(Section))),
        packed(NEW),
        packed(the_form()[:-1]),
        packed(the_form()) + b"x",
        packed(the_form())[:-1],
        packed(the_form()[:1000]) + packed(the_form()[1000:]),
        b"\x50\x2a\x4d\x18\x01\0\0\0x" + packed(the_form())[1:],
        bytes(parse(OLD).sections[Section.SIEVE]),
    ],
)
def test_a_frame_that_is_none_of_a_form(frame: bytes) -> None:
    refused(forged(frame), "not the new artifact")


def test_another_artifact_or_size_than_it_says() -> None:
    form = the_form()
    refused(forged(packed(form[:300] + b"?" + form[301:])), "not the new artifact")
    refused(forged(packed(form), len(NEW) + 1), "not the new artifact")
    refused(forged(packed(form), len(NEW) - 1), "not the new artifact")


@contextmanager
def memory_below(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


def streamed(form: bytes, window: int) -> bytes:
    """A frame that does not say how much comes out of it."""
    compressor = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): window})
    frame = compressor.compress(form) + compressor.flush()
    assert zstd.decompress(frame) == form
    return frame


@pytest.mark.parametrize("made", [packed, partial(streamed, window=14)], ids=["packed", "streamed"])
def test_no_more_comes_out_than_it_says_and_it_may_not_say_what_it_likes(
    made: Callable[[bytes], bytes],
) -> None:
    bomb = made(bytes(64 << 20))
    bounded = 2 * len(OLD) + 100 * len(forged(bomb))
    assert bounded < 4 << 20
    with memory_below(16 << 20):
        refused(forged(bomb), "not the new artifact")
        refused(forged(bomb, bounded), "not the new artifact")
        refused(forged(bomb, bounded + 1), "larger than it may be")
        refused(forged(bomb, (1 << 64) - 1), "larger than it may be")
    refused(DELTA, "larger than it may be", most=len(NEW) - 1)
    assert apply_delta(OLD, DELTA, key(), len(NEW)) == NEW


def test_a_window_larger_than_both_artifacts_is_not_made() -> None:
    assert apply_delta(OLD, forged(streamed(the_form(), 10)), key()) == NEW
    refused(forged(streamed(the_form(), 27)), "not the new artifact")


def test_sections_do_not_overlap() -> None:
    """Seven times the form would be made of them."""
    meta = bytes(parse(NEW).sections[Section.META])
    rest = random.Random(1).randbytes(50_000) + bytes(4 << 20)
    end = len(meta) + len(rest)
    ends = [len(meta), *[end, 0] * 9, end]
    form = b"".join([NEW[:HEADER_SIZE], *(n.to_bytes(8, "little") for n in ends), meta, rest])
    with memory_below(4 * len(form)):
        refused(forged(packed(form), len(form)), "not the new artifact")


def sections_of(form: bytes) -> list[bytes]:
    start = HEADER_SIZE + 8 * len(Section)
    ends = struct.unpack_from(f"<{len(Section)}Q", form, HEADER_SIZE)
    return [form[start + a : start + b] for a, b in pairwise((0, *ends))]


@each_row(
    "ends",
    [
        [0] * len(Section),
        [1 << 63] * len(Section),
        [10_000, 0] * (len(Section) // 2 - 1) + [10_000] * 2,
        list(range(len(Section))),
    ],
)
def test_a_section_table_that_lies(ends: list[int]) -> None:
    table = b"".join(end.to_bytes(8, "little") for end in ends)
    form = the_form()
    refused(forged(packed(form[:HEADER_SIZE] + table + form[HEADER_SIZE + len(table) :])), "not the new")


@each_row(
    ("section", "content"),
    [
        (Section.META, b""),
        (Section.META, b"5"),
        (Section.META, b"[]"),
        (Section.META, b"{}"),
        (Section.META, b"[" * 100_000),
        (Section.META, b'{"shapes":[[5,0,9,0,0]],"categories":[]}'),
        (Section.META, b'{"shapes":[[5,0,0,[],0]],"categories":[""]}'),
        (Section.META, b'{"shapes":[[5,0,0]],"categories":[""]}'),
        (Section.SHAPES, b"\xff" * 2 * ROWS),
        (Section.SHAPES, b"\0"),
        (Section.GROUPS, b"\xff" * 16),
        (Section.GROUPS, b"\0" * 5),
        (Section.PARAM_ROWS, b"\xff" * 16),
        (Section.PARAM_ROWS, b"\xff" * 12),
    ],
)
def test_a_section_that_makes_no_sense(section: Section, content: bytes) -> None:
    parts = [content if number == section else part for number, part in enumerate(sections_of(the_form()))]
    made = b"".join([NEW[:HEADER_SIZE], section_table(map(len, parts)), *parts])
    refused(forged(packed(made), len(made)), "not the new artifact")


WILD = [b"", b"\0", b"\xff", b"\xff" * 4, b"\xff" * 64, bytes(64), b"[]", b"{}", b"[" * 5000]


@given(
    st.dictionaries(
        st.sampled_from(Section),
        st.tuples(st.floats(0, 1), st.integers(0, 70), st.sampled_from(WILD) | st.binary(max_size=9)),
        min_size=1,
        max_size=3,
    )
)
@examples(400)
def test_a_form_changed_somewhere(changes: dict[Section, tuple[float, int, bytes]]) -> None:
    form = the_form()
    parts = sections_of(form)
    for section, (where, removed, added) in changes.items():
        part = parts[section]
        split = int(where * len(part))
        parts[section] = part[:split] + added + part[split + removed :]
    made = b"".join([form[:HEADER_SIZE], section_table(map(len, parts)), *parts])
    try:
        assert apply_delta(OLD, forged(packed(made), max(len(made), len(NEW))), key()) == NEW
    except ArtifactError:
        assert made != form
