from pathlib import Path

import pytest

from replay.replay_support import NOW, sample
from urlward.replay.formats import SQUID
from urlward.replay.judge import Clock, Tally
from urlward.replay.report import data_of, make_report
from urlward.replay.run import Log, Replay
from urlward.report.document import MarkedWord, ReportDocument
from urlward.report.plots import LineChart

HOUR = 498_777
LISTS = sample().lists


def tally() -> Tally:
    made = Tally(lines=1010, requests=1000)
    made.verdicts["block", "sample", "csam", "page", "S-4"] = 30
    made.verdicts["block", "sample", "", "host", "S-3"] = 12
    made.verdicts["allow", "sample", "", "page", "S-12"] = 5
    made.bad.add("no URL", 10, [(1, 7), (2, 9)])
    for hour in range(3):
        made.hours[HOUR + hour] = 300 + hour
    made.blocked_hours[HOUR + 1] = 42
    made.statuses.update({"200": 900})
    made.clients.add(range(20))
    made.clients_hit.add(range(3))
    made.hosts.add(range(100))
    made.hosts_hit.add(range(2))
    made.connects.update(all=400, whole=2, below=5)
    return made


def replay_of(counts: Tally, clock: Clock = "log") -> Replay:
    return Replay(counts, [Log(Path("secret.log"), SQUID, 5000, lines=1010)], clock, NOW, 2.0)


def report_of(counts: Tally, top: int = 20) -> ReportDocument:
    return make_report(replay_of(counts), LISTS, top)


def plots(report: ReportDocument) -> list[LineChart]:
    return [plot for section in report.sections for plot in section.plots if isinstance(plot, LineChart)]


def table(report: ReportDocument, title: str) -> list[tuple[object, ...]]:
    (found,) = [t for section in report.sections for t in section.tables if t.title == title]
    return list(found.rows)


def test_the_counts() -> None:
    report = report_of(tally())
    assert report.verdict == MarkedWord("42 of 1,000 requests would be blocked", "plain")
    assert "4.2 % of 1,000 requests" in report.summary
    assert "400 tunnels (CONNECT), 1.25 % would have been decrypted" in report.summary
    assert [(fact.value, fact.note) for fact in report.facts] == [
        (1000, ""), (42, "4.2 %"), (3, "of 20, 15 %"), (2, "of 100, 2 %"), (10, "0.99 %"),
    ]  # fmt: skip
    assert table(report, "By category") == [("csam", 30, "3 %"), ("(none)", 12, "1.2 %")]
    assert table(report, "By entry")[0] == ("S-4", "sample", "csam", "page", 30)
    assert table(report, "By status as logged") == [("200", 900, 0)]
    assert table(report, "TLS by what is listed")[2][2:] == (5, "1.25 %")
    assert table(report, "Lines that were not judged") == [("no URL", 10, "log 1 line 7, log 2 line 9")]
    assert table(report, "Logs") == [(1, "squid", 5000, 1010, "read to its end")]


def test_what_programs_get() -> None:
    data = data_of(replay_of(tally()), LISTS, 1)
    assert data == report_of(tally(), 1).data
    assert (data["blocked"], data["allowed"], data["by_kind"]) == (42, 5, {"page": 30, "host": 12})
    assert [entry["id"] for entry in data["entries"]] == ["S-4"]
    assert data["hours"]["2026-11-25T10:00Z"] == {"requests": 301, "blocked": 42}
    assert data["statuses"] == {"200": {"requests": 900, "blocked": 0}}
    assert data["clients"] == {"seen": 20, "hit": 3, "exact": True}
    assert data["tls"]["connects"] == {"all": 400, "listed_whole": 2, "decrypted": 5}


def test_nothing() -> None:
    report = report_of(Tally())
    assert report.verdict == MarkedWord("no request to judge", "warn")
    assert plots(report) == []
    assert [section.title for section in report.sections] == ["What would be blocked", "The logs"]
    assert report.facts[2].value is None


class TestPlots:
    def test_by_hour(self) -> None:
        blocked, requests = plots(report_of(tally()))
        assert blocked.series[0].points == ((0.0, 0.0), (1.0, 42.0), (2.0, 0.0))
        assert [y for _, y in requests.series[0].points] == [300, 301, 302]
        assert blocked.x == "hours since 2026-11-25T09:00Z"
        assert "at most 42 in one hour" in blocked.alt

    def test_by_day(self) -> None:
        counts = tally()
        counts.hours[HOUR + 20 * 24] = 7
        blocked, requests = plots(report_of(counts))
        assert len(requests.series[0].points) == 21
        assert [y for _, y in requests.series[0].points if y] == [903, 7]
        assert sum(y for _, y in blocked.series[0].points) == 42
        assert requests.x == "days since 2026-11-25T00:00Z"

    @pytest.mark.parametrize("hours", [{HOUR: 5}, {HOUR: 5, 0: 1}])
    def test_none_where_it_would_show_nothing(self, hours: dict[int, int]) -> None:
        counts = tally()
        counts.hours.clear()
        counts.blocked_hours.clear()
        counts.hours.update(hours)
        assert plots(report_of(counts)) == []


def test_estimates_are_called_so() -> None:
    counts = tally()
    counts.hosts.add(range(0, 1 << 64, 1 << 46))
    assert str(report_of(counts).facts[3].note).startswith("of about 26")
    assert data_of(replay_of(counts), LISTS, 1)["hosts"]["exact"] is False


def test_no_name_of_a_log() -> None:
    assert "secret" not in str(report_of(tally()))
