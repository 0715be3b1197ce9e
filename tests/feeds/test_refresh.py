import errno
import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from conftest import wait_for
from e2e.support import RawOrigin
from feeds.feed_support import Feed, Server, feed, hosts
from lists.support import HTML, PICTURE, SECRET, SENTINEL, artifact, names_in
from urlward.engine.artifact import parse
from urlward.engine.digest import Key
from urlward.engine.errors import NO_THREAD
from urlward.engine.signing import SigningKey
from urlward.feeds import feed as feeds_feed
from urlward.feeds import store as feed_store
from urlward.feeds.feed import Feed as ItsFeed
from urlward.feeds.feed import Outcome, Own
from urlward.feeds.refresh import answer
from urlward.feeds.status import alarms, status
from urlward.feeds.store import BusyError
from urlward.state.folder import StateError

FIRST = hosts(*range(20))


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory, nginx: Server) -> Path:
    """A folder with a state that has fetched `FIRST` once, and the file that it was."""
    folder = tmp_path_factory.mktemp("fetched")
    nginx.put("feed", FIRST)
    made = feed(folder, url=nginx.url())
    assert made.refresh().state == "new"
    shutil.copy2(nginx.folder / "www/feed", folder / "feed")
    return folder


@pytest.fixture
def text(tmp_path: Path, site: Server, fetched: Path) -> Feed:
    """A feed of text that has been fetched once."""
    shutil.copytree(fetched / "state", tmp_path / "state")
    shutil.copy2(fetched / "feed", site.folder / "www/feed")
    made = feed(tmp_path, url=site.url())
    made.now += 60
    return made


def files(feed: Feed) -> list[str]:
    return names_in(feed.state / "feeds")


def test_a_text_becomes_an_artifact_under_the_local_key(text: Feed) -> None:
    facts = text.facts
    assert text.blocks("h7.example")
    assert not text.blocks("h99.example")
    assert (facts.entries, facts.added, facts.removed, facts.kind) == (20, 20, 0, "text")
    assert facts.last_success == facts.last_change == text.now
    assert facts.next_run == text.now + 6 * 3600
    assert facts.serial == text.now
    assert text.store.header().key_id != Key(SECRET).id
    assert files(text) == ["phish.json", "phish.lock", "phish.ward"]


def test_no_text_and_no_secret_is_in_the_state_folder(text: Feed) -> None:
    for path in text.state.rglob("*"):
        assert path.is_dir() or b"h7.example" not in path.read_bytes()
        assert not path.stat().st_mode & 0o077, path


def test_304(text: Feed, site: Server) -> None:
    site.seen()
    before = text.store.path.read_bytes()
    outcome = text.refresh()
    assert (outcome.state, outcome.text) == ("unchanged", "20 entries, as before")
    assert [line.split()[0] for line in site.seen()] == ["304"]
    assert text.store.path.read_bytes() == before
    assert text.facts.last_success == text.now > text.facts.last_change


