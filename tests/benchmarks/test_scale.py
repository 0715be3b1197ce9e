import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from urlward.engine.digest import Key
from urlward.fleet import nodes
from urlward.fleet.nodes import NodeReport

ROOT = Path(__file__).parents[2]

with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend(str(ROOT))
    from benchmarks.readme import README, parts
    from benchmarks.scale.figures import read
    from benchmarks.scale.model import (
        DAY,
        READ_IN_A_SECOND,
        REPORT,
        STEP,
        Limits,
        Traffic,
        curve,
        plan,
    )
    from benchmarks.scale.report import report

FIGURES = read()


def needs(subscribers: float, traffic: Traffic) -> dict[str, float]:
    return {need.what: need.need for need in plan(subscribers, traffic, Limits(), FIGURES).needs}


def test_a_day_has_one_busiest_and_one_quietest_hour():
    day = [curve(second / 3600, 0.25) for second in range(0, DAY, STEP)]
    assert max(day) == pytest.approx(1)
    assert min(day) == pytest.approx(0.25)
    assert day.index(max(day)) * STEP == 21 * 3600
    assert day.index(min(day)) * STEP == 5 * 3600


def test_what_a_day_brings_is_all_in_its_steps():
    traffic = Traffic(blocks=0.5, assignments=3)
    day = plan(1_000_000, traffic, Limits(), FIGURES).day
    assert sum(moment.events for moment in day) * STEP == pytest.approx(500_000)
    assert sum(moment.assignments for moment in day) * STEP == pytest.approx(3_000_000)


def test_ten_times_the_subscribers_need_ten_times_the_cores_and_rows():
    small, large = (plan(some, Traffic(), Limits(spare=0), FIGURES) for some in (1_000_000, 10_000_000))
    for name in ("gbit", "kernel", "filter", "dns", "events", "assignments"):
        assert large.peak(name) == pytest.approx(10 * small.peak(name))
    assert large.nodes == pytest.approx(10 * small.nodes, rel=0.01)
    assert large.rows == 10 * small.rows


def test_no_more_addresses_are_steered_than_names_have():
    traffic = Traffic(names=1_000, addresses=3)
    some = needs(1_000, traffic)["addresses in a steer set"]
    many = needs(1e12, traffic)["addresses in a steer set"]
    assert some < many / 4
    assert many == pytest.approx(3_000, rel=0.02)


def test_a_host_without_steered_traffic_costs_the_filter_nothing():
    nobody = plan(1_000_000, replace(Traffic(), steered=0, blocks=0), Limits(), FIGURES)
    assert nobody.peak("filter") == nobody.peak("renewals") == nobody.steered == 0


def test_what_breaks_first_is_what_is_furthest_beyond_its_limit():
    broken = plan(10_000_000, Traffic(), Limits(terabytes=0.001), FIGURES)
    assert broken.first.what == "assignments kept"
    assert "what breaks first are assignments kept" in report(
        Traffic(), Limits(terabytes=0.001), FIGURES, (10_000_000,)
    )
    assert "nothing breaks" in report(Traffic(), Limits(), FIGURES, (1_000,))


def test_what_nodes_see_of_each_other_grows_with_their_square_and_what_they_read_of_reports_does_not():
    assert READ_IN_A_SECOND == nodes.READ_IN_A_SECOND
    traffic = replace(Traffic(), steered=0)
    small, large = (needs(some, traffic)["what nodes see of each other"] for some in (10**7, 10**8))
    few, many = (plan(some, traffic, Limits(), FIGURES).nodes for some in (10**7, 10**8))
    assert few > READ_IN_A_SECOND
    assert many / few < large / small < (many / few) ** 2
    said = NodeReport(
        1796010344.5, True, "0.1.0", {f"list-{n}": 1796010344 for n in range(6)}, 9_999, 10**7, 999, 1.25, [],
        "0123456789abcdef", issued=[f"list-{n}" for n in range(6)],
    )  # fmt: skip
    sealed = Key(b"k" * 32).seal(msgspec.json.encode(("gw-1", said)))
    assert 0.8 * REPORT < len(sealed) < REPORT


def test_the_command_takes_each_assumption():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", "--subscribers", "5000", "--mbit", "7.25"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "`mbit` 7.25" in done.stdout
    assert "| subscribers | 5,000 |" in done.stdout


def test_the_table_is_of_the_figures_in_the_repository():
    first = "<!-- scale: written by `python -m benchmarks.scale --report`, not by hand -->"
    _, text, _ = parts(README.read_text(), first, "<!-- scale: end -->")
    assert text.strip() == report(Traffic(), Limits(), FIGURES).strip()
