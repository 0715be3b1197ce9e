from pathlib import Path

import pytest

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import Grant, ObjectionBook, add_objection
from urlward.policy.allows import current_allows
from urlward.state.folder import local_key

NOW = 1_800_000_000.0
REFERENCE = "7Q4M-2XKD-93FH"


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return local_key(tmp_path)


@pytest.fixture
def book(tmp_path: Path, key: Key) -> ObjectionBook:
    return ObjectionBook(tmp_path, key, lambda: NOW)


def test_open_ones_come_first_and_the_newest_of_them_before_others(
    tmp_path: Path, key: Key, book: ObjectionBook
) -> None:
    ids = [add_objection(tmp_path, key, REFERENCE, f"{n}", client="", now=NOW + n).id for n in range(4)]
    book.decide(ids[3], "no", "op", granted=None)
    book.decide(ids[1], "yes", "op", granted=Grant())
    rows = book.listed()
    assert [row["id"] for row in rows] == [ids[2], ids[0], ids[3], ids[1]]
    assert [row["state"] for row in rows] == ["open", "open", "declined", "granted"]
    assert [bool(row["decided"]) for row in rows] == [False, False, True, True]
    assert rows[0]["message"] == "2"


def test_granted_with_what_is_to_pass(tmp_path: Path, key: Key, book: ObjectionBook) -> None:
    made = add_objection(tmp_path, key, REFERENCE, "please", client="", now=NOW)
    book.decide(made.id, "fine", "op", granted=Grant("http://blocked.example/page", 60, whole_host=True))
    (allow,) = current_allows(tmp_path, NOW)
    assert (allow.kind, allow.until) == ("host", NOW + 60)
    assert book.listed()[0]["allow"] == allow.id


def test_one_that_there_is_not(book: ObjectionBook) -> None:
    with pytest.raises(UrlwardError, match="no objection"):
        book.decide("o-0", "no", "op", granted=None)
