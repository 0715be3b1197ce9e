from hypothesis import given
from hypothesis import strategies as st

from engine.delta_support import issue, pairs
from engine.support import compile_lines, examples, key
from engine.test_matcher_reference import SHAPES, shapes
from urlward.engine.artifact import Artifact, Section, networks, parse
from urlward.engine.compiler import MAX_PATTERN
from urlward.engine.loaded import load
from urlward.engine.record import MARKER, marker_text
from urlward.engine.subset import subset
from urlward.engine.table import Table

DEEP = "b." * 90 + "test"


def row_of(artifact: Artifact, id_: str) -> int:
    table = Table(artifact)
    return next(row for row in range(table.rows) if table.id(row) == id_)


def ids(data: bytes) -> set[str]:
    """Ids of the rows, a marker's being the kind's."""
    table = Table(parse(data))
    return {table.id(row) or str(table.shape(row).kind) for row in range(table.rows)}


def test_all_rows_are_the_artifact() -> None:
    lines = [f"http://h{n % 7}.test/{n}?a=1&b={n} id={n} category=c{n % 3}" for n in range(50)]
    whole = parse(issue([*lines, "*/one/two/* id=50", "name.* id=51", "192.0.2.1 id=52"]))
    sealed = b'["192.0.2.1/32"]'
    part = parse(subset(whole, range(Table(whole).rows), sealed, key()))
    same = {s: bytes(whole.sections[s]) for s in Section if s not in (Section.META, Section.SHAPES)}
    assert {section: bytes(part.sections[section]) for section in same} == same
    assert part.meta == whole.meta | {"shape_bytes": 4}
    assert part.header[3:7] == whole.header[3:7]


def test_no_rows_are_an_empty_list() -> None:
    part = subset(parse(issue(["a.test", "*/one/two/*"])), [], b"[]", key())
    assert load(part, key()).entries == 0
    assert networks(parse(part), key()) == []


def test_counts_and_shapes_are_those_of_the_rows() -> None:
    whole = parse(issue(["a.test id=1 category=x", "@@b.test id=2", "http://c.test/ id=3 category=y"]))
    rows = sorted(row_of(whole, id_) for id_ in "23")
    part = parse(subset(whole, rows, b"[]", key()))
    assert part.meta["entries"] == 2
    assert part.meta["counts"] == {"allow domain": 1, "page": 1}
    assert part.meta["by_category"] == {"": 1, "y": 1}
    assert len(part.meta["shapes"]) == 2


def test_a_row_brings_the_marker_of_its_domain() -> None:
    lines = ["http://a.test/1 subdomains id=1", "http://a.test/2 subdomains id=2", "http://a.test/3 id=3"]
    whole = parse(issue([*lines, "a.test id=4", "http://b.test/1 subdomains id=5"]))
    assert ids(subset(whole, [row_of(whole, "2")], b"[]", key())) == {"2", str(MARKER)}
    assert ids(subset(whole, [row_of(whole, "3")], b"[]", key())) == {"3"}


def test_a_marker_in_the_group_of_its_row() -> None:
    whole = parse(issue([f"http://{DEEP}/{n} subdomains id={n}" for n in range(3)]))
    assert len(compile_lines([DEEP], key()).rows[0].letters[0]) == MAX_PATTERN
    part = subset(whole, [row_of(whole, "2")], b"[]", key())
    assert ids(part) == {"2", str(MARKER)}
    table = Table(parse(part))
    assert key().digest(marker_text(DEEP)) in {table.digest(row) for row in range(table.rows)}


def test_pools_do_not_share_letters() -> None:
    """Whatever the letters are, as those of one pool mean nothing in the other."""
    with shapes(1, 1, 255, 3):
        whole = parse(issue(["0.0.0.0 c id=1", "*/c/c/* id=2"]))
        load(subset(whole, range(2), b"[]", key()), key())


@given(pairs(), SHAPES, st.data())
@examples(60)
def test_some_rows_make_a_list_that_loads(
    lists: tuple[list[str], list[str]], shape: tuple[int, int, int, int], data: st.DataObject
) -> None:
    with shapes(*shape):
        whole = parse(issue(lists[0]))
        rows = sorted(data.draw(st.sets(st.integers(0, Table(whole).rows - 1), max_size=30)))
        loaded = load(subset(whole, rows, b"[]", key()), key())
        assert len(rows) <= loaded.table.rows <= Table(whole).rows
