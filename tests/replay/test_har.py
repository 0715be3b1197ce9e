import json
from pathlib import Path
from typing import Any

import pytest

from replay.replay_support import LOGS
from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.replay.formats import HAR
from urlward.replay.run import LogSource, har_blocks


def lines_of(path: Path) -> tuple[list[str], str]:
    with LogSource(path) as source:
        found = list(har_blocks(source))
        lines = b"".join(block.data for block in found).decode("latin-1").splitlines()
        assert sum(block.lines for block in found) == len(lines)
        return lines, source.trouble


def entry(url: Any = "http://a.test/", **other: Any) -> dict[str, Any]:
    return {
        "startedDateTime": "2026-11-25T09:00:30Z",
        "request": {"url": url},
        "response": {"status": 200},
    } | other


def har(path: Path, *entries: Any) -> Path:
    path.write_text(json.dumps({"log": {"entries": entries}}))
    return path


def test_the_sample() -> None:
    assert lines_of(LOGS / "log.har") == (
        [
            "1795597200\t200\thttps://news.example/2026/listed-story.html",
            "1795600800\t\thttps://unlisted.test/\xc3\xa9?q=1",
            "\t200\tdata:text/plain,x",
            "1795597200\t\t-",
        ],
        "",
    )


def test_entries_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    path = har(
        tmp_path / "log.har",
        entry("http://a.te\nst/\t\xe9", startedDateTime=5),
        entry(5, response={"status": "x"}),
        entry(startedDateTime="2026-11-25T09:00:30", response={"status": -1}),
        entry(startedDateTime="0001-01-01T00:00:00+14:00"),
        {},
        "text",
    )
    assert lines_of(path)[0] == [
        "\t200\thttp://a.test/\xc3\xa9",
        "1795597200\t\t-",
        "1795597200\t\thttp://a.test/",
        "0\t200\thttp://a.test/",
        "\t\t-",
    ]


def test_numbers_go_on_from_block_to_block(tmp_path: Path) -> None:
    with LogSource(har(tmp_path / "log.har", *[entry()] * 5000)) as source:
        found = list(har_blocks(source))
    assert [(block.first, block.lines) for block in found] == [(1, 4096), (4097, 904)]


def test_lines_are_read_back() -> None:
    line = "1795597200\t200\thttps://a.test/b?c"
    columns = HAR.columns(f"{line}\n\t\thttps://b.test\n\t\tdata:x\n\t\t-\n")
    assert columns.origins == ("https://a.test", "https://b.test", "", "")
    assert columns.targets == ("/b?c", "", "", "")
    assert columns.times == ("1795597200", "", "", "")
    assert columns.statuses == ("200", "", "", "")
    assert [HAR.url(columns, row) for row in range(3)] == ["https://a.test/b?c", "https://b.test", "data:x"]
    assert HAR.second is not None
    assert HAR.second("1795597200") == 1795597200
    with pytest.raises(UrlwardError, match="no URL"):
        HAR.url(columns, 3)


def test_a_mark_in_front(tmp_path: Path) -> None:
    path = har(tmp_path / "log.har", entry())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert lines_of(path) == (["1795597200\t200\thttp://a.test/"], "")


def test_cut_short(tmp_path: Path) -> None:
    path = har(tmp_path / "log.har", entry(), entry(), entry())
    path.write_bytes(path.read_bytes()[:-80])
    assert lines_of(path) == (
        ["1795597200\t200\thttp://a.test/"] * 2,
        "not whole, or not JSON from some place on",
    )


@each_row("text", ["{}", '{"log": {}}', "[1]", "", "nonsense"])
def test_no_har(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.har"
    path.write_text(text)
    with pytest.raises(UrlwardError, match="not a HAR file: it has no entries"):
        lines_of(path)
