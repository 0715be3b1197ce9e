"""The part of ``benchmarks/README.md`` that is written from the JSON, and its plot."""

from pathlib import Path
from typing import Any

from benchmarks.engine.machine import measured
from benchmarks.files.material import LIGHT
from benchmarks.goals import Goal, goals_table, judge
from benchmarks.svg import pyplot

PLOT = Path(__file__).with_name("recall.svg")

_FULL, _PICTURES = 1_000_000, 2_000
_CONFIDENT = 31
_SHOWN = 16, _CONFIDENT, 48, 64


def goals(result: dict[str, Any]) -> list[Goal]:
    """What was to be reached, and what was; of fewer pictures or entries nothing is judged."""
    light = min(result["recall"][name][_CONFIDENT] for name in LIGHT)
    is_full = result["entries"] == _FULL and result["pictures"] >= _PICTURES
    found = [
        ("lookup in 1,000,000 PDQ digests, 99th percentile", "ms", False, 20.0, result["close"]["p99_ms"]),
        ("changed little and found, share of the worst change", "", True, 0.95, light),
        ("strangers taken for a listed one, share", "", False, 0.0, result["strangers"][_CONFIDENT]),
    ]
    return [
        judge(goal, unit, limit, value, least=least, judged=is_full)
        for goal, unit, least, limit, value in found
    ]


def report(result: dict[str, Any]) -> str:
    """Machine, goals and figures, as Markdown."""
    close, far = result["close"], result["far"]
    columns = " | ".join(f"distance {d}" for d in _SHOWN)
    rows = [(name, [f"{100 * shares[d]:.1f} %" for d in _SHOWN]) for name, shares in result["recall"].items()]
    strangers = [f"{100 * result['strangers'][d]:.2f} %" for d in _SHOWN]
    return "\n".join(
        [
            measured(result, f"{result['pictures']:,} pictures, as many strangers"),
            "",
            goals_table(goals(result)),
            "",
            f"| found at most so far away | {columns} |",
            f"|---|{'---:|' * len(_SHOWN)}",
            *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows),
            f"| *a stranger, taken for any of {result['pictures']:,}* | {' | '.join(strangers)} |",
            "",
            "![Recall and false matches by distance](files/recall.svg)",
            "",
            f"| {result['entries']:,} PDQ digests | up to distance 31 | beyond |",
            "|---|---:|---:|",
            f"| index made, s | {close['load_s']:.1f} | {far['load_s']:.2f} |",
            f"| memory, bytes a digest | {close['bytes']:.0f} | {far['bytes']:.0f} |",
            f"| lookup of a picture, median, ms | {close['median_ms']:.2f} | {far['median_ms']:.1f} |",
            f"| of CPU time, median, ms | {close['cpu_ms']:.2f} | {far['cpu_ms']:.1f} |",
            f"| lookup of a picture, 99th percentile, ms | {close['p99_ms']:.2f} | {far['p99_ms']:.1f} |",
            "",
            f"A JPEG picture from its file to its digests, in a confined process of its own: "
            f"{result['sandbox']['small_ms']:.0f} ms for 400 by 300 pixels, "
            f"{result['sandbox']['large_ms']:.0f} ms for 1600 by 1200.",
        ]
    )


def draw(result: dict[str, Any], path: Path = PLOT) -> bool:
    """Write the plot; False without matplotlib."""
    if (plots := pyplot()) is None:
        return False
    figure, axis = plots.subplots(figsize=(9, 5.5), layout="constrained")
    for name, shares in result["recall"].items():
        axis.plot(range(len(shares)), shares, label=name, linestyle="-" if name in LIGHT else "--")
    axis.plot(
        range(len(result["strangers"])), result["strangers"], label="strangers", color="black", linewidth=2.5
    )
    axis.axvline(_CONFIDENT, color="#b3261e", linestyle=":", label="distance 31, the default")
    axis.set(title="Pictures that are found, by distance", xlabel="distance, bits of 256", ylabel="share")
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize="x-small", loc="center right")
    figure.savefig(path, format="svg", metadata={"Date": None})
    plots.close(figure)
    return True
