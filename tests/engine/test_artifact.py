import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import CREATED, OTHER_SECRET, SECRET, build, compile_lines, digest, examples, file_line
from rows import each_row
from urlward.engine import artifact
from urlward.engine.artifact import (
    HEADER_SIZE,
    SIGNATURE,
    VERSION,
    Section,
    check_key,
    dump,
    networks,
    parse,
    reissue,
)
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.engine.steps import exhaust

GOLDEN = Path(__file__).parents[1] / "data" / "golden.ward"
GOLDEN_CHECKSUM = "7ac980cf7098407c11781b5f0bcd6310"

LINES = [
    "example.test id=1 category=phishing",
    "0.0.0.0 host.test id=2",
    "http://example.test/page id=3 expires=2027-01-31",
    "http://example.test/page?x=1&y=2 id=4 port=8080",
    "http://example.test/page?x=1&y=3 id=5",
    "http://example.test/dir/* id=6 nocase",
    "http://sub.test/dir/page id=7 subdomains",
    "name.* id=8",
    "*/one/two/* id=9",
    "*/one/three/* id=10",
    "192.0.2.7 id=11",
    "198.51.100.0/24 id=12",
    "2001:db8::/32 id=13",
    "@@allowed.example.test id=14",
    "@@http://example.test/page?x=1&y=2 id=15",
]


def golden() -> bytes:
    return build(LINES, Key(SECRET), "golden")


def with_files() -> bytes:
    """The same with digests of files."""
    files = [file_line("md5", 1, id=16), file_line("sha256", 1), file_line("pdq", 1, category="csam")]
    return build([*LINES, *files, f"@@{file_line('pdq', 1)}"], Key(SECRET), "golden")


def repaired(data: bytes) -> bytes:
    """The same bytes under a checksum that fits them, as whoever forges a file would write it."""
    forged = bytearray(data)
    forged[32:48] = exhaust(artifact._checksum(bytes(forged)))
    return bytes(forged)


def forge(data: bytes, changes: dict[Section, bytes]) -> bytes:
    """An artifact some of whose sections have other content, size table and checksum in order."""
    parts = [changes.get(Section(n), bytes(part)) for n, part in enumerate(parse(data).sections)]
    end, ends = 0, b""
    for part in parts:
        end += len(part)
        ends += end.to_bytes(8, "little")
    head = bytearray(data[:HEADER_SIZE])
    head[16:24] = (HEADER_SIZE + len(ends) + end).to_bytes(8, "little")
    return repaired(bytes(head) + ends + b"".join(parts))


def use(data: bytes) -> None:
    """Load, and ask everything that reads a row."""
    under = Key(SECRET)
    loaded = load(data, under)
    matcher = Matcher([loaded])
    for host in (
        "example.test",
        "a.sub.test",
        "host.test",
        "name.test",
        "192.0.2.7",
        "[2001:db8::1]",
        "x.test",
    ):
        matcher.check(host, "/DIR/one/two/page?x=1&y=2")
        matcher.check(host, "/page?x=1&y=2&y=3", (8080,))
        matcher.check_host(host)
        matcher.lists_below(host)
        matcher.check_address(host.strip("[]"))
    for algorithm in ("md5", "sha256"):
        matcher.check_file({algorithm: digest(algorithm, 1)})
    for pictures in matcher.perceptual():
        for row, distance in pictures.near(digest("pdq", 1)):
            matcher.file_verdict("golden", row, distance=distance)
    list(loaded.release())


# -- what an artifact says


def test_header_and_meta() -> None:
    data = dump(compile_lines(LINES, Key(SECRET)), Key(SECRET), name="Näme", serial=7, created=CREATED)
    found = parse(data)
    assert data.startswith(b"URLWARD\n")
    assert found.header.size == len(data)
    assert (found.header.serial, found.header.created) == (7, CREATED)
    assert (found.header.valid_from, found.header.valid_until) == (0, 0)
    assert found.header.key_id == Key(SECRET).id
    assert not any(found.header.signer + found.header.signature)
    assert found.meta["name"] == "Näme"
    assert found.meta["entries"] == len(LINES)
    assert found.meta["counts"]["allow params"] == 1
    assert found.meta["by_category"] == {"": len(LINES) - 1, "phishing": 1}