def test_the_same_text_under_another_validator_is_not_even_compiled(
    text: Feed, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = text.store.path.read_bytes()
    monkeypatch.setattr("urlward.feeds.candidate.compile_text", None)
    site.put("feed", FIRST)
    site.seen()
    assert text.refresh().state == "unchanged"
    assert [line.split()[0] for line in site.seen()] == ["200"]
    assert text.store.path.read_bytes() == before


def test_another_release_compiles_the_same_text_anew(
    text: Feed, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.seen()
    monkeypatch.setattr("urlward.feeds.candidate._code", lambda: b"what the next release compiles with")
    for code in ("200", "304"):
        assert text.refresh().state == "unchanged"
        assert [line.split()[0] for line in site.seen()] == [code]
    site.put("feed", FIRST)
    monkeypatch.setattr("urlward.feeds.candidate._code", lambda: b"and the one after it")
    monkeypatch.setattr("urlward.feeds.candidate.compile_text", None)
    assert text.refresh().state == "failed", "the same bytes are compiled"


def test_other_words_about_the_same_entries_are_no_new_list(text: Feed, site: Server) -> None:
    before = text.store.path.read_bytes()
    site.put("feed", f"# Last updated: today\n{FIRST}")
    assert text.refresh().state == "unchanged"
    assert text.refresh().state == "unchanged"
    assert text.store.path.read_bytes() == before


def test_a_new_text_counts_what_it_changes(text: Feed, site: Server) -> None:
    site.put("feed", hosts(*range(3, 25)))
    outcome = text.refresh()
    assert outcome.state == "new"
    assert outcome.text == f"22 entries fetched, serial {text.now:.0f}, +5 -3"
    assert text.blocks("h24.example")
    assert not text.blocks("h1.example")


def test_a_clock_that_ran_ahead_keeps_no_feed_from_being_stale(text: Feed, site: Server) -> None:
    year = 365 * 86_400
    text.now += year
    assert text.refresh().state == "unchanged"
    text.now -= year
    with site.fault("500"):
        assert text.refresh().state == "failed"
    until = text.now + text.table.stale_limit
    assert "stale" not in alarms(text.table, text.facts, text.store.header(), until)
    assert "stale" in alarms(text.table, text.facts, text.store.header(), until + 1)


def test_serials_rise_whatever_the_clock_does(text: Feed, site: Server) -> None:
    serial = text.facts.serial
    text.now -= 86_400
    site.put("feed", hosts(*range(21)))
    assert text.refresh().state == "new"
    assert text.facts.serial == serial + 1


FAULTS = ["401", "403", "429", "500", "302", "slow"]
REASONS = {
    "401": "unauthorized",
    "403": "forbidden",
    "429": "rate-limited",
    "500": "server",
    "302": "html",
    "slow": "timeout",
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_the_server(name: str, text: Feed, site: Server) -> None:
    before = text.store.path.read_bytes()
    site.put("feed", hosts(*range(21)))
    with site.fault(name):
        outcome = text.refresh(timeout=0.5 if name == "slow" else 60.0)
    assert outcome.state == "failed"
    assert outcome.text.startswith(f"{REASONS[name]}: ")
    assert outcome.text.endswith("; the last good one stays in force")
    facts = text.facts
    assert (facts.reason, facts.failures) == (REASONS[name], 1)
    assert facts.last_success == text.now - 60
    assert facts.next_run == text.now + (7200 if name == "429" else 60)
    assert text.store.path.read_bytes() == before
    site.put("feed", FIRST)
    assert text.refresh().state == "unchanged"
    assert (text.facts.reason, text.facts.failures, text.facts.not_before) == ("", 0, 0)


GZIP = gzip.compress(hosts(*range(21)).encode())
WARD = artifact(hosts(*range(21)).splitlines())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"# nothing\n\n", "empty"),
        (HTML, "html"),
        (PICTURE, "binary"),
        (f"a.example\n{SENTINEL}\n".encode(), "bad-lines"),
        (GZIP[:-9], "truncated"),
        (GZIP[:30] + b"\0\0\0\0" + GZIP[34:], "corrupt"),
        (hosts(*range(4)), "shrunk"),
        (hosts(*range(60)), "grown"),
        (WARD[:-1], "truncated"),
        (WARD[:100], "truncated"),
        (WARD[:-1] + b"?", "damaged"),
        (artifact(["a.example"], bytes(32)), "key"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_bodies_that_are_no_good(body: bytes | str, reason: str, text: Feed, site: Server) -> None:
    before = text.store.path.read_bytes()
    site.put("feed", body)
    outcome = text.refresh()
    assert outcome.text.startswith(f"{reason}: ")
    assert SENTINEL not in outcome.text
    assert "/proc/" not in outcome.text
    assert text.facts.reason == reason
    assert text.store.path.read_bytes() == before
    site.put("feed", FIRST)
    assert text.refresh().state == "unchanged"
    assert (text.facts.reason, text.facts.refused) == ("", None)


def test_a_file_that_is_gone(text: Feed, site: Server) -> None:
    (site.folder / "www/feed").unlink()
    where = site.url().removesuffix("/feed")
    assert text.refresh().text.startswith(f"absent: {where}: no such file")


def test_nobody_there(tmp_path: Path, port: int) -> None:
    made = feed(tmp_path, url=f"http://127.0.0.1:{port}/feed?key={SENTINEL}")
    for failures in (1, 2, 3):
        outcome = made.refresh()
        assert outcome.text.startswith("refused: ")
        assert outcome.text.endswith("; there is no list yet")
        assert SENTINEL not in outcome.text
        assert made.facts.failures == failures
        assert outcome.next_run == made.now + 60 * 2 ** (failures - 1)
    assert made.store.in_force() is None


def test_a_restart_without_a_network(text: Feed, nginx: Server) -> None:
    nginx.stop()
    try:
        assert text.refresh().text.startswith("refused: ")
        assert text.blocks("h7.example")
    finally:
        nginx.start()


def test_tls_of_an_unknown_authority(tmp_path: Path, site: Server) -> None:
    site.put("feed", FIRST)
    made = feed(tmp_path, url=site.url(tls=True))
    assert made.refresh().text.startswith("certificate: ")
    assert made.refresh(ca=str(site.folder / "origin-ca.pem")).state == "new"


def test_credentials(tmp_path: Path, site: Server) -> None:
    site.put("private/feed", FIRST)
    secret = tmp_path / "password"
    made = feed(tmp_path, url=site.url("private/feed"), user="reader", password_file=str(secret))
    assert made.refresh().text.startswith(f"secret: password: {secret}: No such file")
    secret.write_text("wrong words\n")
    assert made.refresh().text.startswith("unauthorized: ")
    secret.write_text("open sesame\n")
    assert made.refresh().state == "new"
    for path in made.state.rglob("*.json"):
        assert b"sesame" not in path.read_bytes()


def test_a_server_that_says_how_long_it_is_fresh(tmp_path: Path, site: Server) -> None:
    site.put("fresh/feed", FIRST)
    made = feed(tmp_path, url=site.url("fresh/feed"))
    for state in ("new", "unchanged"):
        outcome = made.refresh()
        assert (outcome.state, outcome.next_run) == (state, made.now + 30_000)
    # Not so long that it would be stale.
    assert made.refresh(stale_after=50_000.0).next_run == made.now + 25_000


def test_a_token_from_the_environment(tmp_path: Path, site: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("feed", FIRST)
    made = feed(tmp_path, url=site.url(), token_env="LIST_TOKEN")
    assert made.refresh().text.startswith("secret: token: the variable LIST_TOKEN is not set")
    monkeypatch.setenv("LIST_TOKEN", "t0ken")
    assert made.refresh().state == "new"
    assert '"Bearer t0ken"' in site.seen()[-1]


def test_damaged_facts_are_not_fatal(text: Feed, site: Server) -> None:
    path = text.state / "feeds/phish.json"
    for damage in (b"", b"{", b"[]", b'{"serial": "x", "refused": [1], "alarms": 7, "etag": null}'):
        path.write_bytes(damage)
        assert text.refresh().state == "unchanged"
        assert text.facts.entries == 20
    site.put("feed", hosts(*range(21)))
    assert text.refresh().state == "new"


def test_facts_of_another_release_are_kept(text: Feed) -> None:
    path = text.state / "feeds/phish.json"
    facts = json.loads(path.read_bytes())
    del facts["sum"]
    path.write_text(json.dumps({**facts, "version": 9, "later": {"a": [1]}}))
    text.refresh()
    assert json.loads(path.read_bytes())["later"] == {"a": [1]}


def test_a_damaged_artifact_is_fetched_again(text: Feed) -> None:
    good = text.store.path.read_bytes()
    text.store.path.write_bytes(good[:-1])
    assert text.refresh().state == "new"
    assert text.blocks("h7.example")


def test_another_format_is_another_list(text: Feed, site: Server) -> None:
    site.put("feed", "||h1.example^\n")
    # Its size says nothing of what it was before, and no validator counts.
    outcome = text.refresh(format="adblock")
    assert outcome.state == "new", outcome


def test_a_format_that_is_not_set_is_recognised(tmp_path: Path, site: Server) -> None:
    site.put("feed", "! rules\n||h1.example/x^\na##b\n")
    outcome = feed(tmp_path, url=site.url()).refresh()
    assert outcome.state == "new", outcome
    assert "read as format adblock, by its first lines, 1 unsupported lines left out" in outcome.text


def test_a_refused_candidate_is_not_compiled_again(
    text: Feed, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("feed", hosts(1))
    first = text.refresh()
    since = text.facts.refused
    monkeypatch.setattr("urlward.feeds.candidate.compile_text", None)
    assert text.refresh().text == first.text
    assert since is not None
    assert text.facts.refused == since
    assert first.next_run == text.now - 60 + 6 * 3600


def test_another_release_compiles_what_was_refused(
    text: Feed, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("feed", FIRST.replace("h7.example", "another.example"))
    with monkeypatch.context() as earlier:
        earlier.setattr("urlward.feeds.candidate._code", lambda: b"the release before")
        earlier.setattr("urlward.feeds.candidate.parse", lambda _: parse(artifact(["h1.example"])))
        assert text.refresh().text.startswith("shrunk: ")
    assert text.refresh().state == "new"
    assert text.blocks("another.example")


def test_path(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    made = feed(tmp_path, path=str(path))
    assert made.refresh().text.startswith("absent: ")
    path.write_text(FIRST)
    assert made.refresh().state == "new"
    assert made.refresh().state == "unchanged"
    path.write_bytes(HTML)
    assert made.refresh().text.startswith("html: ")
    path.write_bytes(artifact(hosts(*range(21)).splitlines()))
    assert made.refresh().state == "new"
    assert made.facts.kind == "artifact"
    assert made.refresh(max_size=10).text.startswith("too-large: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError(SENTINEL), "bug: RuntimeError at test_refresh.py:LINE; please report it"),
        (ExceptionGroup("", [RuntimeError(NO_THREAD)]), f"system: {NO_THREAD}"),
        (MemoryError(), "system: MemoryError"),
    ],
)
def test_a_bug_of_ours_or_no_memory(
    text: Feed, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def take(_: object) -> None:
        raise error

    monkeypatch.setattr("urlward.feeds.refresh.take", take)
    outcome = text.refresh()
    assert re.sub(r"(\.py):[0-9]+", r"\1:LINE", outcome.text) == f"{said}; the last good one stays in force"
    assert (text.facts.reason, text.facts.failures) == (said.partition(":")[0], 1)


def test_a_full_disk_changes_nothing(text: Feed, site: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> None:
        raise StateError(f"{path}: No space left on device") from OSError(errno.ENOSPC, "")

    before = text.store.path.read_bytes()
    site.put("feed", hosts(*range(21)))
    with monkeypatch.context() as patched:
        patched.setattr(feed_store, "write_private", full)
        assert text.refresh().text.startswith("state: ")
    assert text.store.path.read_bytes() == before
    row = status(text.table, text.state, text.now)
    assert (row["state"], row["reason"]) == ("failed", "state")
    assert text.refresh().state == "new"


def test_a_table(tmp_path: Path, site: Server) -> None:
    site.put("feed", gzip.compress(b"Reference;Address\nR-1;h1.example/a\nR-2;h2.example/b\n"))
    made = feed(
        tmp_path, url=site.url(), format="csv", columns={"url": "Address", "id": "Reference"}, delimiter=";"
    )
    assert made.refresh().text.startswith("2 entries fetched, ")
    assert made.refresh(format="scroll").text.startswith("format: ")


def test_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "kind"
    folder.mkdir()
    (folder / "domains").write_text(hosts(1, 2))
    made = feed(tmp_path, path=str(folder), format="squidguard")
    assert made.refresh().state == "new"
    assert made.blocks("h2.example")
    assert made.refresh().state == "unchanged"
    (folder / "domains").write_text(hosts(1, 2, 3))
    assert made.refresh().text.startswith("3 entries fetched, ")
    (folder / "domains").write_text(hosts(*range(50)))
    assert made.refresh().text.startswith("grown: 50 entries after 3: ")
    (folder / "domains").unlink()
    assert made.refresh().state == "failed"
    assert made.blocks("h3.example")


def test_the_local_key_is_nobody_elses(text: Feed, site: Server) -> None:
    site.put("feed", text.store.path.read_bytes())
    assert text.refresh().text.startswith("key: ")


class TestApart:
    """In a process of its own, as all refreshes are outside of tests."""

    def apart(self, feed: Feed, **more: bool) -> Outcome:
        return ItsFeed(feed.table, feed.config, feed.state).refresh(**more)

    def test_it_says_how_it_went(self, tmp_path: Path, site: Server) -> None:
        made = feed(tmp_path, url=site.url(), columns={}, trust=())
        assert self.apart(made).text.startswith("absent: ")
        site.put("feed", f"{FIRST}?{SENTINEL}\n")
        made.table = made.table.model_copy(update={"max_errors": "1"})
        outcome = self.apart(made)
        assert outcome.state == "new"
        assert "1 bad line left out, first: phish:21:1: " in outcome.text
        assert SENTINEL not in outcome.text
        assert outcome.next_run == made.facts.next_run
        assert made.blocks("h7.example")
        assert self.apart(made).text == "20 entries, as before"

    def test_an_artifact_under_the_key_of_all(self, tmp_path: Path, site: Server) -> None:
        site.put("feed", WARD)
        made = feed(tmp_path, url=site.url())
        assert self.apart(made).state == "new"
        assert made.blocks("h7.example")

    def test_what_another_is_at(self, tmp_path: Path, site: Server) -> None:
        site.put("feed", FIRST)
        made = feed(tmp_path, url=site.url())
        with made.store.locked(), pytest.raises(BusyError, match="phish: being refreshed already"):
            self.apart(made, wait=False)

    def test_a_state_folder_that_cannot_be_used(self, tmp_path: Path) -> None:
        made = feed(tmp_path, url="http://feed.invalid/")
        made.state.touch()
        with pytest.raises(StateError, match=f"{made.state}"):
            self.apart(made)

    def test_one_that_is_killed_is_a_failure_that_is_remembered(
        self, text: Feed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = text.store.path.read_bytes()
        monkeypatch.setattr(sys, "executable", "/bin/false")
        outcome = self.apart(text)
        assert outcome.state == "failed"
        assert outcome.text == (
            "system: the process that compiles it ended with 1; the last good one stays in force"
        )
        assert (text.facts.reason, text.facts.failures) == ("system", 1)
        assert text.facts.next_run == outcome.next_run
        assert text.store.path.read_bytes() == before

    def test_what_is_said_on_the_way_is_said_here(
        self, tmp_path: Path, site: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.put("feed", WARD)
        made = feed(tmp_path, url=site.url(), trust=(str(SigningKey(bytes(32)).public),))
        folder = made.state / "trust" / "phish"
        folder.mkdir(parents=True)
        (folder / "1.rotation").write_text("no statement")
        assert self.apart(made).text.startswith("unsigned: ")
        assert [r.getMessage() for r in caplog.records if "set aside" in r.getMessage()]

    def test_what_has_been_done_is_said_before_it_goes_on(
        self, text: Feed, caplog: pytest.LogCaptureFixture
    ) -> None:
        facts = text.store.path.with_suffix(".json")
        facts.write_text("noise")
        with RawOrigin(lambda _: wait_for(released.is_set, "the test")) as origin:
            released = Event()
            text.table = text.table.model_copy(update={"url": f"http://127.0.0.1:{origin.port}/feed"})
            refreshing = Thread(target=self.apart, args=(text,))
            refreshing.start()
            wait_for(lambda: origin.connections, "it to fetch")
            wait_for(lambda: caplog.messages, "what it has done before")
            assert refreshing.is_alive()
            released.set()
            refreshing.join()
        (line,) = caplog.messages
        assert line.startswith(f"{facts}: damaged; set aside as damaged/phish.json.")


def asked_of(kind: str, folder: Path, site: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the process is asked that refreshes a feed of such a source."""
    path = folder / "list.txt"
    path.write_text(FIRST)
    site.put("feed", FIRST)
    made = feed(folder, **{"url": site.url()} if kind == "url" else {"path": str(path)})
    asked: dict[str, Any] = {}

    def ask(_: str, request: Mapping[str, Any], *__: object, **___: object) -> dict[str, str]:
        asked.update(request)
        return {"busy": ""}

    monkeypatch.setattr(feeds_feed, "ask", ask)
    own = Own(str(path), "list", SECRET.hex(), ()) if kind == "own" else None
    with pytest.raises(BusyError):
        ItsFeed(made.table, made.config, made.state, own).refresh(first=kind == "own")
    return asked


@pytest.mark.parametrize("kind", ["path", "own", "url"])
def test_who_asks_may_be_of_an_earlier_release(
    kind: str, tmp_path: Path, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As between an upgrade and the reload behind it: keys that came since have their defaults."""
    asked = asked_of(kind, tmp_path, site, monkeypatch)
    first = ("name", "url", "path", "stale_limit")
    asked["feed"] = {key: value for key, value in asked["feed"].items() if key in first}
    del asked["text_key"]
    said = answer(asked)
    assert (said["state"], said["error"]) == ("new", "")
    asked["feed"]["min_entries"] = 18
    (tmp_path / "list.txt").write_text(hosts(*range(17)))
    site.put("feed", hosts(*range(17)))
    assert answer(asked)["state"] == ("new" if kind == "own" else "failed"), "what is said counts"


def test_who_answers_may_be_of_a_later_release(text: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    later = {"state": "new", "text": "1 entry fetched", "next_run": 7.0, "warmth": 3}
    monkeypatch.setattr(feeds_feed, "ask", lambda *_, **__: later)
    made = ItsFeed(text.table, text.config, text.state)
    assert made.refresh() == made.attempt() == Outcome("new", "1 entry fetched", 7.0)


@pytest.mark.parametrize("kind", ["path", "own", "url"])
def test_the_process_imports_what_its_source_needs(
    kind: str, tmp_path: Path, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing pydantic and urllib3 takes longer than compiling a list of some thousand lines."""
    asked = asked_of(kind, tmp_path, site, monkeypatch)
    code = """
import json, sys
from urlward.feeds.refresh import answer
names = {"asyncio", "http.client", "pydantic", "urllib3"}
print(answer(json.load(sys.stdin))["state"], *(names & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == {"new"} | ({"http.client", "urllib3"} if kind == "url" else set())
