"""The parts of the proxies' benchmark that need neither root nor a network."""

import json
import random
from collections import Counter
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from urlward.engine.entry import Kind
from urlward.engine.grammar import parse_line

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def cell(rate: float, *, downloads: bool = False, **more: Any) -> dict[str, Any]:
    name = "megabytes_s" if downloads else "requests_s"
    return {
        name: rate, "requests": int(rate * 3), "p50_ms": 1.5, "p99_ms": 4.0, "max_ms": 20.0, "failed": 0,
        "refused": 0, "proxy_busy": 0.98, "load_idle": 0.4, "per_cpu_s": rate, "at_origin": 1, "problems": [],
    } | more  # fmt: skip


@pytest.fixture
def result() -> dict[str, Any]:
    from benchmarks.proxy.plan import FULL, Case
    from benchmarks.proxy.proxies import PROXIES
    from benchmarks.proxy.summary import goals, summarise

    rates = {
        ("urlward", Case.KEEP): [20_000, 10_000], ("squid", Case.KEEP): [10_000, 10_000],
        ("squidguard", Case.KEEP): [8_000, 8_000], ("urlward", Case.CLOSE): [1_000, 1_000],
        ("squid", Case.CLOSE): [4_000, 4_000], ("urlward", Case.RELAYED): [25_000, 25_000],
        ("mitmdump", Case.RELAYED): [25_100, 25_100],
        ("urlward", Case.DOWNLOAD_INTERCEPTED): [500, 510],
        ("squid-tls", Case.DOWNLOAD_INTERCEPTED): [250, 250], ("urlward", Case.RELOAD): [9_000, 9_000],
    }  # fmt: skip
    rows = []
    for (proxy, case), values in rates.items():
        more: dict[str, Any] = {}
        if case is Case.RELAYED:
            more = {
                "load_idle": 0.0,
                "proxy_busy": 0.6,
                "per_cpu_s": 40_000 if proxy == "urlward" else 32_000,
            }
        if case is Case.RELOAD:
            more = {"in_force_s": 1.7}
        cells = [cell(value, downloads=case is Case.DOWNLOAD_INTERCEPTED, **more) for value in values]
        rows.append({"proxy": proxy, "case": str(case), "rounds": cells})
    for row in rows:
        summarise(row)
    proxies = {
        name: {
            "title": proxy.title, "version": "1.0", "note": proxy.note, "status": "ok", "memory": [5_000_000],
            "without": {str(case): why for case, why in proxy.without.items()},
        }
        for name, proxy in PROXIES.items()
    }  # fmt: skip
    proxies["privoxy"]["status"] = "not installed: no privoxy (privoxy)"
    machine = {
        "cpu": "some", "cores": 2, "memory": 2**34, "kernel": "Linux", "python": "CPython", "packages": {},
        "load": 0.1, "load_generator": "wrk 4",
    }  # fmt: skip
    made: dict[str, Any] = {
        "format": 1, "date": "2026-01-01", "machine": machine, "plan": asdict(FULL), "proxies": proxies,
        "results": rows,
    }  # fmt: skip
    made["goals"] = goals(made)
    return made


def by_name(result: dict[str, Any], name: str) -> dict[str, Any]:
    (goal,) = [goal for goal in result["goals"] if goal["goal"].startswith(name)]
    return goal


def test_ratios_are_taken_within_a_round(result):
    goal = by_name(result, "plain keep-alive: rate over Squid's with squidGuard")
    assert (goal["value"], goal["passed"]) == (pytest.approx((2.5 + 1.25) / 2), False)
    assert by_name(result, "plain new connection each")["passed"] is False
    assert by_name(result, "download intercepted")["value"] == pytest.approx(2.02)


def test_what_the_load_holds_back_is_compared_by_cpu(result):
    goal = by_name(result, "TLS relayed")
    assert "per second of CPU" in goal["goal"]
    assert (goal["value"], goal["passed"]) == (1.25, True)


def test_what_was_not_measured_is_not_judged(result):
    assert by_name(result, "TLS intercepted")["passed"] is None
    assert by_name(result, "soak: failed requests")["value"] is None


def test_a_small_list_is_not_judged(result):
    from benchmarks.proxy.summary import goals

    result["plan"]["entries"] = 20_000
    assert {goal["passed"] for goal in goals(result)} == {None}


def test_a_problem_is_told_and_counts(result):
    from benchmarks.proxy.report import report
    from benchmarks.proxy.summary import goals, summarise

    row = result["results"][0]
    row["rounds"][1]["problems"] = ["3 failed requests"]
    summarise(row)
    result["goals"] = goals(result)
    assert by_name(result, "turns of urlward")["passed"] is False
    assert "- urlward, plain keep-alive: 3 failed requests" in report(result)


def test_report_has_goals_and_a_row_for_what_is_not_there(result):
    from benchmarks.proxy.report import report

    text = report(result)
    assert "| Privoxy | not installed: no privoxy (privoxy) |" in text
    assert "| urlward | 15,000 ± 2,500 | 1,000 ± 0 | - | ≥ 25,000 ± 0 | - | - | 505 ± 2 | 5 |" in text
    assert "**missed**" in text
    assert "| urlward | 9,000 | 60% | 20 | 0 | 1.70 |" in text


