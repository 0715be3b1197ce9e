"""Report document of a lab run, a replayed log or a known file: its content, and its two files.

A report is plain values: a verdict in words, facts, and sections of tables and plots. Whoever makes one
decides what may stand in it; nothing here looks at URLs. `write_report` writes ``report.json`` for
programs and ``report.html`` for people: one page without outside resources or scripts, whose plots are
inline SVG. Plots need matplotlib (the extra ``lab``); without it the page says so.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from urlward.engine.errors import UrlwardError
from urlward.lists.build import check_place, write_atomically
from urlward.report.plots import Plot, State, draw, may_plot

FORMAT = 1
"""Format version of ``report.json``; it changes where a reader of the last one would misread it."""

JSON_FILE, PAGE_FILE = "report.json", "report.html"

_GENERATOR = b'<meta name="generator" content="urlward">'
"""Of the page; by this it is told from a page of others."""


@dataclass(frozen=True, slots=True)
class MarkedWord:
    """Marked word: shown in a colour and with a sign, so that colour is not the only difference."""

    text: str
    state: State


type Cell = str | int | float | MarkedWord | None


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Table of a report.

    Attributes:
        title: its caption.
        columns: headings, units in brackets.
        rows: as many cells each; numbers are set to the right, None is shown as a dash.
        note: a sentence below it.
        folded: whether it is hidden behind its caption at first, for long ones.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """Figure or word with its label, such as "missed", 0."""

    label: str
    value: Cell
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportSection:
    """Section of the report page.

    Attributes:
        title: its heading.
        explanation: paragraphs for a reader who has not read the manual; blank lines part them.
        facts: large figures at its top.
        tables, plots: shown in this order: plots, then tables.
    """

    title: str
    explanation: str = ""
    facts: tuple[Fact, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportDocument:
    """Report of a lab run, a replay or a known file.

    Attributes:
        title: such as "Lab run: smoke".
        verdict: the outcome in a few words, with its state.
        summary: it in one or two sentences.
        facts: the figures that matter most.
        sections: in order.
        environment: what was run, on what, when.
        data: whatever else programs may want, in ``report.json`` alone; JSON values.
    """

    title: str
    verdict: MarkedWord
    summary: str
    facts: tuple[Fact, ...] = ()
    sections: tuple[ReportSection, ...] = ()
    environment: tuple[Fact, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


def check_folder(folder: Path, *, replaces: bool = True) -> None:
    """See, before there is a report, whether its folder has other files of its files' names.

    Args:
        folder: for the report.
        replaces: whether it takes the place of a report that is there.

    Raises:
        SourceError: it has.
    """
    kind = "no report" if replaces else "perhaps another report"
    check_place(folder / JSON_FILE, lambda there: replaces and b'"urlward": ' in there[:100], kind)
    check_place(folder / PAGE_FILE, lambda there: replaces and _GENERATOR in there, kind)


def write_report(folder: Path, report: ReportDocument, mode: int = 0o644, *, replaces: bool = True) -> Path:
    """Write both files into a folder, which is made where it is not there.

    Args:
        folder: for them.
        report: it.
        mode: of the files.
        replaces: as of `check_folder`.

    Returns:
        The page.

    Raises:
        UrlwardError: it cannot be written.
        SourceError: likewise, or the folder has other files of these names.
    """
    check_folder(folder, replaces=replaces)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / JSON_FILE, _json(report).encode(), mode)
        page = folder / PAGE_FILE
        write_atomically(page, _page(report).encode("utf-8", "replace"), mode)
    except OSError as e:
        raise UrlwardError(f"{folder}: the report cannot be written: {e.strerror or e}") from e
    return page


def _json(report: ReportDocument) -> str:
    return (
        json.dumps({"format": FORMAT, "urlward": version("urlward"), **dataclasses.asdict(report)}, indent=1)
        + "\n"
    )


def _page(report: ReportDocument) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, paragraphs=_paragraphs, figures=_figure_columns)
    environment.tests.update(mark=lambda cell: isinstance(cell, MarkedWord))
    numbers = iter(range(1, 1000))

    def svg(plot: Plot) -> Markup:
        return Markup(draw(plot, f"plot{next(numbers)}"))  # noqa: S704 - matplotlib's, which escapes text

    return environment.get_template("report.html.j2").render(report=report, svg=svg if may_plot() else None)


def _is_figure(cell: Cell) -> bool:
    return isinstance(cell, int | float)


def _figure_columns(table: ReportTable) -> list[bool]:
    """Which columns hold numbers, and what has none."""
    columns = [[cell for cell in column if cell is not None] for column in zip(*table.rows, strict=True)]
    return [bool(cells) and all(map(_is_figure, cells)) for cells in columns] or [False] * len(table.columns)


def shown(cell: Cell) -> str:
    """A cell as text: thousands separated by commas, three significant figures, no ten-thousandths."""
    if cell is None:
        return "\N{EN DASH}"
    if isinstance(cell, MarkedWord):
        return cell.text
    if isinstance(cell, int) or (isinstance(cell, float) and abs(cell) >= 1000):
        return f"{cell:,.0f}"
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) >= 0.0005 else "0"
    return cell


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
