"""The flat table: each row's digest, kind, id and further parameters, and where rows with a digest are."""

import pytest

from engine.support import build
from engine.test_artifact import forge
from urlward.engine.artifact import Section, parse
from urlward.engine.digest import Key
from urlward.engine.entry import Kind
from urlward.engine.errors import ArtifactError
from urlward.engine.record import param_text
from urlward.engine.table import RowTable

SECRET = bytes(range(32))
LINES = ["plain.test"] + [f"http://page.test/view?id={n}&lang=en id=E-{n}" for n in range(20)]


def table() -> RowTable:
    return RowTable(parse(build(LINES, Key(SECRET))))


def test_rows_say_what_was_listed() -> None:
    found = table()
    assert found.rows == len(LINES)
    ids = sorted(found.id(row) for row in range(found.rows))
    assert ids == sorted(["", *(f"E-{n}" for n in range(20))])
    assert {found.shape(row).kind for row in range(found.rows)} == {Kind.DOMAIN, Kind.PARAMS}
    for _ in found.check():
        pass


def test_a_digest_leads_to_its_row() -> None:
    found, key = table(), Key(SECRET)
    group = [row for row in range(found.rows) if found.shape(row).kind == Kind.PARAMS]
    start, end = group[0], group[-1] + 1
    assert group == list(range(start, end))
    for n in range(20):
        digest = key.digest(param_text("page.test", "/view", f"id={n}"))
        (row,) = found.matching(range(start, end), digest)
        assert found.id(row) == f"E-{n}"
        assert found.further_params(row) == [key.digest(param_text("page.test", "/view", "lang=en"))]
    assert list(found.matching(range(start, end), bytes(16))) == []


def test_a_digest_is_in_its_own_group_alone() -> None:
    found = table()
    rows = [bytes([1, n]) + bytes(14) for n in range(200)]
    found._digests = memoryview(b"".join([*rows, b"\x02" * 16]))
    assert list(found.matching(range(200), rows[199])) == [199]
    assert list(found.matching(range(200), b"\x02" * 16)) == []


def test_a_row_without_further_parameters_has_none() -> None:
    found = table()
    (row,) = (row for row in range(found.rows) if found.shape(row).kind == Kind.DOMAIN)
    assert found.further_params(row) == []
    assert found.id(row) == ""
    assert found.lengths[row] == 2


def test_what_rows_have_in_numbers() -> None:
    found = table()
    assert found.params == 20
    assert [found.shapes[number] for number in found.shape_numbers] == list(
        map(found.shape, range(found.rows))
    )


def test_parameters_that_point_anywhere_are_no_more_than_there_are() -> None:
    forged = forge(build(LINES, Key(SECRET)), {Section.PARAM_ROWS: bytes(4) + b"\xff\xff\xff\xff"})
    found = RowTable(parse(forged))
    assert len(found.further_params(0)) == 20
    with pytest.raises(ArtifactError):
        list(found.check())
