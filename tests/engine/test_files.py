"""Digests of files: in an artifact, looked up, and compared."""

import json
import mmap
from collections.abc import Mapping
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import (
    CREATED,
    OTHER_SECRET,
    SECRET,
    build,
    compile_lines,
    digest,
    examples,
    file_line,
    key,
    load_lines,
    matcher,
)
from engine.test_artifact import LINES, forge
from rows import each_row
from urlward.engine import table as engine_table
from urlward.engine.artifact import ALWAYS, Section, dump, parse
from urlward.engine.compiler import FilePool
from urlward.engine.delta import changes
from urlward.engine.digest import Key, mark_of
from urlward.engine.entry import ALGORITHMS, PDQ
from urlward.engine.errors import ArtifactError
from urlward.engine.loaded import load
from urlward.engine.matcher import EXACT, Matcher
from urlward.engine.perceptual import PerceptualList
from urlward.engine.record import DAY
from urlward.engine.table import file_table, perceptual_list
from urlward.engine.verdict import PASS, Verdict

FILES = [
    *(file_line("sha256", n, id=f"s{n}", category="csam") for n in range(20)),
    *(file_line("sha1", n, id=f"t{n}") for n in range(3)),
    file_line("md5", 0, expires="2027-01-31"),
    *(file_line("pdq", n, id=f"p{n}", distance=10 * n) for n in range(4)),
    f"@@{file_line('md5', 7, id='free')}",
    f"@@{file_line('pdq', 2, id='unlike')}",
]
GOLDEN_CHECKSUM = "ef190494dd02bd7c18bcc9db339db8dc"


def files() -> bytes:
    return build([*LINES, *FILES], key(), "files")


def flipped(content: bytes, bits: int) -> bytes:
    """A digest that differs in so many bits."""
    return (int.from_bytes(content, "big") ^ ((1 << bits) - 1)).to_bytes(len(content), "big")


# -- the artifact


def test_a_list_without_files_has_no_section_more() -> None:
    plain = parse(build(LINES, key()))
    assert len(plain.sections) == ALWAYS
    assert "files" not in plain.meta
    assert load(build(LINES, key()), key()).files is None


def test_a_list_with_files_says_how_many_of_what() -> None:
    artifact = parse(files())
    assert len(artifact.sections) == len(Section)
    assert artifact.entries == len(LINES) + len(FILES)
    assert (artifact.meta["counts"]["file"], artifact.meta["counts"]["allow file"]) == (len(FILES) - 2, 2)
    assert artifact.meta["by_category"]["csam"] == 20
    assert artifact.meta["files"]["rows"] == [25, 4, 1]
    assert artifact.meta["files"]["algorithms"] == {
        "md5": [1, 1], "pdq": [4, 1], "sha1": [3, 0], "sha256": [20, 0]
    }  # fmt: skip


def test_the_format_does_not_drift() -> None:
    assert parse(files()).header.checksum.hex() == GOLDEN_CHECKSUM, (
        "The same list no longer gives the same artifact. If older releases cannot read the new bytes, raise "
        "artifact.VERSION. Either way write the new checksum here."
    )


def test_the_same_entries_in_any_order_give_the_same_bytes() -> None:
    assert build([*LINES[::-1], *FILES[::-1]], key(), "files") == files()


def test_releases_that_know_no_files_read_the_rest() -> None:
    """What they check: fifteen sections or more, no more entries than rows, and kinds that they know."""
    artifact = parse(files())
    rows = len(artifact.sections[Section.DIGESTS]) // 16
    assert len(artifact.sections) >= 15
    assert artifact.meta["entries"] == len(LINES) <= rows
    assert all(shape[0] <= 9 for shape in artifact.meta["shapes"])


def test_equal_entries_are_one_and_have_the_last_id() -> None:
    lines = [file_line("sha256", 1, id=one) for one in ("b", "a", "c")]
    compiled = compile_lines([*lines, file_line("sha256", 1, category="x"), file_line("pdq", 1)], key())
    assert compiled.duplicates == 2
    assert compiled.counts == {"file": 3}
    loaded = load(dump(compiled, key(), name="list", serial=1, created=CREATED), key())
    found = Matcher([loaded]).check_file({"sha256": digest("sha256", 1)})
    assert found.entry == "c"