def test_report_stands_between_its_marks(result, tmp_path):
    from benchmarks.proxy.report import BEGIN, END, differs, report, rewrite, to_json

    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    read = json.loads(to_json(result))
    assert differs(readme, read)
    rewrite(readme, read)
    assert not differs(readme, read)
    assert readme.read_text() == f"before\n{BEGIN}\n{report(result)}{END}\nafter\n"
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="marks"):
        rewrite(readme, read)


def test_soak_judges_whether_memory_is_level(result):
    from benchmarks.proxy.soak import level
    from benchmarks.proxy.summary import goals

    rising = [(float(n), 100.0 + n) for n in range(100)]
    assert level(rising)["memory_ratio"] > 1.2
    flat = [(0.0, 10.0), *((float(n), 100.0 + n % 2) for n in range(1, 100))]
    figures = level(flat) | {"failed": 0, "missed": 1}
    result["soak"] = {"minutes": 10, "entries": 1_000_000, "figures": figures}
    result["goals"] = goals(result)
    assert by_name(result, "soak: memory")["passed"] is True
    assert by_name(result, "soak: failed")["passed"] is True
    assert by_name(result, "soak: missed")["passed"] is False
    result["soak"]["minutes"] = 1
    assert {g["passed"] for g in goals(result) if g["goal"].startswith("soak")} == {None}


def test_load_generators_results_add_up():
    from benchmarks.proxy.load import Tally

    tally = Tally()
    one = {
        "requests": 3, "microseconds": 2_000_000, "connect": 0, "read": 1, "write": 0, "timeout": 1,
        "status": 2,
        "latency": [[1000, 2], [5000, 1]], "statuses": {"200": 3},
    }  # fmt: skip
    tally.add(one)
    tally.add(one | {"microseconds": 1_900_000, "latency": [[2000, 3]]})
    assert (tally.requests, tally.seconds, tally.failed, tally.refused) == (6, 2.0, 4, 4)
    assert tally.statuses == Counter({200: 6})
    assert [tally.quantile(share) for share in (0.01, 0.5, 0.9, 1)] == [1.0, 2.0, 5.0, 5.0]


def test_material_is_different_urls_in_runs_and_fits_all_lists(tmp_path):
    from benchmarks.proxy.material import INSPECTED, MARKERS, prepare, sample
    from benchmarks.proxy.plan import PROCESSES, Plan

    plan = Plan(peer_entries=2_000, urls=8_000)
    material = prepare(tmp_path, plan, urlward=False)
    requests = [request for path in material.plain for request in sample(path, plan.urls)]
    assert len(set(requests)) == len(requests) == plan.urls
    assert len(material.plain) == len(material.inspected) == PROCESSES
    blocked = [request for path in material.blocked for request in sample(path, plan.urls)]
    assert len(set(blocked)) == plan.urls
    for version, entries in enumerate(material.peers):
        assert len(entries) == plan.peer_entries
        listed = {entry.host for entry in entries if entry.kind in (Kind.DOMAIN, Kind.HOST)}
        assert {host for host, _ in blocked} <= listed
        assert MARKERS[version] in listed
        assert MARKERS[1 - version] not in listed
        assert not {host for host, _ in requests} & {entry.host for entry in entries}
        assert set(INSPECTED) <= {entry.host for entry in entries if entry.path}
    assert {host for host, _ in requests + blocked} <= set(material.hosts)
    assert all(host.rpartition(".")[2] in ("test", "example", "invalid") for host in material.hosts)


def test_squids_hosts_have_none_below_another(tmp_path):
    from benchmarks.proxy.proxies.privoxy import _pattern
    from benchmarks.proxy.proxies.squid import _above

    assert _above("a.b.test") == ["b.test", "test"]
    lines = ["a.test", "0.0.0.0 b.test", "http://c.test/x/y-z.html", "http://d.test/x/*"]
    assert [_pattern(entry) for line in lines for entry in parse_line(line)] == [
        ".a.test/", "b.test/", r"c.test/x/y-z\.html(\?|$)", "d.test/x/",
    ]  # fmt: skip


def test_memory_and_tree_are_of_the_process_and_all_below(tmp_path):
    from benchmarks.proxy.processes import memory, running, tree

    code = "sleep 30 & sleep 30 & wait"
    with running(["sh", "-c", code], 0, tmp_path / "log", []) as process:
        for _ in range(1000):
            if len(tree(process.pid)) == 3:
                break
        members = tree(process.pid)
        assert len(members) == 3
        assert memory(process.pid) > 0
    wait_for(lambda: all(ended(pid) for pid in members), "all have ended")


def ended(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    # Whoever adopted it may be slow to ask how it ended.
    return not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="dependency group bench is not installed")
def test_draws_plots(result, tmp_path):
    from benchmarks.proxy.plot import plot

    r = random.Random(1)
    result["soak"] = {
        "every_s": 5, "segment_s": 30,
        "segments": [{"requests": {"plain": r.randint(1, 9)}} for _ in range(4)],
        "memory": [[n, r.random()] for n in range(50)],
    }  # fmt: skip
    assert plot(result, tmp_path)
    for name in ("rates.svg", "soak.svg"):
        assert "<svg" in (tmp_path / name).read_text()[:1000]


def test_readme_says_what_the_committed_result_says():
    from benchmarks.proxy.report import differs

    path = ROOT / "benchmarks" / "proxy" / "results.json"
    if not path.exists():
        pytest.skip("not measured yet")
    result = json.loads(path.read_text())
    assert not differs(ROOT / "benchmarks" / "README.md", result), (
        "rewrite it: python -m benchmarks.proxy --report"
    )
