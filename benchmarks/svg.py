"""Plots of the benchmarks, as SVG."""

from typing import Any


def pyplot() -> Any | None:
    """Matplotlib's, set up so that the same result gives the same file; None where it is not installed.

    Identifiers are fixed, and text stays text; whoever saves leaves out the date.
    """
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "urlward"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as made

    return made
