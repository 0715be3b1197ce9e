"""The part of ``benchmarks/README.md`` that is written from the JSON."""

from typing import Any

from benchmarks.engine.machine import measured
from benchmarks.goals import Goal, goals_table, judge

_GOALS = (
    ("unlisted_us", "a digest that is not listed is looked up", "µs", 2.0),
    ("load_step_ms", "longest step of loading, which lets others run", "ms", 20.0),
    ("stall_ms", "longest wait of another thread while loading", "ms", 20.0),
    ("release_step_ms", "longest step of freeing", "ms", 20.0),
)
_FULL = 1_000_000


def goals(result: dict[str, Any]) -> list[Goal]:
    """What was to be reached, and what was; with fewer entries nothing is judged."""
    is_full = result["entries"] == _FULL
    return [judge(goal, unit, limit, result[name], judged=is_full) for name, goal, unit, limit in _GOALS]


def report(result: dict[str, Any]) -> str:
    """Machine, goals and figures, as Markdown."""
    entries = 2 * result["entries"]
    return "\n".join(
        [
            measured(
                result,
                f"{result['entries']:,} exact and as many PDQ digests",
                cores="cores of which one is used",
            ),
            "",
            goals_table(goals(result)),
            "",
            "| | |",
            "|---|---:|",
            f"| compiled from text, s | {result['build_s']:.1f} |",
            f"| artifact, bytes an entry | {result['bytes'] / entries:.1f} |",
            f"| loaded, s | {result['load_s']:.2f} |",
            f"| memory beside the artifact's, bytes an entry | {max(result['memory'], 0) / entries:.2f} |",
            f"| lookup of a digest that is not listed, µs | {result['unlisted_us']:.2f} |",
            f"| of one that is, with its verdict, µs | {result['listed_us']:.2f} |",
            f"| all PDQ digests opened, to compare pictures with, s | {result['pictures_s']:.2f} |",
            f"| verdict on a picture that is like one, ms | {result['picture_verdict_ms']:.2f} |",
        ]
    )
