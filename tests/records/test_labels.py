from rows import each_row
from urlward.records.metrics import (
    MAX_CATEGORIES,
    MAX_LISTS,
    MAX_PAIRS,
    BlockLabels,
    Bounded,
    Categories,
    among,
)


def test_lists_are_called_as_their_files() -> None:
    label = Bounded(9)
    names = ["jugend-ü", "spiele ñ", "名簿", "phishing.2"]
    assert [*map(label, names)] == names


def test_among() -> None:
    known = among(("match", "peek"))
    assert [known(value) for value in ("match", "peek", "x", "")] == ["match", "peek", "other", "other"]


def test_the_first_values_are_kept() -> None:
    label = Bounded(2)
    assert [label(value) for value in ("a", "b", "c", "a", "other")] == ["a", "b", "other", "a", "other"]


@each_row("value", ["", "a/b", "http://a", "a\n", 'a"', "ä/b", "ä" * 65, "\udcff", "a" * 65, ".a", "a:1"])
def test_what_cannot_be_a_name(value: str) -> None:
    assert Bounded(9)(value) == "other"


@each_row("value", ["a.example", "192.0.2.1", "2001:db8::1", "A", "a b"])
def test_a_category_that_could_be_a_host(value: str) -> None:
    assert Categories()(value) == "other"


def test_categories() -> None:
    label = Categories()
    assert (label(""), label("none"), label("phishing")) == ("none", "none", "phishing")
    found = {label(f"c{number}") for number in range(500)}
    assert len(found | {"phishing"}) == MAX_CATEGORIES + 1


def test_pairs_are_bounded_as_well() -> None:
    origins = BlockLabels()
    found = {origins(f"l{n % 1000}", f"c{n % 61}") for n in range(61_000)}
    assert len(found) <= MAX_PAIRS + 1
    assert len({name for name, _ in found}) <= MAX_LISTS + 1
    assert len(origins.known) <= 2 * MAX_PAIRS
    # Those that were there first stay.
    assert origins("l0", "c0") == origins.known["l0", "c0"] == ("l0", "c0")
