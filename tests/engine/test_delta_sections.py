"""Each section by itself; `test_delta` says that all of them are the new artifact."""

import pytest

from engine.delta_support import FILLER, issue, opened
from engine.support import key
from urlward.engine.artifact import Section, parse
from urlward.engine.delta_apply import read_rows
from urlward.engine.delta_columns import Column
from urlward.engine.delta_format import DamagedDeltaError, pack_numbers
from urlward.engine.delta_make import make_delta
from urlward.engine.delta_sections import new_sections

PAGES = [f"http://{host}.test/?a={n}&b={n % 2} id={host}{n} subdomains" for host in "abc" for n in range(9)]
LISTS = {
    "pages": PAGES,
    "pages in the middle": PAGES[:3] + PAGES[5:12] + PAGES[14:],
    "pages and others": [*PAGES[2:], "*/one/two/* id=1", "192.0.2.1 id=2", "name.* category=x"],
    "others": ["*/one/three/*", "192.0.2.2", "192.0.2.0/24", "other.* category=a", "@@a.test"],
    "no ids": [line.replace(" id=", " note=") for line in PAGES],
    "nothing": [],
}


@pytest.mark.parametrize("old", LISTS)
@pytest.mark.parametrize("new", LISTS)
def test_every_section(old: str, new: str) -> None:
    before, after = issue(FILLER + LISTS[old]), issue(FILLER + LISTS[new], 2)
    if before[256:] == after[256:]:
        return
    artifact, columns = parse(before), list(opened(make_delta(before, after, key())).values())
    made = new_sections(artifact, columns, read_rows(artifact, columns), key())
    sections = parse(after).sections
    for section in Section:
        assert b"".join(made[section]) == sections[section], section.name


@pytest.mark.parametrize("column", [Column.ID_LENGTHS, Column.SHAPES, Column.LENGTHS, Column.PARAM_COUNTS])
def test_a_column_of_more_rows_than_are_inserted(column: Column) -> None:
    before, after = issue(FILLER + PAGES[:9]), issue(FILLER + PAGES[1:], 2)
    columns = opened(make_delta(before, after, key()))
    columns[column] += pack_numbers([0])
    artifact, values = parse(before), list(columns.values())
    with pytest.raises(DamagedDeltaError):
        new_sections(artifact, values, read_rows(artifact, values), key())
