"""The parts of the proxies' benchmark that need neither root nor a network."""

import json
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from urlward.engine.entry import Kind

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
        ("urlward-2", Case.KEEP): [22_000, 22_000],
        ("squid", Case.CLOSE): [4_000, 4_000], ("urlward", Case.NEW_RELAYED): [900, 900],
        ("squid", Case.NEW_RELAYED): [910, 910],
        ("urlward", Case.DOWNLOAD_INTERCEPTED): [500, 510],
        ("squid", Case.DOWNLOAD_INTERCEPTED): [250, 250], ("urlward", Case.RELOAD): [9_000, 9_000],
    }  # fmt: skip
    rows = []
    for (proxy, case), values in rates.items():
        more: dict[str, Any] = {}
        if case is Case.NEW_RELAYED:
            more = {"load_idle": 0.0, "proxy_busy": 0.6, "per_cpu_s": 2_000 if proxy == "urlward" else 1_600}
        if case is Case.CLOSE and proxy == "urlward":
            more = {"p99_ms": 10.0}
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
    proxies["haproxy"]["status"] = "not installed: no haproxy (haproxy)"
    machine = {
        "cpu": "some", "cores": 2, "memory": 2**34, "kernel": "Linux", "python": "CPython", "packages": {},
        "load": 0.1, "load_generator": "wrk 4",
    }  # fmt: skip
    made: dict[str, Any] = {
        "format": 2, "date": "2026-01-01", "machine": machine, "plan": asdict(FULL), "proxies": proxies,
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
    assert by_name(result, "plain new connection each: rate")["passed"] is False
    slow = by_name(result, "plain new connection each: 99th")
    assert (slow["value"], slow["passed"]) == (2.5, True)
    assert by_name(result, "download intercepted")["value"] == pytest.approx(2.02)


def test_what_the_load_holds_back_is_compared_by_cpu(result):
    goal = by_name(result, "new TLS relayed")
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
    assert "not installed: no haproxy (haproxy) |" in text
    assert "| | urlward | urlward, 2 workers | Squid | Squid with squidGuard |" in text
    assert "| plain | 15,000 ± 2,500 | 22,000 ± 0 | 10,000 ± 0 | 8,000 ± 0 |" in text
    assert "| TLS relayed, new connection each | ≥ 900 ± 0 | - | ≥ 910 ± 0 | - |" in text
    assert "| plain, new connection each | 1.50 / 10 / 20 | - | 1.50 / 4 / 20 | - |" in text
    assert "| plain | 15,000 | 22,000 | 15,000 | 22,000 |" in text
    assert "**missed**" in text
    assert "| urlward | 9,000 | 60% | 4 | 20 | 0 | 1.70 |" in text


def test_soak_judges_whether_memory_is_level(result):
    from benchmarks.proxy.plan import MODES
    from benchmarks.proxy.soak import level
    from benchmarks.proxy.summary import goals

    rising = [(float(n), 100.0 + n) for n in range(100)]
    assert level(rising)["memory_ratio"] > 1.2
    flat = [(0.0, 10.0), *((float(n), 100.0 + n % 2) for n in range(1, 100))]
    figures = level(flat) | {"failed": 0, "missed": 1}
    modes: dict[str, Any] = {mode: {} for mode in MODES}
    result["soak"] = {"minutes": 10, "entries": 1_000_000, "figures": figures, "modes": modes}
    result["goals"] = goals(result)
    assert by_name(result, "soak: memory")["passed"] is True
    assert by_name(result, "soak: failed")["passed"] is True
    assert by_name(result, "soak: missed")["passed"] is False
    del modes["socks5"]
    result["goals"] = goals(result)
    assert by_name(result, "soak: failed")["passed"] is None
    modes["socks5"], result["soak"]["minutes"] = {}, 1
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


def test_what_h2load_logged_is_a_result():
    from benchmarks.proxy.load import Tally, read_h2load

    output = (
        "Application protocol: h2\n\nfinished in 1.00s\n"
        "requests: 4 total, 5 started, 4 done, 3 succeeded, 1 failed, 1 errored, 0 timeout\n"
    )
    log = "1\t200\t1000\n2\t200\t3000\n3\t451\t2000\n4\t-1\t9000\n"
    tally = Tally()
    tally.add(read_h2load(output, log, 2))
    assert (tally.requests, tally.failed, tally.refused, tally.seconds) == (3, 1, 1, 2)
    assert tally.statuses == Counter({200: 2, 451: 1})
    assert tally.quantile(1) == 3.0
    for other in (output.replace("protocol: h2", "protocol: http/1.1"), "client could not connect to host"):
        with pytest.raises(RuntimeError, match="no HTTP/2"):
            read_h2load(other, "", 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="marks its sockets, which needs root")
@pytest.mark.parametrize("resume", [False, True])
def test_new_connections_resume_sessions_if_they_are_to(tmp_path, resume):
    result, reused = _new_connections(tmp_path, resume=resume)
    assert result["requests"] > 1
    assert result["statuses"] == {"200": result["requests"]}
    assert [result[kind] for kind in ("connect", "read", "write", "timeout", "status")] == [0] * 5
    assert sum(count for _, count in result["latency"]) == result["requests"]
    assert result["resumed"] == sum(reused) == (result["requests"] - 1 if resume else 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="marks its sockets, which needs root")
def test_an_answer_that_was_cut_is_a_failure(tmp_path):
    result, _ = _new_connections(tmp_path, size=7)
    assert result["requests"] == 0
    assert result["read"] > 1


def _new_connections(
    folder: Path, *, resume: bool = False, size: int = 5
) -> tuple[dict[str, Any], list[bool]]:
    """What ``sessions.py`` says of a server that sends five bytes, and which sessions that resumed."""
    from benchmarks.proxy import sessions
    from benchmarks.proxy.origin import certify

    certify(folder, ["a.test"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "origin.pem", folder / "origin.key")
    (folder / "requests").write_text("a.test\t/\n")
    reused: list[bool] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, context.wrap_socket(connection, server_side=True) as tls:
                tls.recv(65536)
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                reused.append(bool(tls.session_reused))
                with suppress(OSError):
                    tls.unwrap()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        job = {
            "file": str(folder / "requests"), "begin": 0, "address": listener.getsockname(), "via": "",
            "tls": True, "resume": resume,
        }  # fmt: skip
        # On a machine with other work there may be no two connections in so short a time.
        for seconds in (0.5, 5, 60):
            reused.clear()
            load = {"seconds": seconds, "timeout": 60, "mark": 1, "size": size, "jobs": [job]}
            done = subprocess.run(
                [sys.executable, "-I", "-S", sessions.__file__], input=json.dumps(load), capture_output=True,
                text=True, check=True,
            )  # fmt: skip
            result = json.loads(done.stdout.partition("RESULT ")[2])
            if result["requests"] + result["read"] > 1:
                break
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    return result, reused


def test_soak_counts_what_is_wrong_in_traffic_of_each_kind():
    from benchmarks.proxy.load import Tally
    from benchmarks.proxy.soak import judge

    blocked = Tally(requests=10, failed=1, statuses=Counter({451: 7, 200: 2, 502: 1}))
    assert judge(blocked, listed=True) == (2, 2)
    assert judge(Tally(requests=10, failed=1, refused=3), listed=False) == (4, None)
    assert judge(Tally(), listed=False) == (1, None)


def test_soak_has_traffic_and_downloads_in_every_mode(tmp_path):
    from benchmarks.proxy.material import prepare
    from benchmarks.proxy.measure import Bench
    from benchmarks.proxy.plan import MODES, Plan
    from benchmarks.proxy.soak import _downloads, _traffic

    plan = Plan(peer_entries=2_000, urls=8_000)
    traffic = list(_traffic(Bench(plan, prepare(tmp_path, plan, urlward=False), None, tmp_path)))
    for mode in MODES:
        assert {listed for name, _, listed, _ in traffic if name == mode} == {False, True}
        assert any(name == mode for name, _, _ in _downloads())
    assert len({(mode, kind) for mode, kind, *_ in traffic}) == len(traffic)


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


def test_squids_hosts_have_none_below_another():
    from benchmarks.proxy.proxies.squid import _above

    assert _above("a.b.test") == ["b.test", "test"]


def test_memory_and_tree_are_of_the_process_and_all_below(tmp_path):
    from benchmarks.proxy.processes import memory, running, tree

    code = "sleep 30 & sleep 30 & wait"
    with running(["sh", "-c", code], "0", tmp_path / "log", []) as process:
        wait_for(lambda: len(tree(process.pid)) == 3, "it to start the others")
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
