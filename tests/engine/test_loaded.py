from collections.abc import Generator, Iterator

import pytest

from engine.support import SECRET, build, load_lines
from rows import each_row
from urlward.engine import artifact
from urlward.engine import loaded as module
from urlward.engine.compiler import MAX_PATTERN
from urlward.engine.digest import Key
from urlward.engine.entry import Kind
from urlward.engine.loaded import LoadedList, PageForms, load, loading
from urlward.engine.record import Shape, below_number, host_letters, labels_of

LINES = [
    *[f"h{n}.test id=d{n}" for n in range(40)],
    *[f"http://h{n}.test/{m} id=p{n}.{m}" for n in range(10) for m in range(5)],
    *[f"http://h1.test/?a={n}&view=1 id=q{n}" for n in range(40)],
    *[f"*/f{n}/* id=f{n}" for n in range(20)],
    "http://h1.test/* id=x",
    "name.*",
    "192.0.2.0/24",
]


@pytest.fixture(params=[1, 2, 3, 7, 1 << 15])
def shard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "SHARD", request.param)
    monkeypatch.setattr(module, "FLOATING_SHARD", request.param)
    size: int = request.param
    return size


def found(li: LoadedList, letters: str) -> set[str]:
    shard = li.shard(letters)
    assert shard is not None
    return {li.table.id(row) for _, value in shard.iter(letters) for row in li.group(value)}


