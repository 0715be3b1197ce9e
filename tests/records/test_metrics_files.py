import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from records.metrics_support import full
from urlward.commands.metrics import NAMES, read_file, write_files

TESTS = Path(__file__).with_name("alert_tests.yml")
METRIC = re.compile(r"\burlward_[a-z0-9_]+\b")

ALERTS = read_file("urlward-alerts.yml").decode()
DASHBOARD: dict[str, Any] = json.loads(read_file("urlward-dashboard.json"))

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def promtool(*arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, check=False)
    text = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, text
    return text


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def variables() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DASHBOARD["templating"]["list"]
    return found


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, set[str]]:
    """The exposition, and the names of its samples."""
    exposition, _ = full(tmp_path_factory.mktemp("state"))
    text = exposition.render()
    return text, set(re.findall(r"^([a-z_0-9]+)", text.decode(), re.MULTILINE))


def test_they_are_written(tmp_path: Path) -> None:
    written = list(write_files(tmp_path / "new"))
    assert [path.name for path in written] == list(NAMES)
    assert json.loads((tmp_path / "new/urlward-dashboard.json").read_bytes())["title"] == "urlward"


@needs_promtool
def test_the_rules_are_rules(tmp_path: Path) -> None:
    list(write_files(tmp_path))
    assert "34 rules found" in promtool("check", "rules", str(tmp_path / "urlward-alerts.yml"))


@needs_promtool
def test_the_rules_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    list(write_files(tmp_path))
    shutil.copy(TESTS, tmp_path)
    promtool("test", "rules", str(tmp_path / TESTS.name))


def test_each_rule_has_tests_of_both_kinds() -> None:
    alerts = re.findall(r"alert: (\w+)", ALERTS)
    tests = TESTS.read_text()
    assert len(set(alerts)) == len(alerts) == 34
    for alert in alerts:
        assert f"alertname: {alert}}}" in tests, alert
        assert f"alertname: {alert}\n        exp_alerts" in tests, alert


def test_the_rules_ask_for_metrics_that_exist(exposed: tuple[bytes, set[str]]) -> None:
    named = {name for line in ALERTS.splitlines() for name in METRIC.findall(line)}
    assert len(named) > 10
    assert named <= exposed[1]


@needs_promtool
def test_the_exposition_is_as_it_should_be(exposed: tuple[bytes, set[str]]) -> None:
    assert promtool("check", "metrics", stdin=exposed[0]) == ""


@needs_promtool
def test_the_scrape_configuration_is_one(tmp_path: Path) -> None:
    list(write_files(tmp_path))
    config = tmp_path / "urlward-scrape.yml"
    (tmp_path / "token").write_text("x")
    config.write_text(config.read_text().replace("/etc/prometheus/urlward.token", str(tmp_path / "token")))
    promtool("check", "config", str(config))


def test_the_dashboard_asks_for_metrics_that_exist(exposed: tuple[bytes, set[str]]) -> None:
    text = " ".join([*queries(), *(v["query"] for v in variables())])
    named = set(METRIC.findall(text))
    assert named <= exposed[1]
    # All that there is to see is somewhere on it, or in an alert.
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exposed[1]}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named | set(METRIC.findall(ALERTS))}
    assert families - shown == {"urlward_build_info"}


@needs_promtool
def test_the_dashboard_asks_in_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:{n}", "expr": query.replace("$__rate_interval", "5m")}
        for n, query in enumerate(queries())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))


def test_the_dashboard_takes_whatever_source_is_chosen() -> None:
    assert (
        variables()[0] | {"name": "datasource", "type": "datasource", "query": "prometheus"} == variables()[0]
    )
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
    assert all(variable["datasource"] == source for variable in variables()[1:])
    for query in queries():
        assert query.count('{job=~"$job", instance=~"$instance"') == len(METRIC.findall(query)), query


def test_the_dashboard_is_laid_out() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
