import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.admin_support import serving
from dashboard.test_app import Browser
from lists.policy_support import config as read
from urlward.config import Config, RecordsTable, read_config
from urlward.dashboard.live_sources import Checks, LiveSources
from urlward.engine.errors import UrlwardError
from urlward.policy.allows import add_allow
from urlward.proxy.settings import Settings
from urlward.service.process import read_asked
from urlward.state.folder import local_key

pytestmark = pytest.mark.usefixtures("compiles_here")

NOW = 1_795_600_000.0
CONFIG = """
list = ["list.txt"]
[[group]]
name = "pupils"
networks = ["192.0.2.0/24"]
[[group.rule]]
categories = ["games"]
action = "allow"
"""


@pytest.fixture
def checks(tmp_path: Path):
    (tmp_path / "list.txt").write_text("games.example category=games id=C-1\n")
    made = Checks(read(tmp_path, CONFIG), tmp_path / "state")
    yield made
    made.close()


def test_it_answers_as_the_filter_would(checks: Checks):
    found = checks.check("http://games.example/x", "", None, NOW)
    assert (found["verdict"], found["id"], found["list"]) == ("block", "C-1", "list")
    assert found["explanation"]["decided"]["id"] == "C-1"
    found = checks.check("http://games.example/x", "192.0.2.9", None, NOW)
    assert (found["verdict"], found["explanation"]["group"]) == ("pass", "pupils")
    assert checks.check("http://other.example/", "", None, NOW)["verdict"] == "pass"
    assert json.dumps(found)


def test_what_is_no_url_is_said(checks: Checks):
    found = checks.check("http://", "", None, NOW)
    assert found["verdict"] == "error"
    assert "explanation" not in found


def test_at_another_time(checks: Checks):
    found = checks.check("http://games.example/", "", 1_801_353_600.0, NOW)
    assert found["explanation"]["time"] == "2027-01-31T00:00:00Z"


def test_a_list_that_has_changed_is_loaded_anew(checks: Checks, tmp_path: Path):
    assert checks.check("http://other.example/", "", None, NOW)["verdict"] == "pass"
    (tmp_path / "list.txt").write_text("games.example id=C-1\nother.example id=C-2\n")
    assert checks.check("http://other.example/", "", None, NOW)["verdict"] == "block"


