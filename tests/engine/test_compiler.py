import random
from itertools import pairwise

import pytest

from engine.support import build, compile_lines, key, load_lines, matcher, rows_of
from rows import each_row
from urlward.engine.compiler import BUCKET, MAX_PATTERN, MOST_ALIKE, Compiler
from urlward.engine.delta import changes
from urlward.engine.digest import SEGMENT_LETTERS
from urlward.engine.errors import UrlwardError
from urlward.engine.grammar import parse_line
from urlward.engine.record import MARKER, PatternSet

LINES = [
    "example.test id=1",
    "||deep.example.test^ category=phishing",
    "0.0.0.0 host.example.test",
    "http://example.test/a category=malware",
    "http://example.test/a?x=1&y=2 category=malware",
    "http://example.test/a?x=1",
    "http://example.test/dir/* subdomains",
    "example.*",
    "*/gallery/one-two/*",
    "*/gallery/*",
    "192.0.2.7",
    "192.0.2.0/24",
    "[2001:db8::7]",
    "2001:db8::/32",
    "@@example.test",
    "@@http://example.test/a",
]


def test_counts() -> None:
    compiled = compile_lines(LINES, key())
    assert dict(compiled.counts) == {
        "domain": 2,
        "host": 1,
        "page": 1,
        "params": 2,
        "prefix": 1,
        "name": 1,
        "path": 2,
        "address": 2,
        "network": 2,
        "allow domain": 1,
        "allow page": 1,
    }
    assert dict(compiled.by_category) == {"": 13, "phishing": 1, "malware": 2}
    assert compiled.categories[0] == ""
    assert compiled.networks == ["192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32", "2001:db8::7/128"]
    assert compiled.duplicates == 0


def test_a_page_that_is_also_asked_for_by_its_number_is_one_entry() -> None:
    line = "http://example.test/t/a-title/5"
    compiled = compile_lines([line, line], key())
    assert (compiled.counts, compiled.duplicates) == ({"page": 1}, 1)
    found = [matcher(line).check("example.test", target) for target in ("/t/a-title/5", "/t/5.json")]
    assert found[0].blocked
    assert found[0] == found[1]
    ending = load_lines([f"{line} expires=2030-01-01"], key())
    assert (ending.entries, ending.expired(4e9)) == (1, 1)
    assert changes(load_lines([], key()).artifact, ending.artifact) == (1, 0)


def test_length_counts_what_was_taken() -> None:
    compiler = Compiler(key())
    for number, line in enumerate(LINES):
        assert len(compiler) == number
        for entry in parse_line(line):
            compiler.add(entry)


@each_row(
    ("line", "twin"),
    [
        *[(line, line) for line in LINES],
        ("example.test", "||EXAMPLE.Test.^"),
        ("0.0.0.0 example.test", "127.0.0.1 example.test"),
        ("http://example.test/a", "https://www.example.test:443/x/../%61#b"),
        ("http://example.test/a?x=1&y=2", "http://example.test/a?y=2&x=%31&&y=2"),
        ("http://example.test/A nocase", "http://example.test/a nocase"),
        ("http://example.test:81/a", "http://example.test/a port=81"),
        ("*/a/*", "*/%61/./*"),
        ("192.0.2.7", "0xc0000207."),
        ("[2001:db8::7]", "2001:db8:0::7/128"),
        ("example.test category=a", "example.test note=b category=A"),
    ],
)
def test_an_equal_entry_is_left_out_whatever_its_spelling(line: str, twin: str) -> None:
    compiled = compile_lines([line, twin, line], key())
    assert compiled.duplicates == 2
    assert sum(compiled.counts.values()) == 1


@each_row(
    "other",
    [
        "@@http://example.test/a?x=1&y=2",
        "http://example.test/a?x=1",
        "http://example.test/a?x=1&y=3",
        "http://example.test/a?x=1&y=2&z=3",
        "http://example.test/a?x=1&y=2 port=80",
        "http://example.test/a?x=1&y=2 category=phishing",
        "http://example.test/a?x=1&y=2 expires=2027-01-31",
        "http://example.test/a?x=1&y=2 nocase",
        "http://example.test/a?x=1&y=2 subdomains",
        "http://example.test/a",
        "http://example.test/a/*",
        "0.0.0.0 example.test",
        "example.test",
    ],
)
def test_entries_that_differ_are_both_kept(other: str) -> None:
    compiled = compile_lines(["http://example.test/a?x=1&y=2", other], key())
    assert compiled.duplicates == 0
    assert sum(compiled.counts.values()) == 2


@each_row("text", ["example.test", "http://example.test/a", "192.0.2.0/24", "*/a/b/*"])
def test_very_many_entries_of_one_text_are_refused(text: str) -> None:
    lines = [f"{text} category=c{n}" for n in range(MOST_ALIKE)]
    assert compile_lines([*lines, *lines], key()).counts.total() == MOST_ALIKE
    with pytest.raises(UrlwardError, match="differ by attributes alone"):
        compile_lines([*lines, f"{text} category=more"], key())


def test_any_number_of_entries_may_share_a_parameter() -> None:
    lines = [f"http://example.test/a?x={a}&y={b}" for a in range(2) for b in range(MOST_ALIKE + 1)]
    compile_lines(lines, key())