def test_networks_come_back_under_the_key_alone() -> None:
    found = parse(golden())
    assert networks(found, Key(SECRET)) == ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::/32"]
    with pytest.raises(ArtifactError):
        networks(found, Key(OTHER_SECRET))


def test_an_empty_list_is_an_artifact() -> None:
    found = parse(build([], Key(SECRET)))
    assert found.meta["entries"] == 0
    use(build([], Key(SECRET)))


def test_dates_of_an_issue() -> None:
    compiled = compile_lines(LINES, Key(SECRET))
    data = dump(
        compiled,
        Key(SECRET),
        name="list",
        serial=7,
        created=CREATED,
        valid_from=CREATED,
        valid_until=2**64 - 1,
    )
    assert (parse(data).header.valid_from, parse(data).header.valid_until) == (CREATED, 2**64 - 1)


def test_reissued_with_another_serial_dates_and_signer() -> None:
    data = bytearray(golden())
    data[SIGNATURE] = b"\1" * 64
    made = reissue(data, serial=9, valid_from=1, valid_until=2, signer=b"\3" * 32)
    header = parse(made).header
    assert (header.serial, header.valid_from, header.valid_until) == (9, 1, 2)
    assert (header.signer, header.signature) == (b"\3" * 32, bytes(64))
    assert (header.created, header.key_id) == (CREATED, Key(SECRET).id)
    assert made[HEADER_SIZE:] == golden()[HEADER_SIZE:]
    assert header.raw == made[:HEADER_SIZE]


# -- the format does not drift


def test_the_same_list_gives_the_same_bytes() -> None:
    assert golden() == golden()


def test_golden_bytes() -> None:
    assert parse(golden()).header.checksum.hex() == GOLDEN_CHECKSUM, (
        "The same list no longer gives the same artifact. If older releases cannot read the new bytes, raise "
        "artifact.VERSION. Either way write the new checksum here, and keep tests/data/golden.ward as it is: "
        "it must stay readable."
    )


def test_an_artifact_of_the_first_release_still_works() -> None:
    under = Key(SECRET)
    matcher = Matcher([load(GOLDEN.read_bytes(), under)])
    for url, entry in [
        ("http://example.test/", "1"),
        ("http://host.test/", "2"),
        ("http://example.test/page", "3"),
        ("http://example.test/page?y=3&x=1", "5"),
        ("http://example.test/DIR/a", "6"),
        ("http://a.sub.test/dir/page", "7"),
        ("http://name.example/", "8"),
        ("http://other.test/a/one/two/b", "9"),
        ("http://other.test/a/one/three/b", "10"),
        ("http://192.0.2.7/", "11"),
        ("http://198.51.100.7/", "12"),
        ("http://[2001:db8::7]/", "13"),
        ("http://allowed.example.test/", "14"),
        ("http://example.test:8080/page?y=2&x=1", "15"),
    ]:
        assert matcher.check_url(url).entry == entry, (
            "Raise artifact.VERSION and keep reading the one before."
        )
    assert networks(parse(GOLDEN.read_bytes()), under)


# -- each way to be wrong


@each_row("data", [b"", b"U", b"URLWARD", b"URLWARE\n" + bytes(300), b"<!doctype html>", bytes(1000)])
def test_not_ours(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="magic"):
        parse(data)


def test_a_newer_version() -> None:
    data = bytearray(golden())
    data[8:10] = (VERSION + 1).to_bytes(2, "little")
    for forged in (bytes(data), repaired(bytes(data))):
        text = f"format version {VERSION + 1}, this release reads up to {VERSION}: update urlward"
        with pytest.raises(ArtifactError, match=text):
            parse(forged)


