"""The plot of a result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.svg import pyplot

type Figure = Callable[[dict[str, Any]], float]

_PANELS: list[tuple[str, str, Figure]] = [
    ("An unlisted request", "µs", lambda f: f["check_us"]["miss"]["median"]),
    ("Memory", "bytes an entry", lambda f: f["bytes_per_entry"]),
    ("Building", "s", lambda f: f["build_s"]),
    ("Longest stall when a list changes", "ms", lambda f: f["stall_ms"]),
]
_SMALLEST = {"Memory": 10_000}
"""Below, pages of the allocator are all that would be seen."""


def plot(result: dict[str, Any], path: Path) -> bool:
    """Write the plot as SVG; False where matplotlib is not installed."""
    if (plots := pyplot()) is None:
        return False
    figure, axes = plots.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    for axis, (title, unit, get) in zip(axes.flat, _PANELS, strict=True):
        for name, engine in result["engines"].items():
            points = [
                (row["size"], get(row["figures"]))
                for row in result["results"]
                if row["engine"] == name and row["status"] == "ok" and row["size"] >= _SMALLEST.get(title, 0)
            ]
            if points:
                width = 2.5 if name == "urlward" else 1.2
                axis.plot(*zip(*points, strict=True), marker="o", label=engine["title"], linewidth=width)
        axis.set(title=title, ylabel=unit, xlabel="entries", xscale="log", yscale="log")
        axis.grid(visible=True, which="major", alpha=0.3)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})
    plots.close(figure)
    return True
