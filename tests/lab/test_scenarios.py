"""All shipped scenarios, two at a time in labs of their own; `smoke` alone in every run of the tests, in CI
`failure` too, and one half or the other of the rest."""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.lab_support import lab, report, why_not
from urlward.commands.lab import SHIPPED
from urlward.lab.scenario import shipped

if TYPE_CHECKING:
    import subprocess

SECONDS = {"load": "0.5", "churn": "5", "fleet": "1"}
LONGEST_FIRST = ("fleet", "failure", "load", "evasion", "churn", "smoke", "failopen", "source", "monitor")

HALVES = {"load", "evasion", "source"}, {"fleet", "churn", "failopen", "monitor"}
"""The first goes with the container image, the other with the Debian package."""
_MARKS = {name: [pytest.mark.long, pytest.mark.turn(half, 2)] for half in (0, 1) for name in HALVES[half]}
_MARKS |= {"smoke": [], "failure": [pytest.mark.long]}
_PARAMETERS = [pytest.param(name, marks=_MARKS[name]) for name in LONGEST_FIRST]

Done = tuple[Path, "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, "Future[Done]"]]:
    if why := why_not():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("reports")

    def patient(name: str) -> Path:
        """The scenario, with time for a machine that has others to do: two labs, and more tests."""
        path = folder / f"{name}.toml"
        path.write_text(re.sub(r"^within = .*$", "within = 60.0", shipped()[name].read_text(), flags=re.M))
        return path

    def run(name: str) -> Done:
        more = ["--seconds", SECONDS[name]] if name in SECONDS else []
        return folder / name, lab("run", patient(name), "--report", folder / name, *more)

    with ThreadPoolExecutor(2) as pool:
        # As selected: a lab that no test looks at need not run.
        asked = {
            item.callspec.params.get("name")
            for item in request.session.items
            if item.path == Path(__file__) and hasattr(item, "callspec")
        }
        yield {name: pool.submit(run, name) for name in LONGEST_FIRST if name in asked}


def test_all_are_here() -> None:
    assert sorted(shipped()) == sorted(LONGEST_FIRST) == sorted(SHIPPED)


def what_is_listed_takes_effect_soon(data: dict[str, Any]) -> None:
    """In two seconds, on a machine that has nothing else to do."""
    times = [outcome["after_s"] for outcome in data["outcomes"] if outcome["after_s"] is not None]
    assert len(times) >= 7
    assert max(times) < 30


def load_has_figures_of_each_stage(data: dict[str, Any]) -> None:
    assert {row["stage"] for row in data["latency_ms"]} == {1, 2, 3}
    assert all(row["plain_p50"] > 0 and row["through_p50"] > 0 for row in data["latency_ms"])
    assert {row["unit"] for row in data["rates"]} == {"requests/s", "MB/s"}
    assert all(row["plain"] > 0 and row["through"] > 0 for row in data["rates"])
    assert all(row["failed"] == 0 for row in data["reloads"])


MORE = {"evasion": what_is_listed_takes_effect_soon, "load": load_has_figures_of_each_stage}


@pytest.mark.parametrize("name", _PARAMETERS)
def test_as_expected(name: str, runs: dict[str, "Future[Done]"]) -> None:
    folder, done = runs[name].result()
    assert done.returncode == 0, done.stderr
    found = report(folder)
    assert found["data"]["good"]
    counts = found["data"]["counts"]
    assert counts["missed"] == counts["wrong"] == counts["unexpected"] == 0
    assert counts["caught"] > 2
    assert counts["passed"] > 2
    # A client that is left out would make all of this say less than it seems to.
    assert not [fact for fact in found["environment"] if fact["label"].startswith("without")]
    assert (folder / "report.html").read_text().count("<svg") >= 1
    if name in MORE:
        MORE[name](found["data"])


def test_smoke_shows_each_stage_and_client(runs: dict[str, "Future[Done]"]) -> None:
    outcomes = report(runs["smoke"].result()[0])["data"]["outcomes"]
    assert {1, 2, 3, "dns"} <= {outcome["stage"] for outcome in outcomes}
    clients = {outcome["client"].split()[0] for outcome in outcomes}
    assert {"curl-1-4", "curl-1-6", "curl-2-4", "curl-2-6", "chromium"} <= clients