def test_truncated_at_every_length() -> None:
    data = golden()
    for length in range(len(data)):
        expected = HEADER_SIZE if length < HEADER_SIZE else len(data)
        text = "not a .ward file" if length < 8 else f"^{length} bytes where the header says {expected}"
        with pytest.raises(ArtifactError, match=text):
            parse(data[:length])


def test_longer_than_it_says() -> None:
    with pytest.raises(ArtifactError, match="bytes where the header says"):
        parse(golden() + b"\0")


@each_row("mask", [0x01, 0x80, 0xFF])
def test_any_changed_byte(mask: int) -> None:
    data = bytearray(golden())
    for at in range(len(data)):
        data[at] ^= mask
        expected = "damaged"
        if 8 <= at < 10 and int.from_bytes(data[8:10], "little") > VERSION:
            expected = "newer-version"
        elif 16 <= at < 24:
            expected = "truncated"
        with pytest.raises(ArtifactError) as caught:
            parse(bytes(data))
        assert caught.value.reason == expected
        data[at] ^= mask


def test_another_key() -> None:
    text = f"compiled under key {Key(SECRET).id.hex()}, the key given is {Key(OTHER_SECRET).id.hex()}"
    with pytest.raises(ArtifactError, match=text):
        load(golden(), Key(OTHER_SECRET))
    check_key(parse(golden()).header, Key(SECRET))


@each_row(
    ("at", "content"),
    [
        (slice(8, 10), b"\0\0"),
        (slice(10, 12), b"\0\0"),
        (slice(12, 16), b"\0\0\0\0"),
        (slice(12, 16), b"\xff\xff\xff\xff"),
        (slice(HEADER_SIZE, HEADER_SIZE + 8), b"\xff" * 8),
        (slice(HEADER_SIZE, HEADER_SIZE + 8), b"\0" * 8),
        (slice(HEADER_SIZE + 8 * 13, HEADER_SIZE + 8 * 14), b"\0" * 8),
        (slice(112, 176), b"\1" * 64),
    ],
)
def test_a_header_that_contradicts_itself(at: slice, content: bytes) -> None:
    data = bytearray(golden())
    data[at] = content
    with pytest.raises(ArtifactError):
        parse(repaired(bytes(data)))


@each_row(
    "change",
    [
        *[{"shape_bytes": value} for value in (0, 3, 4, None, "2", [2])],
        *[{"floating_row": value} for value in (-1, 10**9, 1.5, True, None, "1", [])],
        *[{"floating_pattern": value} for value in (-1, 0, 1, 10**9, 1.5, None)],
        *[{"entries": value} for value in (-1, 10**9, None, "1")],
        *[{"prefixes4": value} for value in ([33], [-1], [1.5], None, "24", ["24"])],
        *[{"prefixes6": value} for value in ([129], [None], {"1": 1})],
        *[{"categories": value} for value in ([], [1], None, ["", "a", 3])],
        *[
            {"shapes": value}
            for value in ([], [[1]], [[1, 0, 0, 0]], None, [None], [["1", 0, 0, 0, 0]], [[10] * 5])
        ],
        *[{"shapes": [[kind, 0, 9, 0, 0]] * 20} for kind in (1, 5)],
        *[{"name": value} for value in (None, 1, ["a"], "a\nb", "\x1b[31m", "a\ud800")],
        {"categories": ["", "a\n2027-01-01T00:00:00.000Z block"]},
        {"by_category": {"a\nb": 1}},
        *[{"counts": value} for value in (None, [])],
        *[{"by_category": value} for value in (None, [])],
    ],
)
def test_a_meta_section_that_lies(change: dict[str, object]) -> None:
    data = golden()
    meta = json.dumps(parse(data).meta | change).encode()
    with pytest.raises(ArtifactError):
        load(forge(data, {Section.META: meta}), Key(SECRET))


@each_row(
    "meta", [b"", b"{", b"{}", b"[]", b"1", b'"a"', b"null", b"\xff", b"[" * 200_000, b'{"name":' * 100_000]
)
def test_a_meta_section_that_is_none(meta: bytes) -> None:
    with pytest.raises(ArtifactError):
        load(forge(golden(), {Section.META: meta}), Key(SECRET))


