"""The part of ``benchmarks/README.md`` that says what networks of several sizes need, and its plot."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.scale.figures import Figures
from benchmarks.scale.model import Limits, Plan, Traffic, plan
from benchmarks.svg import pyplot

PLOT = Path(__file__).with_name("scale.svg")
SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000)


def report(traffic: Traffic, limits: Limits, figures: Figures, subscribers: Sequence[int] = SIZES) -> str:
    """Assumptions and tables, as Markdown."""
    plans = [plan(some, traffic, limits, figures) for some in subscribers]
    measured = ", ".join(f"{name} {date}" for name, date in sorted(figures.measured.items()))
    lines = [
        f"Computed from the figures of {measured}. Assumed of traffic: {_said(traffic)}. Of what there is: "
        f"{_said(limits)}.",
        "",
        f"![Needs by number of subscribers, and a day of the largest]({PLOT.parent.name}/{PLOT.name})",
        "",
        "| subscribers | " + " | ".join(f"{p.subscribers:,.0f}" for p in plans) + " |",
        "|---|" + "---:|" * len(plans),
    ]
    rows: list[tuple[str, list[str]]] = [
        ("routed in the busiest five minutes, Gbit/s", [_short(p.peak("gbit")) for p in plans]),
        ("nodes", [f"{p.nodes:,}" for p in plans]),
        ("needed for", ["their lines" if p.by_line else "their cores" for p in plans]),
        ("cores busy with packets of stage 1, all nodes", [_short(p.peak("kernel")) for p in plans]),
        ("with DNS", [_short(p.peak("dns")) for p in plans]),
        ("with connections that are steered", [_short(p.peak("filter")) for p in plans]),
        ("memory of a node, MB", [_short(p.memory / 1e6) for p in plans]),
        ("addresses in each node's sets", [_short(p.steered) for p in plans]),
        ("addresses steered anew a second", [_short(p.peak("renewals")) for p in plans]),
        ("blocks recorded a second", [_short(p.peak("events")) for p in plans]),
        ("assignments a second", [_short(p.peak("assignments")) for p in plans]),
        ("assignments kept, millions", [_short(p.rows / 1e6) for p in plans]),
        ("in partitions of a day and class, at most", [f"{p.partitions:,}" for p in plans]),
    ]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows]
    lines += [
        "",
        "Of what there is only so much, the share that is needed; beyond 1 it breaks:",
        "",
        "| subscribers | " + " | ".join(f"{p.subscribers:,.0f}" for p in plans) + " | grows |",
        "|---|" + "---:|" * len(plans) + "---|",
    ]
    for i, need in enumerate(plans[0].needs):
        shares = (p.needs[i].share for p in plans)
        cells = (f"**{share:.2f}**" if share > 1 else f"{share:.3f}" for share in shares)
        lines.append(f"| {need.what} | " + " | ".join(cells) + f" | {need.grows} |")
    lines += ["", *(_first(p) for p in plans[-2:])]
    return "\n".join(lines)


def _first(plan_: Plan) -> str:
    need = plan_.first
    broken = [n.what for n in sorted(plan_.needs, key=lambda n: -n.share) if n.share > 1]
    has = f"With {plan_.subscribers:,.0f} subscribers, "
    nearest = f"{need.what} ({_short(need.need)} of {_short(need.limit)} {need.unit})"
    if not broken:
        return f"{has}nothing breaks; nearest to its limit are {nearest}.\n"
    others = f", then {', '.join(broken[1:])}" if broken[1:] else ""
    return f"{has}what breaks first are {nearest}{others}.\n"


def _said(some: Traffic | Limits) -> str:
    return ", ".join(f"`{f.name}` {getattr(some, f.name):,g}" for f in fields(some))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def draw(traffic: Traffic, limits: Limits, figures: Figures, path: Path = PLOT) -> bool:
    """Write the plot; False without matplotlib."""
    if (plots := pyplot()) is None:
        return False
    sizes = [SIZES[0] * 10 ** (step / 10) for step in range(31)]
    plans = [plan(size, traffic, limits, figures) for size in sizes]
    figure, (left, middle, right) = plots.subplots(1, 3, figsize=(17, 5), layout="constrained")
    for i, need in enumerate(plans[0].needs):
        left.plot(sizes, [p.needs[i].share for p in plans], label=need.what)
    left.axhline(1, color="#b3261e", linestyle="--")
    _axes(left, "Share of what there is", "subscribers")
    left.set_ylim(bottom=1e-5)
    left.legend(fontsize="x-small", loc="lower right")
    middle.plot(sizes, [p.nodes for p in plans], label="nodes")
    for name, title in (
        ("kernel", "cores, packets"),
        ("dns", "cores, DNS"),
        ("filter", "cores, connections"),
    ):
        middle.plot(sizes, [p.peak(name) for p in plans], label=title)
    _axes(middle, "Nodes, and cores of all of them", "subscribers")
    middle.legend(fontsize="x-small")
    of = plan(10_000_000, traffic, limits, figures)
    hours = [moment.hour for moment in of.day]
    for name, title in (("kernel", "packets"), ("dns", "DNS"), ("filter", "connections")):
        right.plot(hours, [getattr(moment, name) for moment in of.day], label=title)
    right.set(title="10,000,000 subscribers: cores through a day", xlabel="hour", yscale="log")
    right.grid(visible=True, alpha=0.3)
    right.legend(fontsize="x-small")
    figure.savefig(path, format="svg", metadata={"Date": None})
    plots.close(figure)
    return True


def _axes(axis: Any, title: str, label: str) -> None:
    axis.set(title=title, xlabel=label, xscale="log", yscale="log")
    axis.grid(visible=True, alpha=0.3)