def test_allows_begin_and_end(checks: Checks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The lists' own clock, which expires allows when they are loaded.
    monkeypatch.setattr("urlward.feeds.keeper.time.time", lambda: now)
    now = NOW
    url, state = "http://games.example/", tmp_path / "state"
    assert checks.check(url, "", None, now)["verdict"] == "block"
    add_allow(state, local_key(state), url, 60, "ticket 31", "ann", whole_host=True, now=now)
    assert checks.check(url, "", None, now)["verdict"] == "allow"
    now = NOW + 61
    assert checks.check(url, "", None, now)["verdict"] == "block"


def test_an_allow_counts_in_its_time_alone_and_says_who(
    checks: Checks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("urlward.feeds.keeper.time.time", lambda: NOW)
    url, state = "http://games.example/", tmp_path / "state"
    key = local_key(state)
    made = add_allow(state, key, url, 60, "ticket 31", "ann", whole_host=True, now=NOW)
    found = checks.check(url, "", NOW + 59, NOW)
    assert found["verdict"] == "allow"
    assert found["explanation"]["decided"]["id"] == made.id
    assert found["explanation"]["allow"]["who"] == "ann"
    assert found["explanation"]["allow"]["why"] == "ticket 31"
    for at in (NOW - 1, NOW + 60):
        found = checks.check(url, "", at, NOW)
        assert (found["verdict"], found["explanation"]["verdict"]) == ("block", "block")
        assert found["explanation"]["allow"] is None
        assert made.id not in json.dumps(found)
    # Of two of the same page, one is in the list.
    add_allow(state, key, url, 600, "ticket 32", "ben", whole_host=True, now=NOW)
    assert checks.check(url, "", NOW + 120, NOW)["verdict"] == "allow"


def test_the_page_tells_group_schedule_and_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("urlward.feeds.keeper.time.time", lambda: NOW)
    (tmp_path / "list.txt").write_text("games.example category=games id=C-1\n")
    schedule = (
        CONFIG
        + """schedule = "breaks"
[schedule.breaks]
zone = "UTC"
from = "10:00"
to = "10:30"
"""
    )
    state = tmp_path / "state"
    sources = LiveSources(read(tmp_path, schedule), state, clock=lambda: NOW)
    local_key(state)
    with serving(sources, state, clock=lambda: NOW) as site:
        browser = Browser(site).log_in()

        def told(at: str, client: str = "192.0.2.9") -> str:
            answer = browser.form("/check", url="http://games.example/x", client=client, at=at)
            assert answer.status == 200
            return " ".join(re.sub(r"<[^>]+>", " ", html.unescape(answer.data.decode())).split())

        text = told("2026-11-25 10:10")
        assert "Verdict: pass" in text
        assert "192.0.2.9, in group pupils (group.0.networks.0)" in text
        assert "until 2026-11-25 10:30:00Z" in text
        assert "in schedule breaks only" in text or "schedule breaks" in text
        text = told("2026-11-25 11:00")
        assert "Verdict: block" in text
        assert "fits, out of its schedule" in text
        assert "in no group" in told("2026-11-25 10:10", "198.51.100.1")
        add_allow(
            state, local_key(state), "games.example", 6 * 3600, "ticket 31", "Ann (dashboard)",
            whole_host=True, now=NOW,
        )  # fmt: skip
        text = told("2026-11-25 11:00")
        assert "Verdict: allow" in text
        assert "Allowed by Ann (dashboard), until 2026-11-25 15:46:40Z : ticket 31" in text
        assert "Verdict: block" in told("2026-11-25 16:00")
    sources.close()


def test_a_bad_list_is_said_and_can_be_mended(checks: Checks, tmp_path: Path):
    (tmp_path / "list.txt").unlink()
    with pytest.raises(UrlwardError):
        checks.check("http://games.example/", "", None, NOW)
    (tmp_path / "list.txt").write_text("games.example id=C-1\n")
    assert checks.check("http://games.example/", "", None, NOW)["verdict"] == "block"


def test_memory_is_given_back(checks: Checks):
    checks.check("http://games.example/", "", None, NOW)
    checks.close()
    assert checks._loaded is None
    assert checks.check("http://games.example/", "", None, NOW)["verdict"] == "block"


def test_lists_of_flags_are_those_of_the_filter(tmp_path: Path):
    (tmp_path / "urlward.toml").write_text(CONFIG)
    (tmp_path / "list.txt").write_text("games.example\n")
    options = {"urlward_max_errors": "50%", "urlward_format": "urls"}
    path = tmp_path / "urlward.toml"
    settings = Settings((tmp_path / "flags.txt",), (), ("", 0), options, "", (), config=read_config(path))
    (tmp_path / "flags.txt").write_text("http://by-flag.example/x\nhttp://by-flag.example/y\n")
    settings = replace(settings, config=Config(records=RecordsTable()))
    service = settings.service(path, 3)
    assert service is not None
    told = service.request
    config, state = read_asked({"state": str(tmp_path / "s"), **told})
    checks = Checks(config, state, str(told["format"]))
    assert checks.check("http://by-flag.example/x", "", None, NOW)["verdict"] == "block"
    assert checks.check("http://games.example/", "", None, NOW)["verdict"] == "pass"
    assert (config.max_errors, config.trust, config.workers) == ("50%", (), 3)
    checks.close()


def test_without_lists_the_sample_is_meant(tmp_path: Path):
    checks = Checks(read(tmp_path, ""), tmp_path / "state")
    assert checks.check("http://blocked.example/", "", None, NOW)["verdict"] == "block"
    checks.close()