def test_of_equal_entries_one_with_an_id_is_kept() -> None:
    for lines in (["example.test", "example.test id=7"], ["example.test id=7", "example.test"]):
        compiled = compile_lines(lines, key())
        assert [row.id for row in rows_of(compiled.rows[PatternSet.ANCHORED])] == ["7"]


def test_equal_parameter_entries_are_found_between_others() -> None:
    lines = [f"http://example.test/?x=1&y={n % 2} id={n}" for n in range(4)]
    compiled = compile_lines(lines, key())
    assert compiled.duplicates == 2
    assert {row.id for row in rows_of(compiled.rows[PatternSet.ANCHORED])} == {"2", "3"}


def test_the_order_of_entries_changes_nothing() -> None:
    """To the byte: what differs little then makes artifacts, and deltas, that differ little."""
    assert build(random.Random(1).sample(LINES, len(LINES)), key()) == build(LINES, key())


def test_entries_of_one_text_are_in_the_order_of_their_shapes() -> None:
    attributes = ["category=b", "category=a", "", "port=81", "expires=2027-01-01 category=b", "nocase"]
    lines = [f"http://{host}.test/a {more}" for host in "xyz" for more in attributes]
    whole = build(lines, key())
    assert build(lines[::-1], key()) == whole
    assert build(random.Random(2).sample(lines, len(lines)), key()) == whole
    compiled = compile_lines(lines, key())
    assert compiled.categories == ["", "a", "b"]
    assert compiled.shapes == sorted(compiled.shapes)
    rows = rows_of(compiled.rows[PatternSet.ANCHORED])
    starts = compiled.patterns[PatternSet.ANCHORED].rows
    for start, end in pairwise((*starts, len(rows))):
        assert rows[start:end] == sorted(rows[start:end])


def test_a_marker_stands_for_subdomains_and_is_no_entry() -> None:
    compiled = compile_lines([f"http://example.test/{n} subdomains" for n in range(3)], key())
    kinds = [compiled.shapes[row.shape].kind for row in rows_of(compiled.rows[PatternSet.ANCHORED])]
    assert kinds.count(MARKER) == 1
    assert sum(compiled.counts.values()) == 3
    assert compiled.by_category == {"": 3}


# -- patterns


def test_rows_are_sorted_and_patterns_tell_them_apart() -> None:
    lines = [f"http://h{n % 50}.test/{'/'.join(str(n))}" for n in range(500)] + LINES
    compiled = compile_lines(lines, key())
    for pool, rows, patterns in zip(PatternSet, map(rows_of, compiled.rows), compiled.patterns, strict=True):
        assert [p.letters for p in patterns] == sorted({p.letters for p in patterns})
        ends = [*patterns.rows[1:], len(rows)]
        before = ""
        for pattern, end in zip(patterns, ends, strict=True):
            group = rows[pattern.row : end]
            assert group == sorted(group)
            # More have the same letters, as those on one host.
            assert len({row.below for row in group}) == 1 or len(group) <= BUCKET
            assert len(group) == 1 or pool is PatternSet.ANCHORED
            shared = pattern.shared
            assert before[:shared] == pattern.letters[:shared]
            assert before[shared : shared + 1] != pattern.letters[shared : shared + 1]
            before = pattern.letters
            if pool is PatternSet.FLOATING:
                assert len(pattern.letters) % SEGMENT_LETTERS == 0


def test_patterns_stay_short_and_rows_that_share_one_are_sorted_by_digest() -> None:
    """A trie deeper than MAX_PATTERN could overflow the stack when it is freed."""
    lines = [f"http://example.test{'/a' * 200}/{n}" for n in range(50)] + [
        f"*{'/b' * 200}/{n}/*" for n in range(50)
    ]
    lines += [f"{'c.' * 200}{n}.test" for n in range(3)] + [f"{n}.{'d.' * 200}test" for n in range(50)]
    compiled = compile_lines(lines, key())
    groups = 0
    for rows, patterns in zip(map(rows_of, compiled.rows), compiled.patterns, strict=True):
        ends = [*patterns.rows[1:], len(rows)]
        for pattern, end in zip(patterns, ends, strict=True):
            assert 0 < len(pattern.letters) <= MAX_PATTERN
            digests = [row.digest for row in rows[pattern.row : end]]
            assert digests == sorted(digests)
            groups += len(digests) == 50
    assert groups == 3


def test_the_rarest_parameter_finds_an_entry() -> None:
    lines = [f"http://example.test/?all=1&id={n}&view=1" for n in range(20)]
    compiled = compile_lines(lines, key())
    digests = {row.digest for row in rows_of(compiled.rows[PatternSet.ANCHORED])}
    assert len(digests) == 20
    assert {len(row.more) for row in rows_of(compiled.rows[PatternSet.ANCHORED])} == {2}
    assert len({tuple(row.more) for row in rows_of(compiled.rows[PatternSet.ANCHORED])}) == 1


def test_progress_ends_with_the_number_of_rows() -> None:
    compiler = Compiler(key())
    for n in range(20_000):
        for entry in parse_line(f"h{n}.test"):
            compiler.add(entry)
    seen: list[int] = []
    compiler.finish(seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 20_000
    assert len(seen) > 2


def test_an_empty_list_compiles() -> None:
    compiled = compile_lines([], key())
    assert [len(rows) for rows in compiled.rows] == [0, 0]
    assert [len(patterns) for patterns in compiled.patterns] == [0, 0]
    assert compiled.counts == {}
