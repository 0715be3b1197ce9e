"""Labs as processes: what is left of one that ends in any way, labs side by side, and one that stays up."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import in_turns, wait_for
from lab.lab_support import LAB, inside_processes, lab, left, report, surroundings, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

LONG = """\
description = "Goes on until it is ended."
[list]
entries = "blocked.example"
[[steps]]
wait = 600
"""
SHORT = """\
description = "One page that is listed and one that is not."
[list]
entries = "blocked.example id=T-1"
[hosts]
"blocked.example" = {}
[[steps]]
clients = ["curl-1-4"]
requests = [
  { url = "http://blocked.example/secret-page", expect = "block" },
  { url = "http://plain.example/", expect = "pass", stage = 1 },
]
"""
FLEET = """\
[[steps]]
requests = [
  { url = "http://blocked.example/", source = "via1", expect = "block" },
  { url = "http://blocked.example/", source = "via2", expect = "block" },
]
[fleet]
nodes = 2
"""


def started(scenario: Path, report_folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*LAB, "run", str(scenario), "--report", str(report_folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=surroundings(),
    )


@pytest.mark.parametrize("number", in_turns(signal.SIGKILL, signal.SIGINT, signal.SIGTERM, of=3))
def test_nothing_is_left(number: signal.Signals, tmp_path: Path) -> None:
    scenario = tmp_path / "long.toml"
    scenario.write_text(LONG)
    before, processes = left(), inside_processes()
    process = started(scenario, tmp_path / "report")
    # nginx, dnsmasq, two agents and the filter besides the lab itself.
    wait_for(lambda: len(inside_processes() - processes) >= 6, "the lab to run", 120)
    if number == signal.SIGINT:
        # As a terminal does it: to all in the foreground.
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    code = process.wait(60)
    assert code == {signal.SIGINT: 130}.get(number, -number)
    wait_for(lambda: not inside_processes() - processes, "all its processes to end")
    assert left() == before
    assert not (tmp_path / "report").exists()


@pytest.mark.turn(1, 2)
def test_two_at_once_a_broken_expectation_and_what_a_report_hides(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(SHORT)
    bad.write_text(SHORT.replace('expect = "pass", stage = 1', 'expect = "block"'))
    running = [started(path, tmp_path / path.stem) for path in (good, bad)]
    assert [process.wait(240) for process in running] == [0, 1]
    found = report(tmp_path / "bad")
    # Where a machine stands still for seconds, the gateway lets pass what its filter does not answer for.
    missed = found["data"]["counts"]["missed"]
    assert missed in (1, 2)
    assert found["verdict"]["text"] == f"{missed} missed"
    for name in ("report.json", "report.html"):
        text = (tmp_path / "good" / name).read_text()
        assert "blocked.example" not in text
        assert "secret-page" not in text
        assert "line 9" in text
        assert "T-1" in text


def test_up_shell_run_in_it_and_down(tmp_path: Path) -> None:
    name = f"test-{os.getpid()}"
    scenario = tmp_path / "short.toml"
    scenario.write_text(SHORT)
    before, processes = left(), inside_processes()
    try:
        done = lab("up", scenario, "--name", name)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"lab {name}: up" in done.stdout
        again = lab("up", scenario, "--name", name)
        assert (again.returncode, again.stderr.count("\n")) == (2, 1)
        shell = ("shell", "--name", name)
        assert (
            "This page is blocked"
            in lab(*shell, "--", "curl", "-s", "http://blocked.example/").stdout.capitalize()
        )
        assert lab(*shell, "--", "curl", "-sf", "https://plain.example/").returncode == 0
        assert lab(*shell, "--machine", "neighbour", "--", "sh", "-c", "exit 7").returncode == 7
        none = lab(*shell, "--machine", "node1", "--", "true")
        assert (none.returncode, none.stderr) == (
            2, f"urlward: lab {name}: scenario short has no machine node1\n",
        )  # fmt: skip
        run = lab("run", scenario, "--in", name, "--report", tmp_path / "report")
        assert run.returncode == 0, run.stderr
        assert report(tmp_path / "report")["data"]["counts"]["caught"] == 1
        assert "lab" in lab(*shell, "--", "curl", "-s", "https://plain.example/").stdout
    finally:
        down = lab("down", "--name", name)
    assert (down.returncode, down.stderr) == (0, "")
    wait_for(lambda: not inside_processes() - processes, "all its processes to end")
    assert left() == before
    assert lab("shell", "--name", name).returncode == 2


@pytest.mark.long
@pytest.mark.turn(0, 2)  # when `test_scenarios` has no fleet
def test_a_fleet_in_a_lab_that_is_up_and_then_one_gateway_again(tmp_path: Path) -> None:
    name = f"fleet-{os.getpid()}"
    short, fleet = tmp_path / "short.toml", tmp_path / "fleet.toml"
    short.write_text(SHORT)
    fleet.write_text(SHORT + FLEET)
    before, processes = left(), inside_processes()
    try:
        assert lab("up", short, "--name", name).returncode == 0
        for scenario, caught in ((fleet, 3), (short, 1)):
            run = lab("run", scenario, "--in", name, "--report", tmp_path / "report")
            assert run.returncode == 0, run.stderr
            assert report(tmp_path / "report")["data"]["counts"]["caught"] == caught
    finally:
        lab("down", "--name", name)
    wait_for(lambda: not inside_processes() - processes, "all its processes to end")
    assert left() == before


@pytest.mark.turn(0, 2)
def test_a_lab_that_was_killed_is_not_up(tmp_path: Path) -> None:
    from urlward.lab.isolation import the_running

    name = f"killed-{os.getpid()}"
    scenario = tmp_path / "short.toml"
    scenario.write_text(SHORT)
    before, processes = left(), inside_processes()
    assert lab("up", scenario, "--name", name).returncode == 0
    os.kill(the_running(name).pid, signal.SIGKILL)
    wait_for(lambda: not inside_processes() - processes, "all its processes to end")
    done = lab("down", "--name", name)
    assert done.returncode == 2
    assert done.stderr.startswith(f"urlward: lab {name}: is not up")
    assert left() == before


def test_a_filter_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    scenario = tmp_path / "broken.toml"
    scenario.write_text(SHORT.replace("blocked.example id=T-1", "not an entry"))
    done = lab("run", scenario, "--report", tmp_path / "report")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("urlward: ")