ROWS = len(parse(golden()).sections[Section.LENGTHS]) // 2


@each_row(
    ("section", "content"),
    [
        (Section.SHAPES, b"\xff\xff" * ROWS),
        (Section.IDS, b"\xff" * 40),
        (Section.IDS, b"a\n" * 20),
        (Section.IDS, b"\x1b[3" * 10),
        (Section.SHARED, b"\xff" * len(parse(golden()).sections[Section.SHARED])),
        (Section.ADDED, b"\0" * len(parse(golden()).sections[Section.ADDED])),
        (Section.ADDED, b"\xff" * len(parse(golden()).sections[Section.ADDED])),
        (Section.LETTERS, b""),
        (Section.LETTERS, b"\xff"),
        (Section.LETTERS, "\ud800".encode("utf-8", "surrogatepass")),
        (Section.LETTERS, b"a" * 10_000),
        (Section.GROUPS, b""),
        (Section.GROUPS, bytes(8)),
        (Section.GROUPS, bytes(4) + b"\xff" * 4),
        (Section.GROUPS, (5).to_bytes(4, "little") + (2).to_bytes(4, "little")),
        (Section.PARAM_ROWS, b"\xff" * 8),
        (Section.PARAM_ROWS, bytes(4) + b"\xff\xff\xff\x7f"),
        (Section.PARAMS, b""),
    ],
)
def test_a_section_that_contradicts_another(section: Section, content: bytes) -> None:
    with pytest.raises(ArtifactError):
        load(forge(golden(), {section: content}), Key(SECRET))


@each_row("letters", [1, 255, 256, 60_000])
def test_a_trie_too_deep_for_the_stack_is_refused(letters: int) -> None:
    """What pyahocorasick frees by recursion must not be as deep as a forger likes."""
    count = -(-letters // 255)
    meta = parse(golden()).meta | {"floating_pattern": count}
    forged = {
        Section.META: json.dumps(meta).encode(),
        Section.SHARED: bytes(min(255, 255 * n) for n in range(count)),
        Section.ADDED: b"\xff" * count,
        Section.LETTERS: b"a" * 255 * count,
    }
    data = forge(golden(), forged)
    with pytest.raises(ArtifactError):
        load(data, Key(SECRET))


@given(
    st.sampled_from([s for s in Section if s is not Section.META]),
    st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.integers(0, 9),
            st.sampled_from(
                [b"", b"\0", b"\1", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xc4\x80", b"ab"]
            ),
        ),
        min_size=1,
        max_size=4,
    ),
)
@examples(700)
def test_forged_sections_load_and_work_or_are_damaged(
    section: Section, changes: list[tuple[float, int, bytes]]
) -> None:
    data = with_files()
    content = bytearray(parse(data).sections[section])
    for where, removed, added in changes:
        at = int(where * (len(content) + 1))
        content[at : at + removed] = added
    try:
        use(forge(data, {section: bytes(content)}))
    except ArtifactError:
        return


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats() | st.sampled_from(["", "a", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=12,
)


META = parse(build([file_line("md5", 1)], Key(SECRET))).meta


@given(
    st.dictionaries(st.sampled_from(sorted(META)), JSON, max_size=2),
    st.dictionaries(st.sampled_from(sorted(META["files"])), JSON, max_size=2),
)
@examples(500)
def test_forged_meta_sections_load_and_work_or_are_damaged(
    change: dict[str, object], of_files: dict[str, object]
) -> None:
    meta = parse(with_files()).meta
    lie = meta | {"files": meta["files"] | of_files} | change
    try:
        use(forge(with_files(), {Section.META: json.dumps(lie).encode()}))
    except ArtifactError:
        return


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda b: b"URLWARD\n\1\0" + b))
@examples(300)
def test_any_bytes_are_an_artifact_or_an_artifact_error(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        parse(data)
