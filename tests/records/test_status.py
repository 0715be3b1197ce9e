import json
from pathlib import Path
from typing import Any

from urlward.commands.status import lines
from urlward.config import FeedTable
from urlward.config.sources import read_sources
from urlward.records.delivery import RecorderState, StoreState
from urlward.records.exposition import Exposition, FleetFigures
from urlward.records.metrics import ListFacts, Metrics
from urlward.records.status import health_of, readiness_of, status_alone, status_of

NOW = 1_800_000_000.0
FEEDS = (FeedTable(name="feed", path="none"),)


def counted(*lists: ListFacts) -> dict[str, Any]:
    metrics = Metrics(NOW)
    metrics.lists(lists)
    metrics.requests("match", "block")
    metrics.connections(+1)
    metrics.queue(2, 3)
    metrics.stall(0.004)
    return metrics.snapshot()


def made(state: Path, recorder: RecorderState, feeds: tuple[FeedTable, ...] = (), **more: Any) -> Exposition:
    exposition = Exposition(
        feeds, state, recorder=lambda: recorder, clock=lambda: NOW, steady=lambda: 0.0, **more
    )
    exposition.take("a", counted(ListFacts("one", 3, 10, int(NOW) - 7200)))
    return exposition


def test_all_is_well(tmp_path: Path) -> None:
    exposition = made(tmp_path, RecorderState(stores={"sqlite": StoreState(written=5)}))
    found = json.loads(json.dumps(status_of(exposition, node="gw1", now=NOW)))
    assert found["ok"]
    assert found["workers"] == {"expected": 1, "reporting": 1, "silent": []}
    assert found["lists"] == [{"name": "one", "serial": 3, "entries": 10, "age": 7200, "agreed": True}]
    assert found["stores"] == [{"name": "sqlite", "up": True, "written": 5, "failures": 0}]
    assert (found["queue"], found["dropped"], found["connections"]) == (2, 3, 1)
    assert health_of(exposition).ok
    assert readiness_of(exposition).ok
    text = "\n".join(lines(found))
    assert "1 of 1 report" in text
    assert "one        10       3  2h ago" in text
    assert "sqlite        5         0  up" in text
    assert "not " not in text
    assert "stall        4 ms" in text


def test_a_clock_that_was_set_back_makes_no_list_younger_than_new(tmp_path: Path) -> None:
    exposition = made(tmp_path, RecorderState())
    assert status_of(exposition, node="gw1", now=0.0)["lists"][0]["age"] == 0


def test_lists_whose_names_no_label_takes_are_not_one_that_differs(tmp_path: Path) -> None:
    exposition = made(tmp_path, RecorderState(stores={"sqlite": StoreState()}))
    exposition.take("a", counted(ListFacts("a (1)", 3, 10, 0), ListFacts("a (2)", 4, 20, 0)))
    found = status_of(exposition, node="gw1", now=NOW)
    assert [(one["name"], one["agreed"]) for one in found["lists"]] == [("other", True)]
    assert found["ok"]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    recorder = RecorderState(
        stores={"sqlite": StoreState(up=False)}, alarms={"probing": "a client reads the list out"}
    )
    exposition = made(tmp_path, recorder, FEEDS)
    exposition.take("b", counted(ListFacts("one", 4, 11)))
    exposition.expected = 3
    found = status_of(exposition, now=NOW)
    assert not found["ok"]
    wrong = list(lines(found))[-5:]
    assert wrong == [
        "alarm: probing: a client reads the list out",
        "list one: workers have different serials",
        "not healthy: workers: 2 of 3 report",
        "not ready: stores: sqlite",
        "not ready: feeds: feed",
    ]


def test_a_configuration_that_is_not_in_force_is_not_all_well(tmp_path: Path) -> None:
    file, included = tmp_path / "urlward.toml", tmp_path / "more.toml"
    file.write_text('include = ["more.toml"]\nlisten = ":8080"\n')
    read = read_sources(file)

    def changed() -> str:
        found = status_of(made(tmp_path, RecorderState()), now=NOW, changed=read.changed("reload it"))
        said = [line for line in lines(found) if line.startswith("configuration: ")]
        assert found["ok"] is (not said)
        return "".join(said)

    assert not changed()
    file.write_text('# another word\ninclude = ["more.toml"]\nlisten = ":8080"\n')
    assert not changed()
    included.write_text('list = ["games.txt"]\n')
    assert "not in force: reload" in changed()
    included.unlink()
    assert not changed()
    file.write_text("listen = \n")
    assert f"{file}:1: not TOML" in changed()
    file.unlink()
    assert "what it said before is in force" in changed()


