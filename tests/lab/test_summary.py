from pathlib import Path

from urlward.lab.measure import Figures, Latency, Rate, Reload
from urlward.lab.outcome import JudgedAttempt, Observations, Result
from urlward.lab.run import Ran
from urlward.lab.scenario import Loaded, Measured, load_scenario
from urlward.lab.summary import summarise
from urlward.report.document import ReportDocument, ReportTable, write_report

CAUGHT = JudgedAttempt(
    "1",
    "u",
    "curl-1-4 on client",
    "block",
    Result.CAUGHT,
    "block page",
    Observations(451, True, 0, 3, "E-1", "c"),
)
PASSED = JudgedAttempt(
    "1",
    "v",
    "curl-1-4 on client",
    "pass",
    Result.PASSED,
    "served by the origin",
    Observations(200, False, 1, 1),
)
MISSED = JudgedAttempt(
    "1",
    "w",
    "curl-2-6 on client",
    "block",
    Result.MISSED,
    "served by the origin",
    Observations(200, False, 1, 2),
    1.5,
    "a reason",
)
CHECK = JudgedAttempt("2", "rules-gone", "the lab", "", Result.HELD, "there are none")


def loaded() -> Loaded:
    return load_scenario("smoke")


def summary(
    *outcomes: JudgedAttempt, figures: Figures | None = None, **more: dict[str, str]
) -> ReportDocument:
    return summarise(Ran(loaded(), outcomes=list(outcomes), figures=figures or Figures(), **more))  # type: ignore[arg-type]


def tables(report: ReportDocument) -> dict[str, ReportTable]:
    return {table.title: table for section in report.sections for table in section.tables}


def test_all_is_well() -> None:
    report = summary(CAUGHT, PASSED, CHECK)
    assert (report.verdict.text, report.verdict.state) == ("Everything came out as expected", "good")
    assert report.data["good"] is True
    rows = tables(report)["By stage and reason"].rows
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("1 kernel", "served by the origin", 1),
        ("3 match", "block page", 1),
        ("the lab's checks", "there are none", 1),
    ]
    assert tables(report)["Hits by entry"].rows == (("E-1", "c", 1),)
    assert "What was not as expected" not in {section.title for section in report.sections}


def test_one_was_missed() -> None:
    report = summary(CAUGHT, MISSED)
    assert (report.verdict.text, report.verdict.state) == ("1 missed", "bad")
    assert "Of 2 requests for listed pages, the origins served 1." in report.summary
    assert tables(report)["Not as expected"].rows[0][-1] == "a reason"
    assert tables(report)["Time to effect"].rows[0][-1] == 1.5
    assert report.data["outcomes"][1]["result"] == "missed"


def test_nothing_tested_is_not_good() -> None:
    assert summary().verdict.state == "bad"


def test_a_client_that_is_not_there_is_said() -> None:
    report = summary(CAUGHT, left_out={"chromium": "it is not installed"})
    assert ("without chromium", "it is not installed") in [
        (fact.label, getattr(fact.value, "text", "")) for fact in report.environment
    ]


def test_three_seconds_after_a_reload_are_near_it() -> None:
    at = Measured(url="https://paged.example/", stage=2)
    quiet = ((0.9, 1.0, True), (4.1, 2.0, True), (6.9, 1.0, True))
    near = ((1.0, 9.0, True), (2.5, 9.0, True), (4.0, 9.0, True), (10.0, 9.0, True))
    figures = Figures([], [], [Reload(at, tuple(sorted(quiet + near)), (1.0, 7.0))], "")
    (reload,) = summary(CAUGHT, figures=figures).data["reloads"]
    assert reload["quiet_p50"] == 1.0
    assert reload["quiet_p99"] > 1.5
    assert (reload["near_p50"], reload["near_p99"]) == (9.0, 9.0)


def test_figures(tmp_path: Path) -> None:
    at = Measured(url="https://paged.example/", stage=2)
    figures = Figures(
        [Latency(at, False, (1.0, 2.0, 3.0), (2.0, 4.0, 6.0), 0), Latency(at, True, (1.0,), (2.0,), 1)],
        [Rate(at, "requests/s", (100.0, 300.0), (50.0, 150.0), 0)],
        [Reload(at, ((0.5, 1.0, True), (1.5, 9.0, True), (1.6, 2.0, False)), (1.0,))],
        "wrk",
    )
    report = summary(CAUGHT, figures=figures)
    (latency, _), (rate,), (reload,) = (report.data[name] for name in ("latency_ms", "rates", "reloads"))
    assert (latency["plain_p50"], latency["through_p50"], latency["added_p50"]) == (2.0, 4.0, 2.0)
    assert (rate["plain"], rate["through"], rate["runs"]) == (200.0, 100.0, 2)
    assert tables(report)["Throughput"].rows[0][4] == 0.5
    assert (reload["quiet_p50"], reload["near_p50"], reload["worst"], reload["failed"]) == (1.0, 9.0, 9.0, 1)
    page = write_report(tmp_path, report).read_text()
    assert page.count("<svg") == 5
    assert "paged.example" not in page.partition("Everything that was tried")[0].replace(CAUGHT.what, "")
