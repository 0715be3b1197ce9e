import json
import re
from collections import Counter
from pathlib import Path

import pytest

from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.lists.source import SourceError
from urlward.report import document as module
from urlward.report.document import (
    Fact,
    MarkedWord,
    ReportDocument,
    ReportSection,
    ReportTable,
    check_folder,
    shown,
    write_report,
)
from urlward.report.plots import Bar, Bars, LineChart, PlotEvent, Series, cdf, quantile

LATER = Series("b", ((1, 2), (3, 4)))
SAMPLE = ReportDocument(
    title="A <title>",
    verdict=MarkedWord("All & well", "good"),
    summary="One.\n\nTwo <b>.",
    facts=(Fact("missed", MarkedWord("0", "good"), "listed, but served"), Fact("caught", 12_345)),
    sections=(
        ReportSection(
            "First",
            "Says <what> it shows.",
            tables=(
                ReportTable(
                    "Counts", ("what", "count"), (("<script>alert(1)</script>", 1_000), ("none", None))
                ),
                ReportTable("Long", ("n",), tuple((n,) for n in range(30)), folded=True),
            ),
            plots=(
                Bars(
                    "Rates", "requests/s",
                    (Bar("plain & <routing>", 84_000, 80_000, 85_000), Bar("match", 7_000)),
                    "Plain is first.",
                ),
                LineChart("Times", "ms", "%", (cdf("a", [1.0, 2.0, 3.0]), LATER), "Curves.", log_x=True),
                LineChart("Reload", "s", "ms", (LATER,), "One.", events=(PlotEvent(0.5, "now"),)),
                Bars("Empty", "x", (), "Nothing."),
            ),
        ),
        ReportSection("Second"),
    ),
    environment=(Fact("machine", "two cores"),),
    data={"good": True},
)  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(tmp_path_factory.mktemp("report"), SAMPLE).read_text()


def test_json_holds_everything(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "folder", SAMPLE)
    found = json.loads((tmp_path / "new" / "folder" / "report.json").read_text())
    assert found["format"] == 1
    assert found["urlward"]
    assert found["verdict"] == {"text": "All & well", "state": "good"}
    assert found["sections"][0]["tables"][0]["rows"][1] == ["none", None]
    assert found["sections"][0]["plots"][0]["bars"][0]["value"] == 84_000
    assert found["data"] == {"good": True}


def test_page_stands_alone(page: str) -> None:
    assert not re.findall(r"<(?:script|link|img|iframe|object|embed)\b", page)
    assert not re.findall(r"""(?:src|url\()\s*=?\s*["']?(?:https?:)?//""", page)
    assert "default-src 'none'" in page
    allowed = ("http://www.w3.org/", "https://www.w3.org/")
    assert all(address.startswith(allowed) for address in re.findall(r"https?://[^\s\"'<]+", page))


def test_page_escapes_what_it_shows(page: str) -> None:
    assert "&lt;script&gt;alert(1)" in page
    assert "Two &lt;b&gt;." in page
    assert "plain &amp; &lt;routing&gt;" in page


def test_page_can_be_read_by_all(page: str) -> None:
    assert '<html lang="en">' in page
    assert page.count("<h1>") == 1
    assert page.count("<h2>") == 3
    assert "<title>All &amp; well" in page
    figures = re.findall(r'<figure role="img" aria-label="([^"]+)"', page)
    assert figures == ["Rates. Plain is first.", "Times. Curves.", "Reload. One."], (
        "a plot without data is left out"
    )
    assert page.count("<caption>") == 2
    assert "prefers-color-scheme: dark" in page
    doubled = [name for name, times in Counter(re.findall(r'\bid="([^"]+)"', page)).items() if times > 1]
    assert not doubled


def test_plots_have_the_pages_colours(page: str) -> None:
    svg = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert svg.count("var(--ink)") > 3
    assert "var(--series1)" in svg
    assert not re.findall(r"(?:fill|stroke): ?#(?!fff)", svg)


def test_without_matplotlib_the_tables_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "may_plot", lambda: False)
    page = write_report(tmp_path, SAMPLE).read_text()
    assert "<svg" not in page
    assert "the extra <code>lab</code>" in page
    assert "12,345" in page


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_a_report_takes_the_place_of_a_report_alone(tmp_path: Path, name: str) -> None:
    write_report(tmp_path, SAMPLE)
    write_report(tmp_path, SAMPLE)
    (tmp_path / name).write_text("<!doctype html>another's")
    for write in (lambda: check_folder(tmp_path), lambda: write_report(tmp_path, SAMPLE)):
        with pytest.raises(
            SourceError, match=rf"{name}: there already, and no report: it is not overwritten"
        ):
            write()
    assert (tmp_path / name).read_text() == "<!doctype html>another's"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UrlwardError, match="cannot be written"):
        write_report(tmp_path / "file" / "in", SAMPLE)


@each_row(
    ("cell", "text"),
    [(1234567, "1,234,567"), (0.0, "0"), (-8e-05, "0"), (0.01234, "0.0123"), (1234.5, "1,234"),
     (None, "\N{EN DASH}"),
     ("x", "x"),
     (MarkedWord("bad", "bad"), "bad")],
)  # fmt: skip
def test_cells_as_text(cell: module.Cell, text: str) -> None:
    assert shown(cell) == text


def test_distribution() -> None:
    assert cdf("x", [3.0, 1.0]).points == ((1.0, 50.0), (3.0, 100.0))
    many = cdf("x", [float(n) for n in range(10_000)])
    assert len(many.points) <= 200
    assert many.points[-1] == (9999.0, 100.0)
    assert cdf("x", []).points == ()


def test_quantiles() -> None:
    values = [float(n) for n in range(1, 101)]
    assert quantile(values, 0.5) == 51
    assert quantile(values, 0.99) == 100
    assert quantile([], 0.5) is None
