"""From a configuration to lists in force."""

import threading
from pathlib import Path

import pytest

from lists.support import OTHER_SECRET, SECRET, artifact, blocks, key_file
from rows import each_row
from urlward.config import ConfigError, read_config
from urlward.engine.errors import UrlwardError
from urlward.feeds import keeper, setup
from urlward.feeds.setup import make_keeper, make_policy, protecting
from urlward.lists import build
from urlward.lists.run_folder import RunFolder
from urlward.state import path_watch
from urlward.state.folder import local_key
from urlward.state.keys import read_key

pytestmark = pytest.mark.usefixtures("compiles_here")

FEED = '[[feed]]\nname = "body"\nurl = "http://127.0.0.1:1/list"\n'


def configured(folder: Path, text: str) -> Path:
    path = folder / "urlward.toml"
    path.write_text(text)
    return path


def test_files_alone_need_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    source = tmp_path / "list.txt"
    source.write_text("a.example\n")
    kept = make_keeper([source], read_config(configured(tmp_path, "")))
    kept.load()
    assert blocks(kept.matcher, "http://a.example/")
    assert not (tmp_path / "home").exists()


def test_a_worker_that_begins_waits_for_no_file_system_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, other = tmp_path / "list.txt", tmp_path / "other.txt"
    source.write_text("a.example\n")
    other.write_text("b.example\n")
    run, config, back = RunFolder(), read_config(configured(tmp_path, "")), threading.Event()
    for module in (build, keeper, setup):
        monkeypatch.setattr(module, "inherited", lambda: run)
    make_keeper([source], config).load()
    for path in (source, other):
        path.unlink()
        path.mkdir()  # a look at one would be told
    monkeypatch.setattr(setup, "PATIENCE", 0.0)
    monkeypatch.setattr(path_watch, "_look", lambda _: back.wait())
    try:
        kept = make_keeper([source], config)
        kept.load()
        with pytest.raises(UrlwardError) as error:
            make_keeper([source, other], config).load()
    finally:
        back.set()
    assert blocks(kept.matcher, "http://a.example/")
    assert str(error.value) == f"{other}: its file system does not answer"


def test_feeds_are_kept_under_the_local_key(tmp_path: Path) -> None:
    config = read_config(configured(tmp_path, f'state = "state"\n{FEED}'))
    key = local_key(tmp_path / "state")
    store = tmp_path / "state" / "feeds" / "body.ward"
    store.parent.mkdir()
    store.write_bytes(artifact(["a.example", "ocsp.digicert.com"], key.secret))
    kept = make_keeper([], config)
    kept.load()
    assert kept.names == ["body", "own-entries"]
    assert blocks(kept.matcher, "http://a.example/")
    assert not blocks(kept.matcher, "http://ocsp.digicert.com/"), "the shipped list protects it"


@pytest.mark.parametrize(("line", "blocked"), [("protect = false\n", True), ("", False)])
def test_protection_can_be_left_out(tmp_path: Path, line: str, blocked: bool) -> None:
    config = read_config(configured(tmp_path, f'state = "state"\n{FEED}{line}'))
    key = local_key(tmp_path / "state")
    (tmp_path / "state" / "feeds").mkdir()
    (tmp_path / "state" / "feeds" / "body.ward").write_bytes(artifact(["ocsp.digicert.com"], key.secret))
    kept = make_keeper([], config)
    kept.load()
    assert blocks(kept.matcher, "http://ocsp.digicert.com/") is blocked