def test_a_list_of_nothing_but_files() -> None:
    loaded = load_lines([file_line("md5", 1)], key())
    assert loaded.entries == 1
    assert Matcher([loaded]).check("any.test", "/") is PASS
    assert list(loaded.release()) == []


def test_a_list_that_is_released_holds_no_byte_of_its_artifact() -> None:
    """Matchers live on for a while, in cycles that nobody may look at."""
    with mmap.mmap(-1, len(files())) as mapped:
        mapped.write(files())
        loaded = load(mapped, key())
        found = Matcher([loaded])
        assert found.check_file({"sha256": digest("sha256", 3)}).blocked
        pictures = found.perceptual()
        for _ in loaded.release():
            pass
        assert not hasattr(loaded, "sieve"), "what is freed last is given back only with the next list"
        mapped.close()  # raises where anything still refers to it
    assert len(pictures[0].rows) == 4


def test_changes_between_two_lists_count_files() -> None:
    old, new = build(FILES[:-5], key()), build(FILES[1:-2], key())
    assert changes(parse(old), parse(new)) == (3, 1)


# -- what is listed


def test_a_file_is_found_by_any_of_its_digests() -> None:
    check = matcher(*FILES).check_file
    found = check({"sha256": digest("sha256", 3), "md5": digest("md5", 90)})
    assert (found.action, found.kind, found.entry, found.category) == ("block", "file", "s3", "csam")
    assert found.algorithm == "sha256"
    assert check({"sha1": digest("sha1", 2), "sha256": digest("sha256", 90)}).algorithm == "sha1"
    assert check({"md5": digest("md5", 0)}).entry == key().digest(f"smd5:{digest('md5', 0).hex()}")[:8].hex()
    assert check({"sha256": digest("sha256", 90), "sha1": digest("sha1", 90)}) is PASS
    assert check({}) is PASS


def test_a_digest_says_nothing_under_another_algorithm_or_length() -> None:
    check = matcher(*FILES).check_file
    for algorithm in EXACT:
        for other in ALGORITHMS:
            if other != algorithm:
                assert check({algorithm: digest(other, 0)[: ALGORITHMS[algorithm]]}) is PASS
        assert check({algorithm: b""}) is PASS
        assert check({algorithm: digest(algorithm, 0) + b"\0"}) is PASS


def test_what_says_most_of_a_file_is_told() -> None:
    check = matcher(
        file_line("md5", 1, id="m"), file_line("sha256", 1, id="s"), file_line("sha1", 1)
    ).check_file
    digests = {name: digest(name, 1) for name in EXACT}
    assert check(digests).entry == "s"
    assert [check({name: digests[name]}).algorithm for name in EXACT] == list(EXACT)


def test_algorithms_that_need_to_be_computed() -> None:
    assert matcher(*LINES).file_algorithms == frozenset()
    assert matcher(*FILES).file_algorithms == {"md5", "sha1", "sha256", PDQ}
    assert matcher(f"@@{file_line('md5', 1)}").file_algorithms == frozenset()
    assert matcher(a=[file_line("md5", 1)], b=[file_line("sha1", 1)]).file_algorithms == {"md5", "sha1"}


def test_other_entries_have_no_algorithm() -> None:
    verdict = matcher("a.test").check("a.test", "/")
    assert verdict.blocked
    assert verdict.algorithm == ""


def test_an_exception_excuses_one_digest() -> None:
    both = {"sha256": digest("sha256", 1), "md5": digest("md5", 1)}
    listed = [file_line("sha256", 1), file_line("md5", 1)]
    found = matcher(feed=listed, own=[f"@@{file_line('md5', 1)}"])
    assert found.check_file({"md5": both["md5"]}).action == "allow"
    assert found.check_file(both).algorithm == "sha256"
    assert found.check_file(both).blocked
    found = matcher(feed=listed, own=[f"@@{file_line('md5', 1)}", f"@@{file_line('sha256', 1)}"])
    assert found.check_file(both).action == "allow"


def test_an_exception_of_a_guarded_list_counts_against_itself_alone() -> None:
    mine = load(build([f"@@{file_line('md5', 1)}"], key(), "feed"), key(), guarded=True)
    other = load(build([file_line("md5", 1)], key(), "other"), key())
    assert Matcher([mine, other]).check_file({"md5": digest("md5", 1)}).blocked
    assert Matcher([mine]).check_file({"md5": digest("md5", 1)}).action == "allow"


