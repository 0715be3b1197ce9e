"""A real Prometheus takes the exposition."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import free_port, wait_for
from records.metrics_support import NOW, TOKEN, admin, full
from urlward.commands.metrics import read_file, write_files
from urlward.records.exposition import Exposition
from urlward.records.metrics import Metrics

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")


class Prometheus:
    """One that runs, with the filter's exposition as its target."""

    def __init__(self, port: int, exposition: Exposition, metrics: Metrics) -> None:
        self.port = port
        self.exposition = exposition
        self.metrics = metrics

    def get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
                return json.load(answer)
        except OSError:
            return None

    def query(self, text: str) -> list[float]:
        found = self.get("/api/v1/query?" + urllib.parse.urlencode({"query": text}))
        return [float(row["value"][1]) for row in found["data"]["result"]] if found else []

    def shows(self, text: str, *values: float) -> None:
        """Wait for it: a scrape that is late, one of five a second, leaves nothing until the next."""
        wait_for(lambda: self.query(text) == list(values), f"{text}: {values}")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    list(write_files(folder))
    exposition, metrics = full(folder / "state")
    target, port = free_port(), free_port()
    (folder / "token").write_text(TOKEN)
    config = folder / "urlward-scrape.yml"
    text = config.read_text().replace("127.0.0.1:8088", f"127.0.0.1:{target}")
    text = text.replace("/etc/prometheus/urlward.token", str(folder / "token"))
    config.write_text("global: {scrape_interval: 200ms, evaluation_interval: 200ms}\n" + text)
    with admin(exposition, target), (folder / "log").open("wb") as log:
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                yield Prometheus(port, exposition, metrics)
            finally:
                process.terminate()
                process.wait(60)


def test_it_takes_the_exposition(prometheus: Prometheus) -> None:
    prometheus.shows('up{job="urlward"}', 1)
    prometheus.shows('urlward_blocks_total{list="one", category="phishing"}', 1)
    prometheus.shows("urlward_feed_age_seconds", 60)

    def last_error() -> str:
        (target,) = prometheus.get("/api/v1/targets")["data"]["activeTargets"]
        return str(target["lastError"])

    wait_for(lambda: not last_error(), "a scrape without an error")
    metadata = prometheus.get("/api/v1/metadata")["data"]
    assert metadata["urlward_requests_total"][0]["type"] == "counter"
    assert metadata["urlward_check_seconds"][0]["type"] == "histogram"


def test_it_sees_counters_grow_when_a_worker_ends(prometheus: Prometheus) -> None:
    prometheus.exposition.gone("worker")
    other = Metrics(started=NOW + 1)
    other.blocked("one", "phishing")
    prometheus.exposition.take("other", other.snapshot())
    prometheus.shows('urlward_blocks_total{category="phishing"}', 2)
    assert prometheus.query('resets(urlward_blocks_total{category="phishing"}[1h])') == [0]


def test_it_knows_the_rules(prometheus: Prometheus) -> None:
    wait_for(lambda: prometheus.get("/api/v1/rules"), "the rules")
    (group,) = prometheus.get("/api/v1/rules")["data"]["groups"]
    wait_for(
        lambda: all(
            rule["health"] == "ok" for rule in prometheus.get("/api/v1/rules")["data"]["groups"][0]["rules"]
        ),
        "the rules' first evaluation",
    )
    assert len(group["rules"]) == read_file("urlward-alerts.yml").count(b"- alert: ")