def test_one_automaton_has_every_pattern_that_begins_a_haystack(shard: int) -> None:
    under = Key(SECRET)
    li = load_lines(LINES, under)
    if shard < 10:
        assert len(li._shards) > 5
        assert len(li.floating) == -(-20 // -(-shard // 4))  # each has four letters
    for n in range(40):
        host = host_letters(under, labels_of(f"h{n}.test"))
        assert f"d{n}" in found(li, host)
        if n < 10:
            assert {f"p{n}.{m}" for m in range(5)} <= found(li, host)
        if n == 1:
            assert {f"q{m}" for m in range(40)} | {"x"} <= found(li, host)


def test_the_groups_of_a_host_are_known(shard: int) -> None:
    under = Key(SECRET)
    li = load_lines(LINES, under)
    for n in range(45):
        host, below = host_letters(under, labels_of(f"h{n}.test")), below_number(under, f"h{n}.test")
        assert not li.goes_on(host), "only artifacts of older releases have the letters of paths"
        assert bool(li.page_groups(host, below)) == (n < 10)


def test_lists_below(shard: int) -> None:
    under = Key(SECRET)
    li = load_lines(LINES, under)
    for n in range(45):
        host = f"h{n}.test"
        letters = host_letters(under, labels_of(host))
        assert li.lists_below(letters, below_number(under, host)) == (n < 10)
        assert not li.lists_below(letters, 0x01020304)


def test_ids_digests_and_shapes_belong_to_their_rows(shard: int) -> None:
    li = load_lines(LINES, Key(SECRET))
    ids = [li.table.id(row) for row in range(li.table.rows)]
    assert sorted(filter(None, ids)) == sorted(w.partition("id=")[2] for w in LINES if "id=" in w)
    assert len({li.table.digest(row) for row in range(li.table.rows)}) == li.table.rows == li.entries
    for row, entry in enumerate(ids):
        kind = li.table.shape(row).kind
        assert (
            entry == ""
            or kind
            == {"d": Kind.DOMAIN, "p": Kind.PAGE, "q": Kind.PARAMS, "f": Kind.PATH, "x": Kind.PREFIX}[
                entry[0]
            ]
        )
        assert len(li.table.further_params(row)) == (kind == Kind.PARAMS)


def test_a_large_group_is_searched_by_halves() -> None:
    li = load_lines([f"http://h.test/?id={n} id=n{n}" for n in range(500)], Key(SECRET))
    for row in range(500):
        assert list(li.table.matching(range(0, 500), li.table.digest(row))) == [row]
    assert list(li.table.matching(range(0, 500), bytes(16))) == []
    assert list(li.table.matching(range(0, 500), b"\xff" * 16)) == []


@each_row("first", [b"", b"\0", b"\x80", b"\xff"])
def test_a_large_group_is_searched_wherever_its_digests_are(first: bytes) -> None:
    """They are looked for where they would be if they were even, which they need not be."""
    rows = 1000
    li = load_lines([f"http://h.test/{n}" for n in range(rows)], Key(SECRET))
    for alike in (1, 3, 150):
        numbers = [n // alike * (0xFFFF // rows) for n in range(rows)]
        digests = [(first + number.to_bytes(2)).ljust(16, b"\0") for number in numbers]
        li.table._digests = memoryview(b"".join(digests))
        for row in range(0, rows, 7):
            same = row // alike * alike
            found = li.table.matching(range(rows), digests[row])
            assert found == range(same, min(same + alike, rows))
            assert not li.table.matching(range(rows), digests[row][:-1] + b"\1")


def test_what_a_host_with_very_many_pages_has_is_known_when_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first request would keep all others waiting meanwhile."""
    monkeypatch.setattr(module, "_COUNTED", 100)
    under = Key(SECRET)
    li = load_lines([f"http://h.test/{n}" for n in range(250)], under)
    monkeypatch.delattr(LoadedList, "_summarise")
    ((group, _, forms),) = li.page_groups(host_letters(under, ("test", "h")), below_number(under, "h.test"))
    assert (group, forms) == (range(250), PageForms(True, (), False, False))


def test_what_a_host_has_is_found_without_a_look_at_what_all_others_have() -> None:
    """A list may give each entry a category of its own, and so have as many shapes as entries."""

    class Unlooped(tuple[Shape, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[Shape]:
            raise AssertionError("all shapes are looked at")

    under = Key(SECRET)
    li = load_lines([f"http://h.test/{n} category=c{n}" for n in range(40)], under)
    li.table.shapes = Unlooped(li.table.shapes)
    ((group, _, forms),) = li.page_groups(host_letters(under, ("test", "h")), below_number(under, "h.test"))
    assert (group, forms) == (range(40), PageForms(True, (), False, False))


def test_rows_of_one_digest_are_all_found() -> None:
    lines = ["h.test", "h.test category=a", "@@h.test", "h.test port=81", "h.test expires=2027-01-31"]
    li = load_lines(lines * 3, Key(SECRET))
    assert li.table.rows == 5
    assert list(li.table.matching(range(0, 5), li.table.digest(0))) == [0, 1, 2, 3, 4]


def iterated(steps: Generator[None, None, LoadedList]) -> Iterator[None]:
    li = yield from steps
    assert li.entries == len(LINES)


def test_loading_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 5)
    monkeypatch.setattr(module, "SHARD", 50)
    data = build(LINES, Key(SECRET))
    steps = iterated(loading(data, Key(SECRET)))
    count = sum(1 for _ in steps)
    assert count > 20


def test_a_category_for_each_entry_is_read_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "_CHECKED", 10)
    monkeypatch.setattr(module, "_COUNTED", 10)
    under = Key(SECRET)

    def steps(lines: list[str]) -> int:
        return sum(1 for _ in loading(build(lines, under), under))

    plain = [f"h{n}.test" for n in range(200)]
    # Shapes are checked and told from each other, and categories checked twice: as such, and as counted.
    assert steps([f"{line} category=case-{n}" for n, line in enumerate(plain)]) >= steps(plain) + 4 * 19
    li = load_lines(["h.test category=a", "i.test category=b expires=2027-01-31"], under)
    assert [li.say(row)[1].category for row in range(2)] in (["a", "b"], ["b", "a"])
    assert li.expired(2e9) == 1


def test_groups_are_looked_through_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    under = Key(SECRET)
    data = build([f"http://h{n}.test/{m}" for n in range(300) for m in range(2)], under)
    groups = len(load(data, under)._groups)
    assert groups >= 2
    monkeypatch.setattr(module, "_COUNTED", 1 << 20)
    few = sum(1 for _ in loading(data, under))
    monkeypatch.setattr(module, "_COUNTED", 32)
    assert sum(1 for _ in loading(data, under)) >= few + groups // 32 - 1


def test_automata_are_bounded_by_what_they_hold_however_long_the_patterns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Finishing one is a single call, during which traffic waits."""
    monkeypatch.setattr(module, "SHARD", 500)
    monkeypatch.setattr(module, "FLOATING_SHARD", 500)
    deep = "a." * 90
    lines = [f"{n}.{deep}{group}.test" for group in range(10) for n in range(33)]
    lines += [f"*/{group}/{'a/' * 90}{n}/*" for group in range(10) for n in range(2)]
    li = load_lines(lines, Key(SECRET))
    for automata in (li._shards, li.floating):
        assert len(automata) > 3
        assert all(each.get_stats()["nodes_count"] < 500 + MAX_PATTERN for each in automata)


def test_what_a_list_says_of_itself() -> None:
    li = load_lines(LINES, Key(SECRET), "hotline")
    assert (li.name, li.serial, li.entries) == ("hotline", 1, len(LINES))
    assert (li.has_names, li.has_pages, li.nocase, li.floating_nocase) == (True, True, False, False)
    plain = load_lines(["h.test"], Key(SECRET))
    assert (plain.has_names, plain.has_pages, plain.floating) == (False, False, [])
    assert load_lines(["http://h.test/a nocase", "h.test"], Key(SECRET)).nocase
    assert load_lines(["*/a/* nocase", "h.test"], Key(SECRET)).floating_nocase
    assert load_lines(["192.0.2.0/24", "2001:db8::/32"], Key(SECRET)).prefixes6 == [32]
    for more, said in (
        ([], (True, False, True)),
        (["@@http://h.test/b"], (True, False, False)),
        (["http://h.test/b port=81"], (True, True, True)),
        (["http://h.test/b expires=2030-01-01"], (True, True, False)),
    ):
        li = load_lines(["http://h.test/a", *more], Key(SECRET))
        assert (li.pages_block, li.pages_end, li.pages_only_block) == said


def test_an_empty_list_has_no_automaton() -> None:
    li = load(build([], Key(SECRET)), Key(SECRET))
    assert li.shard("\u0100a") is None
    assert not li.lists_below("\u0100a", 0x01020304)
