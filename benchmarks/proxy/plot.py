"""The plots of a result."""

from pathlib import Path
from typing import Any

from benchmarks.proxy.plan import Case
from benchmarks.proxy.summary import SUBJECT, find, rate
from benchmarks.svg import pyplot

_PANELS = [case for case in Case if case is not Case.RELOAD]
_OURS, _THEIRS = "#b3261e", "#7a8a99"


def plot(result: dict[str, Any], folder: Path) -> bool:
    """Write `rates.svg`, and `soak.svg` where there was one; False without matplotlib."""
    if (plots := pyplot()) is None:
        return False
    if result.get("results"):
        _rates(plots, result, folder / "rates.svg")
    if result.get("soak"):
        _soak(plots, result["soak"], folder / "soak.svg")
    return True


def _rates(plots: Any, result: dict[str, Any], path: Path) -> None:
    figure, axes = plots.subplots(4, 4, figsize=(16, 12), layout="constrained")
    for axis, case in zip(axes.flat, [*_PANELS, None], strict=True):
        bars: list[tuple[str, str, float, float, float]] = []
        for name, proxy in result["proxies"].items():
            if case is None:
                sizes = sorted(size / 1e6 for size in proxy["memory"])
                if sizes and name != "none":
                    middle = sizes[len(sizes) // 2]
                    bars.append((name, proxy["title"], middle, middle - sizes[0], sizes[-1] - middle))
            elif row := find(result["results"], name, case):
                spread = row["figures"][rate(case)]
                middle = spread["median"]
                below, above = middle - spread["low"], spread["high"] - middle
                bars.append((name, proxy["title"], middle, below, above))
        if not bars:
            axis.set_axis_off()
            continue
        names, titles, values, below, above = zip(*bars[::-1], strict=True)
        colours = [_OURS if name == SUBJECT else _THEIRS for name in names]
        axis.barh(titles, values, xerr=(below, above), color=colours, ecolor="#333333")
        unit = "MB" if case is None else "MB/s" if rate(case) == "megabytes_s" else "requests/s"
        axis.set(title=case or "memory", xlabel=unit)
        axis.grid(visible=True, axis="x", alpha=0.3)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plots.close(figure)


def _soak(plots: Any, soak: dict[str, Any], path: Path) -> None:
    figure, (above, below) = plots.subplots(2, 1, figsize=(9, 6), layout="constrained", sharex=True)
    segments, step = soak["segments"], soak["segment_s"]
    times = [(n + 0.5) * step / 60 for n in range(len(segments))]
    for kind in segments[0]["requests"]:
        above.plot(times, [s["requests"][kind] / step for s in segments], marker=".", label=kind)
    above.set(title=f"Mixed load, the list replaced every {soak['every_s']:g} s", ylabel="requests/s", ylim=0)
    above.legend(fontsize="small", ncols=3)
    below.plot([at / 60 for at, _ in soak["memory"]], [size for _, size in soak["memory"]], color=_OURS)
    below.set(ylabel="memory, MB", xlabel="minutes", ylim=0)
    for axis in (above, below):
        axis.grid(visible=True, alpha=0.3)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plots.close(figure)
