"""Every row along every way: nothing listed gets past, and nothing unlisted is stopped."""

import os
import warnings
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from evasion.judge import Result, StreamResult, run, run_streams
from evasion.lab import ENGINES, Lab, all_ways
from evasion.rows import Row, StreamRow, load_rows, load_stream_rows
from rows import each_row

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(1800)
"""The first test is all rows along all ways, on a machine that may have much else to do."""

ROWS = {
    "spelling": 282,
    "framing": 250,
    "segmentation": 43,
    "connection": 67,
    "tls": 74,
    "other": 26,
    "http2": 68,
}
"""How many rows each family has: a row that is lost would not be missed otherwise."""
SEED = os.environ.get("URLWARD_SEED", "")
IN_TURN = 13
"""Of so many ways of some engines a row goes along one (`judge.run`), in CI along others each time: no
divisor of the number that an engine has, so that each row has several modes, wires and origins."""
TEETH = 325
"""How many rows at least get a listed page where no filter stands between."""


Bare = tuple[list[Result], list[StreamResult]]


@pytest.fixture(scope="session")
def bare(laboratory: Lab, request: pytest.FixtureRequest) -> "Iterator[Future[Bare] | None]":
    """What becomes of all rows without a filter, if that is asked for; the other ways are gone meanwhile."""

    def go() -> Bare:
        ways = [way for way in laboratory.ways if way.engine == "bare"]
        encrypted = [way for way in ways if way.wire == "tls"]
        return run(laboratory, ways, load_rows()), run_streams(laboratory, encrypted, load_stream_rows())

    asked = any(getattr(item, "function", None) is test_the_rows_have_teeth for item in request.session.items)
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(go) if asked else None


@pytest.fixture(scope="session")
def results(laboratory: Lab, bare: "Future[Bare] | None") -> dict[str, list[Result]]:
    """What became of the rows, by name; all ways are gone side by side."""
    ways = [way for way in laboratory.ways if way.engine != "bare"]
    found: dict[str, list[Result]] = {row.name: [] for row in load_rows()}
    for result in run(laboratory, ways, load_rows(), IN_TURN, sum(SEED.encode())):
        found[result.row.name].append(result)
    return found


@pytest.fixture(scope="session")
def stream_results(laboratory: Lab) -> dict[str, list[StreamResult]]:
    """The same for HTTP/2."""
    ways = [way for way in laboratory.ways if way.engine == "all" and way.wire == "tls"]
    found: dict[str, list[StreamResult]] = {row.name: [] for row in load_stream_rows()}
    for result in run_streams(laboratory, ways, load_stream_rows()):
        found[result.row.name].append(result)
    return found


def check(laboratory: Lab, results: list[Result] | list[StreamResult]) -> None:
    # Without root, ip or nft, or with an urlward that lacks a flag, there may be no way for a row.
    assert results or laboratory.client is None or laboratory.filters.keys() < ENGINES.keys()
    faults = [str(result) for result in results if result.fault]
    assert not faults, f"{len(faults)} of {len(results)} ways\n" + "\n".join(faults)


@each_row("row", load_rows(), ids=lambda row: f"{row.family}-{row.name}")
def test_row(laboratory: Lab, results: dict[str, list[Result]], row: Row) -> None:
    check(laboratory, results[row.name])


@each_row("row", load_stream_rows(), ids=lambda row: row.name)
def test_stream_row(laboratory: Lab, stream_results: dict[str, list[StreamResult]], row: StreamRow) -> None:
    check(laboratory, stream_results[row.name])


def test_every_row_is_there() -> None:
    counts = Counter(row.family for row in load_rows())
    counts["http2"] = len(load_stream_rows())
    assert dict(counts) == ROWS
    assert counts.total() >= 120


@pytest.mark.turn(0, 2)
def test_the_rows_have_teeth(bare: "Future[Bare]") -> None:
    """Sent to the bare origins, most tricks get the listed page, or the filter would have an easy time."""
    results, streams = bare.result()
    found: dict[str, set[str]] = {}
    for result in results:
        if result.answer.leaked or any(line.listed for line in result.lines):
            found.setdefault(result.row.name, set()).add(result.way.origin)
    for stream in streams:
        if stream.answer.leaked or any(line.listed for line in stream.lines):
            found.setdefault(stream.row.name, set()).add(stream.way.origin)
    recorded = {row.name: set(row.bare) for row in (*load_rows(), *load_stream_rows()) if row.bare}
    # Other versions of the origins may know other tricks.
    for name in sorted(found.keys() | recorded.keys()):
        if found.get(name) != recorded.get(name):
            warnings.warn(f"{name}: bare was {recorded.get(name)}, is {found.get(name)}", stacklevel=1)
    assert len(found) >= TEETH


@pytest.mark.parametrize("engine", ENGINES)
def test_every_way_was_gone(laboratory: Lab, engine: str) -> None:
    ways = {way for way in all_ways(True) if way.engine == engine}
    if engine not in laboratory.filters:
        pytest.skip(f"this urlward has no {engine}: {ENGINES[engine]}")
    if laboratory.client is None:
        pytest.skip("transparent mode needs root, ip and nft")
    assert ways <= set(laboratory.ways)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.usefixtures("results", "stream_results")
def test_no_log_tells_what_is_listed(laboratory: Lab, engine: str) -> None:
    if engine not in laboratory.filters:
        pytest.skip(f"this urlward has no {engine}: {ENGINES[engine]}")
    for proxy in laboratory.filters[engine]:
        proxy.check_log()
