"""The list of own entries, compiled and in force."""

import time
from pathlib import Path

import pytest

from lists.support import names_in
from urlward.config import Config
from urlward.engine.errors import UrlwardError
from urlward.feeds.own import UnsureError, add_to_own, own_feed, remove_from_own
from urlward.feeds.refresh import refresh
from urlward.feeds.setup import make_keeper, make_policy, protecting
from urlward.feeds.store import FeedStore
from urlward.policy.own import FILE, NAME, add_own, draft, own_entries
from urlward.state.folder import local_key

# By a process, as they are, they are compiled in `commands/test_own.py`.
pytestmark = pytest.mark.usefixtures("compiles_here")

LIST = "other.example\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "list.txt").write_text(LIST)
    return Config(state=str(tmp_path / "state"))


def add(config: Config, text: str, *, sure: bool = False, expires: str = "") -> str:
    made = draft(text, expires=expires)
    return add_to_own(config, Path(str(config.state)), made, "ann", sure=sure, protects=protecting(config)).id


def verdict(config: Config, host: str) -> tuple[str, str, str]:
    keeper = make_keeper([Path(str(config.state)).parent / "list.txt"], config)
    keeper.load()
    found = keeper.matcher.check_url(f"http://{host}/".encode(), time.time())
    return found.action, found.list, found.entry


def test_it_is_a_list_as_any(config: Config) -> None:
    assert verdict(config, "listed.example") == ("pass", "", "")
    id_ = add(config, "listed.example")
    assert verdict(config, "listed.example") == ("block", "own-entries", id_)
    excused = add(config, "@@other.example")
    assert verdict(config, "other.example") == ("allow", "own-entries", excused)
    remove_from_own(config, Path(str(config.state)), id_, "over", "ann")
    assert verdict(config, "listed.example")[0] == "pass"
    remove_from_own(config, Path(str(config.state)), excused, "over", "ann")
    assert verdict(config, "other.example")[0] == "block"


def test_what_the_grammar_takes_no_more_leaves_the_others_in_force(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("urlward.engine.grammar._TYPESET", frozenset())
        add(config, "listed.example")
        state = Path(str(config.state))
        add_own(state, local_key(state), draft("“other.example”"), "ann", now=time.time())
    add(config, "more.example")
    assert verdict(config, "listed.example")[0] == verdict(config, "more.example")[0] == "block"


def test_files_are_in_it(config: Config, tmp_path: Path) -> None:
    digests = {"md5": bytes(range(16))}
    (tmp_path / "list.txt").write_text(f"md5:{digests['md5'].hex()} id=feed\n")
    excused = add(config, f"@@md5:{digests['md5'].hex()}")
    keeper = make_keeper([tmp_path / "list.txt"], config)
    keeper.load()
    found = keeper.matcher.check_file(digests, time.time())
    assert (found.action, found.list, found.entry) == ("allow", "own-entries", excused)
    remove_from_own(config, tmp_path / "state", excused, "over", "ann")
    keeper = make_keeper([tmp_path / "list.txt"], config)
    keeper.load()
    assert keeper.matcher.check_file(digests, time.time()).entry == "feed"


def test_rules_name_it(config: Config, tmp_path: Path) -> None:
    from urlward.config import RuleTable

    keeper = make_keeper([tmp_path / "list.txt"], config)
    keeper.load()
    named = config.model_copy(update={"rule": (RuleTable(lists=("own-entries",), action="monitor"),)})
    assert make_policy(named, keeper) is not None


def test_it_ends_with_its_last_day(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "urlward.policy.own._is_over", lambda entry, now: False
    )  # as if added before that day
    add(config, "listed.example", expires="2020-01-01")
    assert verdict(config, "listed.example")[0] == "pass"


def test_what_is_wide_or_protected_needs_a_word_more(config: Config) -> None:
    from urlward.samples import PROTECTED

    host = next(line.split()[0] for line in PROTECTED.read_text().splitlines() if line and line[0].isalpha())
    for text in (host, "10.0.0.0/8"):
        with pytest.raises(UnsureError):
            add(config, text)
    assert "feeds" not in names_in(Path(str(config.state)).parent)
    id_ = add(config, host, sure=True)
    assert verdict(config, host) == ("block", "own-entries", id_)


def test_a_damaged_artifact_is_made_anew(config: Config, tmp_path: Path) -> None:
    id_ = add(config, "listed.example")
    store = FeedStore(tmp_path / "state", NAME)
    store.path.write_bytes(b"x")
    assert own_feed(config, tmp_path / "state").refresh().state == "new"
    assert verdict(config, "listed.example") == ("block", "own-entries", id_)
    assert own_feed(config, tmp_path / "state").refresh().state == "unchanged"


def test_another_release_makes_it_anew(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "forum.example/t/512"
    add(config, f"http://{page.replace('/512', '/a-title/512')}")
    feed = own_feed(config, tmp_path / "state")
    with monkeypatch.context() as earlier:
        earlier.setattr("urlward.engine.compiler.page_by_number", lambda _: None)
        assert refresh(feed.table, config, tmp_path / "state").state == "new"
        assert verdict(config, page)[0] == "pass"
    assert refresh(feed.table, config, tmp_path / "state").state == "new"
    assert verdict(config, page)[0] == "block"
    assert refresh(feed.table, config, tmp_path / "state").state == "unchanged"


@pytest.mark.parametrize("damage", [b"{", b"", None], ids=["damaged", "empty", "gone"])
def test_what_was_compiled_stays_where_the_file_is_lost(
    config: Config, tmp_path: Path, damage: bytes | None
) -> None:
    id_ = add(config, "listed.example")
    path = tmp_path / "state" / FILE
    path.unlink() if damage is None else path.write_bytes(damage)
    for _ in range(2):
        outcome = own_feed(config, tmp_path / "state").refresh()
        assert (outcome.state, outcome.reason) == ("failed", "absent")
        assert verdict(config, "listed.example") == ("block", NAME, id_)
    remove = add(config, "more.example")
    assert verdict(config, "more.example")[0] == "block"
    remove_from_own(config, tmp_path / "state", remove, "over", "ann")
    assert verdict(config, "more.example")[0] == "pass"


def test_under_another_key_nothing_is_lost_without_a_word(config: Config, tmp_path: Path) -> None:
    state = tmp_path / "state"
    add(config, "listed.example")
    (state / "key").unlink()
    (state / "key.copy").unlink()
    local_key(state)
    outcome = own_feed(config, state).refresh()
    assert outcome.state == "failed"
    assert "does not open under the local key" in outcome.text
    with pytest.raises(UrlwardError, match="does not open") as told:
        add(config, "more.example")
    first, last = own_entries(state)
    assert str(told.value).startswith(f"{last.id} is added, but not in force yet: ")
    with pytest.raises(UrlwardError, match="does not open") as told:
        remove_from_own(config, state, last.id, "over", "ann")
    assert str(told.value).startswith(f"{last.id} is removed, but still in force: ")
    assert own_entries(state) == [first]


def test_no_list_has_the_name(tmp_path: Path) -> None:
    from urlward.config import ConfigError, read_config

    (tmp_path / "u.toml").write_text('[[feed]]\nname = "own-entries"\npath = "x"\n')
    with pytest.raises(ConfigError, match="as a list of the filter's own is"):
        read_config(tmp_path / "u.toml")


def test_the_file_has_nothing_to_read(config: Config, tmp_path: Path) -> None:
    add(config, "listed.example")
    for path in (tmp_path / "state").rglob("*"):
        assert path.is_dir() or b"listed" not in path.read_bytes()
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o777 == 0o600