def test_an_entry_that_has_expired() -> None:
    found = matcher(*FILES)
    last = (date(2027, 1, 31) - date(1970, 1, 1)).days * DAY
    assert found.check_file({"md5": digest("md5", 0)}, last).blocked
    assert found.check_file({"md5": digest("md5", 0)}, last + DAY) is PASS
    assert [found.lists[0].expired(now) for now in (last, last + DAY)] == [0, 1]


def test_who_decides_is_asked_of_each_digest_that_is_listed() -> None:
    asked: list[list[Verdict]] = []

    def monitor(found: list[Verdict]) -> Verdict:
        asked.append(found)
        return found[0]._replace(action="monitor")

    check = matcher(*FILES).check_file
    digests = {"sha256": digest("sha256", 1), "sha1": digest("sha1", 1)}
    assert check(digests, decide=monitor) == asked[0][0]._replace(action="monitor")
    assert [[one.entry for one in found] for found in asked] == [["s1"], ["t1"]]
    assert check({"sha256": digest("sha256", 90)}, decide=monitor) is PASS
    assert len(asked) == 2


def test_lists_under_several_keys() -> None:
    one = load_lines([file_line("md5", 1), file_line("pdq", 1)], key(), "one")
    two = load_lines([file_line("md5", 2), file_line("pdq", 2)], Key(OTHER_SECRET), "two")
    found = Matcher([one, two])
    assert [found.check_file({"md5": digest("md5", n)}).list for n in (1, 2)] == ["one", "two"]
    assert [each.name for each in found.perceptual()] == ["one", "two"]