def test_artifacts_may_be_under_the_lists_key_or_their_own(tmp_path: Path) -> None:
    key_file(tmp_path / "lists.key", SECRET)
    key_file(tmp_path / "own.key", OTHER_SECRET)
    config = read_config(
        configured(
            tmp_path,
            f'state = "state"\nkey = "lists.key"\n{FEED}'
            '[[feed]]\nname = "other"\npath = "x"\nkey = "own.key"\n',
        )
    )
    folder = tmp_path / "state" / "feeds"
    folder.mkdir(parents=True)
    (folder / "body.ward").write_bytes(artifact(["a.example"], SECRET))
    (folder / "other.ward").write_bytes(artifact(["b.example"], OTHER_SECRET))
    kept = make_keeper([], config, key_file=Path(str(config.key)))
    kept.load()
    assert kept.key.id == read_key(tmp_path / "lists.key").id
    assert blocks(kept.matcher, "http://a.example/")
    assert blocks(kept.matcher, "http://b.example/")


def test_a_protecting_list_is_read_without_a_single_fault(tmp_path: Path) -> None:
    (tmp_path / "ours.txt").write_text("good.example\n!!\nnot a host\n")
    config = read_config(configured(tmp_path, f'state = "state"\nprotected = ["ours.txt"]\n{FEED}'))
    with pytest.raises(UrlwardError, match=r"ours\.txt"):
        make_keeper([], config)


@each_row(
    ("entry", "told"),
    [("good.example", False), ("http://good.example/", True), ("http://good.example/*", True)],
)
def test_a_protecting_list_whose_pages_protect_no_host_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, entry: str, told: bool
) -> None:
    (tmp_path / "ours.txt").write_text(f"other.example\n{entry}\n")
    config = read_config(configured(tmp_path, f'state = "state"\nprotected = ["ours.txt"]\n{FEED}'))
    assert protecting(config)("good.example") is not told
    assert ("which protect no host" in caplog.text) is told


RECORDS = "[records.days]\nblocks = 1\noperations = 1\n"


def test_what_is_recorded_of_entries_without_id_has_the_same_one_at_each_start(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_text("a.example\n")
    ids = []
    for _ in range(2):
        kept = make_keeper([source], read_config(configured(tmp_path, f'state = "state"\n{RECORDS}')))
        kept.load()
        ids.append(kept.matcher.check_url("a.example").entry)
    assert ids[0] == ids[1]
    assert kept.key.id == local_key(tmp_path / "state").id


def test_nothing_is_made_where_nothing_is_to_be_written(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_text("a.example\n")
    config = read_config(configured(tmp_path, f'state = "state"\n{RECORDS}{FEED}'))
    kept = make_keeper([source], config, writes=False)
    kept.load()
    assert kept.matcher.check_url("a.example").blocked
    assert not (tmp_path / "state").exists()


class TestPolicy:
    def test_none_where_all_is_blocked_for_all(self, tmp_path: Path) -> None:
        config = read_config(configured(tmp_path, f'state = "state"\n{FEED}'))
        assert make_policy(config, make_keeper([], config)) is None

    def test_a_feeds_use_counts(self, tmp_path: Path) -> None:
        config = read_config(configured(tmp_path, f'state = "state"\n{FEED}use = "monitor"\n'))
        policy = make_policy(config, make_keeper([], config))
        assert policy is not None
        assert not policy.view("", 0).uses("body")
        assert policy.view("", 0).watches("body")

    def test_a_rule_for_a_list_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        config = read_config(
            configured(tmp_path, f'state = "state"\n{FEED}[[rule]]\nlists = ["nobody"]\naction = "allow"\n')
        )
        kept = make_keeper([], config)
        kept.load()
        with pytest.raises(ConfigError, match=r"toml:[0-9]+: rule\.0\.lists\.0: there is no list nobody"):
            make_policy(config, kept)

    def test_a_feed_is_not_called_as_another_list_is(self, tmp_path: Path) -> None:
        own = tmp_path / "body.txt"
        own.write_text("a.example\n")
        config = read_config(configured(tmp_path, f'state = "state"\n{FEED}use = "allow"\n'))
        kept = make_keeper([own], config)
        kept.load()
        with pytest.raises(ConfigError, match=r"toml:[0-9]+: feed\.0\.name: another list is called body too"):
            make_policy(config, kept)
