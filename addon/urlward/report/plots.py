"""Plots of a report as SVG for a page: text stays text, colours are the page's.

matplotlib draws with colours that stand for roles. In the result they become variables of the page's
style sheet, so that one drawing is right in light and in dark.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

State = Literal["good", "bad", "warn", "plain"]

_INK, _GRID = "#010101", "#020202"
_ROLES = {_INK: "var(--ink)", _GRID: "var(--line)"}
_STATES = {"plain": "#030301", "good": "#030302", "bad": "#030303", "warn": "#030304"}
_ROLES |= {colour: f"var(--{state})" for state, colour in _STATES.items()}
_SERIES = [f"#0404{number:02x}" for number in range(1, 9)]
_ROLES |= {colour: f"var(--series{number})" for number, colour in enumerate(_SERIES, 1)}
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))

_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "urlward",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_WIDTH = 7.2


@dataclass(frozen=True, slots=True)
class Bar:
    """Bar of a chart: ``low`` and ``high`` are the ends of its spread, where there is one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    state: State = "plain"


@dataclass(frozen=True, slots=True)
class Bars:
    """Bar chart, horizontal, the first bar on top.

    Attributes:
        title: what is compared.
        unit: of the values; the axis' label.
        bars: at least one, or nothing is drawn.
        alt: what the plot shows, in a sentence, for who cannot see it.
        log: whether the axis is logarithmic.
    """

    title: str
    unit: str
    bars: tuple[Bar, ...]
    alt: str
    log: bool = False
    kind: Literal["bars"] = "bars"


@dataclass(frozen=True, slots=True)
class Series:
    """Line of a plot: points as (x, y), ascending in x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class PlotEvent:
    """Event in a plot: a vertical line at ``x`` with a name."""

    x: float
    name: str


@dataclass(frozen=True, slots=True)
class LineChart:
    """Line chart over one x axis; `cdf` makes the series of a distribution.

    Attributes:
        title: what is shown.
        x, y: the axes' labels, units in brackets.
        series: at least one with points, or nothing is drawn.
        alt: what the plot shows, in a sentence.
        log_x: whether the x axis is logarithmic.
        events: what happened at some x.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    alt: str
    log_x: bool = False
    events: tuple[PlotEvent, ...] = ()
    kind: Literal["lines"] = "lines"


type Plot = Bars | LineChart


def cdf(name: str, values: Sequence[float]) -> Series:
    """The share of values (in percent) that are at most x, in at most 200 points."""
    ordered = sorted(values)
    count = len(ordered)
    steps = sorted({round(i * (count - 1) / 199) for i in range(200)}) if count > 200 else range(count)
    return Series(name, tuple((ordered[i], 100 * (i + 1) / count) for i in steps))


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that this share of the values does not exceed; None where there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@cache
def may_plot() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401 - whether it can be imported is the question
    except ImportError:
        return False
    return True


def draw(plot: Plot, name: str) -> str:
    """The plot as an ``<svg>`` element; empty where there is nothing to draw.

    Args:
        plot: what to draw.
        name: begins every identifier in it, so that several fit into one page.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(layout="constrained")
        axes = figure.add_subplot()
        drawn = _bars(figure, axes, plot) if plot.kind == "bars" else _lines(figure, axes, plot)
        if not drawn:
            return ""
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None})
    return _for_page(buffer.getvalue(), name)


def _bars(figure: Any, axes: Any, plot: Bars) -> bool:
    if not plot.bars:
        return False
    figure.set_size_inches(_WIDTH, 0.9 + 0.38 * len(plot.bars))
    for place, bar in enumerate(plot.bars):
        axes.barh(place, bar.value, height=0.62, color=_STATES[bar.state])
        if bar.low is not None and bar.high is not None:
            spread = [[max(bar.value - bar.low, 0)], [max(bar.high - bar.value, 0)]]
            axes.errorbar(bar.value, place, xerr=spread, color=_INK, ecolor=_INK, capsize=3, fmt="none")
        axes.annotate(
            _short(bar.value), (max(bar.value, bar.high or 0), place), (5, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(plot.bars)), [bar.label for bar in plot.bars])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(plot.unit)
    if plot.log:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(_tick)
    axes.margins(x=0.12)
    axes.grid(visible=True, axis="x", alpha=0.6)
    axes.set_axisbelow(True)
    return True


def _lines(figure: Any, axes: Any, plot: LineChart) -> bool:
    series = [one for one in plot.series if one.points]
    if not series:
        return False
    figure.set_size_inches(_WIDTH, 3.4)
    for number, one in enumerate(series):
        xs, ys = zip(*one.points, strict=True)
        axes.plot(
            xs, ys, label=one.name, linewidth=1.8,
            color=_SERIES[number % len(_SERIES)], linestyle=_DASHES[number % len(_DASHES)],
            marker="o" if len(xs) == 1 else None,
        )  # fmt: skip
    if plot.log_x and all(x > 0 for one in series for x, _ in one.points):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_tick)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_tick)
    for event in plot.events:
        axes.axvline(event.x, color=_INK, linewidth=0.8, linestyle=":")
        axes.annotate(
            event.name, (event.x, 1), (2, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    axes.set(xlabel=plot.x, ylabel=plot.y)
    axes.grid(visible=True, alpha=0.6)
    axes.set_axisbelow(True)
    if len(series) > 1 or not plot.title:
        figure.legend(loc="outside lower center", ncols=min(3, len(series)))
    return True


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _tick(value: float, _: int | None) -> str:
    return f"{value:,.10g}"


def _for_page(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # The size is the page's affair: the view box keeps the proportions.
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r'<svg aria-hidden="true" focusable="false" \1', svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", svg)
    svg = re.sub(r"font(-family)?: ([^;\"]*?)'[^;\"]*(?=[;\"])", r"font\1: \2inherit", svg)
    for colour, role in _ROLES.items():
        svg = svg.replace(colour, role)
    return svg.strip()