@each_row("count", [1, 2, 3, 100, 5000])
def test_every_row_is_found_and_nothing_else(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_table, "_NEAR", 2)  # so that some buckets have more
    found = matcher(*(file_line("sha1", n, id=n) for n in range(count)))
    for n in range(0, count, max(count // 50, 1)):
        assert found.check_file({"sha1": digest("sha1", n)}).entry == str(n)
        assert found.check_file({"sha1": digest("sha1", count + n)}) is PASS


# -- against entries in plain text, each tried on each file


@st.composite
def listings(draw: st.DrawFn) -> list[list[tuple[str, int, bool, int, str]]]:
    """Two lists of entries: algorithm, number of the file, whether it excuses, last day, id."""
    entry = st.tuples(
        st.sampled_from(["sha256", "sha1", "md5", PDQ]),
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from([0, 5]),
    )
    return [
        [(*one, f"{name}{n}") for n, one in enumerate(draw(st.lists(entry, max_size=12)))] for name in "ab"
    ]


def line_of(entry: tuple[str, int, bool, int, str]) -> str:
    algorithm, number, excuses, last, id_ = entry
    more = {"id": id_} | ({"expires": date(1970, 1, 1 + last)} if last else {})
    return ("@@" if excuses else "") + file_line(algorithm, number, **more)


@given(listings(), st.dictionaries(st.sampled_from(EXACT), st.integers(0, 6)), st.sampled_from([0, 5, 6]))
@examples(400)
def test_a_file_has_the_verdict_that_its_entries_say(
    listed: list[list[tuple[str, int, bool, int, str]]], file: dict[str, int], day: int
) -> None:
    lists = [
        load(build(map(line_of, entries), under, name), under)
        for entries, name, under in zip(listed, "ab", (key(), Key(OTHER_SECRET)), strict=True)
    ]
    found = Matcher(lists)
    entries = [entry for some in listed for entry in some if not entry[3] or day <= entry[3]]

    def actions(algorithm: str, number: int) -> set[bool]:
        return {excuses for name, of, excuses, *_ in entries if (name, of) == (algorithm, number)}

    said = [actions(*digest_of) for digest_of in file.items()]
    expected = "block" if {False} in said else "allow" if any(said) else "pass"
    digests = {algorithm: digest(algorithm, number) for algorithm, number in file.items()}
    verdict = found.check_file(digests, day * DAY)
    assert verdict.action == expected
    if verdict.action != "pass":
        assert verdict.entry in {
            e[4] for e in entries if e[:2] == (verdict.algorithm, file[verdict.algorithm])
        }
    for pictures in found.perceptual():
        for row, _ in pictures.near(digest(PDQ, 1)):
            here = [e for e in listed["ab".index(pictures.name)] if e[:3] == (PDQ, 1, False)]
            counts = any(not e[3] or day <= e[3] for e in here)
            expected = "pass" if not counts else "allow" if True in actions(PDQ, 1) else "block"
            assert found.file_verdict(pictures.name, row, day * DAY).action == expected


# -- pictures


def near(found: PerceptualList, content: bytes) -> list[int]:
    return [distance for _, distance in found.near(content)]


def test_listed_pictures_come_out_as_they_were_listed() -> None:
    [found] = matcher(*LINES, *FILES).perceptual()
    assert (found.name, found.serial, len(found.rows)) == ("list", 1, 4)
    digests = [found.digests[at : at + 32] for at in range(0, len(found.digests), 32)]
    assert dict(zip(digests, found.distances, strict=True)) == {digest(PDQ, n): 10 * n for n in range(4)}
    for bits in (0, 1, 30, 31):
        assert near(found, flipped(digest(PDQ, 3), bits)) == ([bits] if bits <= 30 else [])


def test_the_same_of_an_artifact_that_is_not_loaded() -> None:
    [found] = matcher(*FILES).perceptual()
    artifact = parse(build(FILES, key()))
    assert perceptual_list(artifact, key()) == found
    for lines in (LINES, FILES[:10], [f"@@{file_line('pdq', 1)}"]):
        assert perceptual_list(parse(build(lines, key())), key()) is None
        assert matcher(*lines).perceptual() == []


def test_a_picture_has_the_verdict_of_the_entry_that_it_is_like() -> None:
    found = matcher(*FILES)
    [pictures] = found.perceptual()
    verdicts = {}
    for n in range(4):
        [(row, distance)] = pictures.near(digest(PDQ, n))
        verdicts[n] = found.file_verdict("list", row, distance=distance)
    assert [verdicts[n].entry for n in range(4)] == ["p0", "p1", "unlike", "p3"]
    assert [verdicts[n].action for n in range(4)] == ["block", "block", "allow", "block"]
    assert verdicts[0].algorithm == PDQ
    assert verdicts[0].kind == "file"


def test_what_a_picture_is_like_is_told_as_by_any_issue_of_the_list() -> None:
    before, after = matcher(*FILES), matcher(file_line(PDQ, 77), *FILES[:-1])
    [pictures] = before.perceptual()
    [(row, _)] = pictures.near(digest(PDQ, 3))
    assert before.file_verdict("list", row).entry == after.file_verdict("list", row).entry == "p3"
    assert matcher(*FILES[:-4]).file_verdict("list", row) is PASS
    assert before.file_verdict("another", row) is PASS


def test_of_two_entries_of_one_digest_those_count_that_ask_for_no_less() -> None:
    found = matcher(
        file_line(PDQ, 1, id="a", distance=5), file_line(PDQ, 1, id="b", category="x", distance=20)
    )
    [pictures] = found.perceptual()
    [(row, _)] = pictures.near(flipped(digest(PDQ, 1), 9))
    assert found.file_verdict("list", row, distance=9).entry == "b"
    seen: list[str] = []

    def note(verdicts: list[Verdict]) -> Verdict:
        seen.extend(sorted(verdict.entry for verdict in verdicts))
        return verdicts[0]

    assert found.file_verdict("list", row, 0.0, note, distance=5).blocked
    assert seen == ["a", "b"]
    assert found.file_verdict("list", row, distance=21) is PASS


def test_an_exception_under_another_key_excuses_the_listed_digest_and_no_other() -> None:
    feed = load_lines([file_line(PDQ, 1, id="p1"), file_line(PDQ, 2, id="p2")], Key(OTHER_SECRET), "feed")
    own = load_lines([f"@@{file_line(PDQ, 1)}"], key(), "own")
    found = Matcher([feed, own])
    [pictures] = found.perceptual()
    rows = {n: next(pictures.near(flipped(digest(PDQ, n), 8)))[0] for n in (1, 2)}
    assert found.file_verdict("feed", rows[1]).action == "allow"
    assert found.file_verdict("feed", rows[2]).blocked


def test_pictures_beyond_one_sealed_block() -> None:
    count = 3000
    lines = [file_line(PDQ, n, id=n, distance=n % 64) for n in range(count)]
    loaded = load_lines(lines, key())
    assert loaded.files is not None
    found = Matcher([loaded])
    [pictures] = found.perceptual()
    by_digest = {pictures.digests[32 * n : 32 * n + 32]: n for n in range(count)}
    for n in (0, 1, 1023, 1024, count - 1):
        at = by_digest[digest(PDQ, n)]
        assert pictures.distances[at] == n % 64
        assert found.file_verdict("list", pictures.rows[at]).entry == str(n)
        assert loaded.files.listed(key(), at) == (digest(PDQ, n), n % 64)


# -- nothing in plain text


def test_no_digest_is_in_the_artifact_as_it_is() -> None:
    data = files()
    for algorithm in ALGORITHMS:
        for n in range(20):
            content = digest(algorithm, n)
            for form in (content, content[:8], content.hex().encode(), content[::-1][:8]):
                assert form not in data


def test_pictures_open_under_the_key_alone() -> None:
    table = file_table(parse(files()))
    assert table is not None
    with pytest.raises(ArtifactError):
        table.perceptual(Key(OTHER_SECRET), "list", 1)
    with pytest.raises(ArtifactError):
        table.listed(Key(OTHER_SECRET), table.rows - 3)


# -- each way to be wrong


@each_row(
    "change",
    [
        *[
            {"rows": value}
            for value in ([], [25, 4], [25, 4, 1, 0], [25, 4, 2], [26, 3, 1], [-1, 30, 1], None)
        ],
        *[{"shape_bytes": value} for value in (0, 3, None, "2")],
        *[{"shapes": value} for value in (None, [], [[1]], [[10, 0, 99, 0, 0]], [[5, 0, 0, 0, 0]] * 5)],
        *[{"algorithms": value} for value in (None, [], {"a\nb": [1, 0]}, {"md5": 1}, {"md5": [1]})],
        {"algorithms": {"md5": [-1, 0]}},
    ],
)
def test_what_is_said_of_files_lies(change: Mapping[str, object]) -> None:
    data = files()
    meta = parse(data).meta
    lie = json.dumps(meta | {"files": meta["files"] | change}).encode()
    with pytest.raises(ArtifactError):
        load(forge(data, {Section.META: lie}), Key(SECRET))


@each_row("value", [None, 1, [], {}, "a"])
def test_what_is_said_of_files_is_none(value: object) -> None:
    data = files()
    meta = json.dumps(parse(data).meta | {"files": value}).encode()
    with pytest.raises(ArtifactError):
        load(forge(data, {Section.META: meta}), Key(SECRET))


def test_files_are_said_and_have_no_section() -> None:
    data = build(LINES, key())
    meta = json.dumps(parse(data).meta | {"files": parse(files()).meta["files"]}).encode()
    with pytest.raises(ArtifactError):
        load(forge(data, {Section.META: meta}), Key(SECRET))


SECTIONS = parse(files()).sections


@each_row(
    ("section", "content"),
    [
        (Section.FILES, bytes(SECTIONS[Section.FILES])[::-1]),
        (Section.FILES, bytes(SECTIONS[Section.FILES])[16:]),
        (Section.FILE_SHAPES, b"\xff" * len(SECTIONS[Section.FILE_SHAPES])),
        (Section.FILE_IDS, b"\x1b" * len(SECTIONS[Section.FILE_IDS])),
        (Section.FILE_ID_ENDS, b"\xff" * 3),
        (Section.PERCEPTUAL, bytes(SECTIONS[Section.PERCEPTUAL])[1:]),
    ],
)
def test_a_section_of_files_that_makes_no_sense(section: Section, content: bytes) -> None:
    with pytest.raises(ArtifactError):
        load(forge(files(), {section: content}), key())


def test_rows_of_pages_are_of_no_file() -> None:
    data = build(LINES, key())
    meta = parse(data).meta
    shapes = [[10, *shape[1:]] for shape in meta["shapes"]]
    with pytest.raises(ArtifactError):
        load(forge(data, {Section.META: json.dumps(meta | {"shapes": shapes}).encode()}), key())


def test_pools_are_as_the_artifact_has_them() -> None:
    table = file_table(parse(files()))
    assert table is not None
    for algorithm, number, pools in (
        (PDQ, 0, {FilePool.LISTED}),
        (PDQ, 2, {FilePool.LISTED, FilePool.EXCUSED}),
        ("md5", 7, {FilePool.EXACT}),
    ):
        keyed = key().digest(f"s{algorithm}:{digest(algorithm, number).hex()}")
        assert {pool for pool in FilePool if table.marked(pool, mark_of(keyed))} == pools
        assert bool(table.exact(keyed)) == (FilePool.EXACT in pools)
