import random

import pytest
from hypothesis import given

from engine.delta_support import FILLER, issue, opened, pairs
from engine.support import OTHER_SECRET, build, examples, key
from engine.test_artifact import forge
from urlward.engine.artifact import Section, parse
from urlward.engine.delta_apply import apply_delta
from urlward.engine.delta_columns import Column
from urlward.engine.delta_format import NoDeltaError
from urlward.engine.delta_make import make_delta
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, WrongKeyError

OLD = issue([*FILLER, "a.test id=1"])
ROWS = len(FILLER) + 1
PATTERNS = len(parse(OLD).sections[Section.SHARED])


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


def test_size_follows_the_change_and_not_the_list() -> None:
    """100 removed and 100 added of 20,000, at 33 bytes each; 1,000 of 1,000,000 have 64 KiB."""
    every = lines(20_100)
    gone = set(random.Random(1).sample(range(20_000), 100))
    old = issue(every[:20_000])
    new = issue([line for n, line in enumerate(every) if n not in gone], 2)
    delta = make_delta(old, new, key())
    assert len(delta) <= 100 * 65
    assert apply_delta(old, delta, key()).artifact == new


def test_a_new_serial_alone_is_a_few_hundred_bytes() -> None:
    assert len(make_delta(OLD, issue([*FILLER, "a.test id=1"], 2), key())) < 700


def test_the_order_of_sources_changes_next_to_nothing() -> None:
    found = lines(400)
    new = issue(found[::-1], 2)
    assert len(make_delta(issue(found), new, key())) < 700


def test_a_new_category_does_not_change_rows_of_others() -> None:
    old = [f"{line} category=b" for line in FILLER]
    columns = opened(make_delta(issue(old), issue(["a.test category=a", *old], 2), key()))
    assert len(columns[Column.DIGESTS]) == 16


@given(pairs())
@examples(40)
def test_the_same_input_gives_the_same_delta(lists: tuple[list[str], list[str]]) -> None:
    old, new = issue(lists[0]), issue(lists[1], 2)
    assert make_delta(old, new, key()) == make_delta(old, new, key())


def test_the_same_artifact_twice() -> None:
    with pytest.raises(NoDeltaError, match="the same"):
        make_delta(OLD, OLD, key())


def test_no_delta_where_little_is_left() -> None:
    with pytest.raises(NoDeltaError, match="would take"):
        make_delta(OLD, issue([f"{n}.test" for n in range(100)], 2), key())


def test_another_key() -> None:
    other = Key(OTHER_SECRET)
    for old, new in ((OLD, build(FILLER, other)), (build(FILLER, other), OLD)):
        for under in (key(), other):
            with pytest.raises(WrongKeyError):
                make_delta(old, new, under)


def test_a_damaged_artifact() -> None:
    for old, new in ((OLD[:-1], OLD), (OLD, OLD[:-1])):
        with pytest.raises(ArtifactError):
            make_delta(old, new, key())


@pytest.mark.parametrize(
    ("section", "content"),
    [
        (Section.GROUPS, b"\xff" * 8),
        (Section.PARAM_ROWS, b"\xff" * 8),
        (Section.SHAPES, b"\xff" * 2 * ROWS),
        (Section.IDS, b"\xff"),
        (Section.SHARED, b"\xff" * PATTERNS),
        (Section.LETTERS, b""),
        (Section.GROUPS, bytes(4) + b"\2\0\0\0" + bytes(4) + b"\2\0\0\0"),
    ],
)
def test_an_artifact_that_contradicts_itself(section: Section, content: bytes) -> None:
    bad = forge(OLD, {section: content})
    for old, new in ((bad, OLD), (OLD, bad)):
        try:
            delta = make_delta(old, new, key())
        except NoDeltaError:
            continue
        assert apply_delta(old, delta, key()).artifact == new
