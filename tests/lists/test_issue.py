import pytest

from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.engine.signing import MAX_SERIAL
from urlward.lists.build import ISSUE, Issue, read_issue


def test_nothing_said() -> None:
    assert read_issue(None, None, None) == ISSUE == Issue(None, None, None, None)


def test_all_said() -> None:
    issue = read_issue("7", "2023-11-14", "2023-11-14")
    assert (issue.serial, issue.valid_from, issue.valid_until) == (7, 1_699_920_000, 1_699_920_000 + 86400)
    assert read_issue(str(MAX_SERIAL), None, None).serial == MAX_SERIAL


@each_row("serial", ["", "-1", "1.0", "x", "\u0661", " 1", str(MAX_SERIAL + 1), "9" * 5000])
def test_what_is_no_serial(serial: str) -> None:
    with pytest.raises(UrlwardError, match=r"serial: .* is not a number from 0 to"):
        read_issue(serial, None, None)


def test_what_is_no_date() -> None:
    with pytest.raises(UrlwardError, match="valid-from: 'soon' is not a date such as"):
        read_issue(None, "soon", None)
    with pytest.raises(UrlwardError, match="valid-until: '2023-02-30' is no such date"):
        read_issue(None, None, "2023-02-30")


def test_an_end_before_the_beginning() -> None:
    with pytest.raises(UrlwardError, match="not after"):
        read_issue(None, "2023-11-15", "2023-11-14")
    with pytest.raises(UrlwardError, match="not after"):
        Issue(valid_from=5, valid_until=5)
    assert Issue(valid_from=5, valid_until=0).valid_until == 0
