from engine.support import key
from rows import each_row
from urlward.engine import record
from urlward.engine.record import Flag, Shape

KEY = key()


def test_labels_come_from_the_right_and_an_address_is_one() -> None:
    assert record.labels_of("a.example.test") == ["test", "example", "a"]
    assert record.labels_of("192.0.2.7") == ["192.0.2.7"]
    assert record.labels_of("[2001:db8::7]") == ["[2001:db8::7]"]


def test_letters_of_an_entry_begin_those_of_every_request_it_matches() -> None:
    host = record.host_letters(KEY, ["test", "example", "a"])
    assert host.startswith(record.domain_letters(KEY, ["test", "example"]))
    names = record.name_letters(KEY, ["example", "a"])
    assert names.startswith(record.name_letters(KEY, ["example"]))


@each_row(
    ("one", "other"),
    [
        (record.host_letters(KEY, ["test"]), record.domain_letters(KEY, ["test"])),
        (record.name_letters(KEY, ["a"]), record.domain_letters(KEY, ["a"])),
        (record.network_letters(KEY, "192.0.2.0/24"), record.name_letters(KEY, ["192.0.2.0/24"])),
    ],
)
def test_letters_that_differ(one: str, other: str) -> None:
    assert one != other


def test_no_two_texts_of_different_meaning_are_equal() -> None:
    texts = [
        record.domain_text("a.test"),
        record.host_text("a.test"),
        record.marker_text("a.test"),
        record.below_text("a.test"),
        record.name_text("a.test"),
        record.page_text("a.test", "/b/"),
        record.prefix_text("a.test", "/b/"),
        record.param_text("a.test", "/b/", "c"),
        record.path_text("/b/"),
        record.network_text("192.0.2.0/24"),
    ]
    assert len(set(texts)) == len({text[0] for text in texts}) == len(texts)


def test_a_shape_allows_or_not() -> None:
    assert Shape(1, Flag.ALLOW | Flag.NOCASE, 0, 0, 0).allow is True
    assert Shape(1, Flag.NOCASE | Flag.SUBDOMAINS | Flag.SEVERAL_PARAMS, 0, 0, 0).allow is False