def test_a_trial_is_said(tmp_path: Path) -> None:
    exposition = made(tmp_path, RecorderState())
    assert not any(line.startswith("monitor ") for line in lines(status_of(exposition, now=NOW)))
    found = status_of(exposition, now=NOW, monitors=True)
    assert found["ok"]
    assert any(line.startswith("monitor      nothing is blocked") for line in lines(found))


def test_an_alarm_alone_is_not_all_well(tmp_path: Path) -> None:
    assert not status_of(made(tmp_path, RecorderState(alarms={"probing": "x"})), now=NOW)["ok"]


def test_several_nodes_and_hooks(tmp_path: Path) -> None:
    nodes = {"up": 3, "failing": 0, "away": 1}
    figures = FleetFigures(up=True, nodes=nodes)
    exposition = made(tmp_path, RecorderState(), fleet=lambda: figures)
    metrics = Metrics(NOW)
    metrics.shares = True
    for what, number in (("settled", 40), ("late", 2), ("away", 1)):
        metrics.fleet(what, number)
    metrics.error("late")
    connected = 2
    metrics.resolvers = lambda: connected
    exposition.take("b", metrics.snapshot())
    other = Metrics(NOW)
    other.resolvers = lambda: 1
    exposition.take("c", other.snapshot())
    found = json.loads(json.dumps(status_of(exposition, now=NOW)))
    assert found["fleet"] == {
        "up": True, "why": "", "nodes": nodes, "answers": {"settled": 40, "late": 2, "away": 1},
    }  # fmt: skip
    assert found["hook"] == {"connected": 3, "late": 1}
    text = [*lines(found)]
    assert "fleet        Valkey is there; nodes: 3 up, 1 away; DNS answers late: 2 of 43" in text
    assert "hook         connections of resolvers: 3; replies too late: 1" in text

    figures = FleetFigures(up=False, nodes={}, why="127.0.0.1:6379: Connection refused")
    connected = 0
    exposition.take("b", metrics.snapshot())
    found = status_of(exposition, now=NOW)
    text = [*lines(found)]
    away = "fleet        Valkey is away: 127.0.0.1:6379: Connection refused; no node is known; "
    assert f"{away}DNS answers late: 2 of 43" in text
    assert "hook         connections of resolvers: 1; replies too late: 1" in text


def test_a_worker_without_valkey_is_told(tmp_path: Path) -> None:
    exposition = made(tmp_path, RecorderState(), fleet=lambda: FleetFigures(True, {"up": 1}))
    metrics = Metrics(NOW)
    metrics.trouble("fleet", "away")
    exposition.take("b", metrics.snapshot())
    assert not status_of(exposition, now=NOW)["fleet"]["up"]


def test_a_node_that_is_alone_says_nothing_of_a_fleet(tmp_path: Path) -> None:
    found = status_of(made(tmp_path, RecorderState()), now=NOW)
    assert (found["fleet"], found["hook"]) == (None, None)
    assert not [line for line in lines(found) if line.startswith(("fleet", "hook"))]


def test_what_waits_in_workers_and_in_the_outbox_is_added(tmp_path: Path) -> None:
    assert status_of(made(tmp_path, RecorderState(queue=5)), now=NOW)["queue"] == 2 + 5


def test_without_a_recorder(tmp_path: Path) -> None:
    found = status_alone(FEEDS, tmp_path, NOW)
    assert (found["running"], found["ok"]) == (False, False)
    text = "\n".join(lines(found))
    assert "feed        0       0  never" in text


def test_lists_that_some_worker_refuses(tmp_path: Path) -> None:
    exposition = Exposition((), tmp_path, steady=lambda: 0.0)
    assert exposition.refused_lists() is None, "nobody reports"
    exposition.take("a", counted(ListFacts("one", 3, 10)))
    assert exposition.refused_lists() == {}
    metrics = Metrics(NOW)
    metrics.refused({"one": "one.txt: " + "x" * 1000})
    exposition.take("b", metrics.snapshot())
    assert exposition.refused_lists() == {"one": ("one.txt: " + "x" * 1000)[:500]}
    older = counted(ListFacts("one", 3, 10))
    del older["refused"]
    exposition.take("b", older)
    assert exposition.refused_lists() == {}
