import json
import logging
import multiprocessing
import stat
from pathlib import Path

import pytest

from lists.support import SENTINEL, artifact
from obstacles import audit_on_a_full_disk
from rows import each_row
from urlward.engine.artifact import parse
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.policy.allows import (
    LONGEST,
    Allow,
    add_allow,
    compile_allows,
    current_allows,
    end_allow,
    expire_allows,
    next_end,
)
from urlward.state.audit import verify
from urlward.state.folder import StateError, local_key

NOW = 1_795_600_000.0
HOUR = 3600
KEY = Key(bytes(range(32)))

WHOLE = [f"{SENTINEL}.test", "192.0.2.7", "[2001:db8::7]"]
"""All of these is blocked; what of it passes has been allowed."""


def allow(
    state: Path,
    url: str,
    seconds: int = HOUR,
    why: str = "asked for",
    *,
    host: bool = False,
    now: float = NOW,
) -> Allow:
    return add_allow(state, KEY, url, seconds, why, "anna (uid 0)", whole_host=host, now=now)


def matcher(allows: tuple[Allow, ...], blocked: list[str] = WHOLE, now: float = NOW) -> Matcher:
    compiled = compile_allows(allows, KEY, now)
    lists = [artifact(blocked), *([compiled] if compiled is not None else [])]
    return Matcher([load(data, KEY) for data in lists])


def audit(state: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]


HOST = WHOLE[0]


@each_row("why", ["", "  ", "two\nlines", "x" * 501, f"wants {HOST.upper()} back"])
def test_a_reason_is_words_and_not_the_host(tmp_path: Path, why: str) -> None:
    with pytest.raises(UrlwardError, match=r"^why: ") as raised:
        allow(tmp_path, f"www.{HOST}", why=why)
    assert SENTINEL not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_an_entry_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match=r"^not a URL or host: no host$"):
        allow(tmp_path, "http://")
    with pytest.raises(UrlwardError, match=r"^servers take this URL for more than one page"):
        allow(tmp_path, f"http://{HOST}/a/b/.")
    assert list(tmp_path.iterdir()) == []


def test_a_page_and_a_whole_host(tmp_path: Path) -> None:
    page, host = allow(tmp_path, f"http://{HOST}/a"), allow(tmp_path, "http://192.0.2.7/a", host=True)
    assert (page.kind, host.kind) == ("page", "host")
    found = matcher(current_allows(tmp_path, NOW))
    for url, made in ((f"http://{HOST}/a", page), ("http://192.0.2.7/b", host)):
        verdict = found.check_url(url)
        assert (verdict.action, verdict.list, verdict.entry) == ("allow", "allows", made.id)
    assert found.check_url(f"http://{HOST}/b").blocked


@each_row("seconds", [0, -1, LONGEST + 1])
def test_not_longer_than_a_month(tmp_path: Path, seconds: int) -> None:
    with pytest.raises(UrlwardError, match="at most 30 days"):
        allow(tmp_path, HOST, seconds)


def test_it_ends_by_itself(tmp_path: Path) -> None:
    allow(tmp_path, f"http://{HOST}/a", HOUR)
    allow(tmp_path, f"http://{HOST}/b", 2 * HOUR)
    allows = current_allows(tmp_path, NOW)
    assert next_end(allows, NOW) == NOW + HOUR
    assert next_end(allows, NOW + HOUR) == NOW + 2 * HOUR
    assert next_end(allows, NOW + 2 * HOUR) is None
    assert len(current_allows(tmp_path, NOW + HOUR - 1)) == 2
    assert current_allows(tmp_path, NOW + HOUR) == allows[1:]
    found = matcher(allows, now=NOW + HOUR)
    assert found.check_url(f"http://{HOST}/a").blocked
    assert found.check_url(f"http://{HOST}/b").action == "allow"
    assert compile_allows(allows, KEY, NOW + 2 * HOUR) is None
    assert compile_allows((), KEY, NOW) is None


def test_it_is_ended(tmp_path: Path) -> None:
    kept, ended = allow(tmp_path, "a.test"), allow(tmp_path, "b.test")
    assert end_allow(tmp_path, ended.id, "done with", "berta (uid 0)", now=NOW + 1) == ended
    assert current_allows(tmp_path, NOW + 1) == (kept,)
    for id_ in (ended.id, "a-nothing"):
        with pytest.raises(UrlwardError, match=f"^no allow '{id_}' is in force$"):
            end_allow(tmp_path, id_, "done with", "berta (uid 0)", now=NOW + 1)
    with pytest.raises(UrlwardError, match=r"^why: "):
        end_allow(tmp_path, kept.id, " ", "berta (uid 0)", now=NOW + 1)


def test_each_change_is_in_the_audit(tmp_path: Path) -> None:
    one, two = allow(tmp_path, f"http://{HOST}/a"), allow(tmp_path, "b.test", 2 * HOUR, "why not")
    end_allow(tmp_path, two.id, "done with", "berta (uid 0)", now=NOW + 60)
    assert expire_allows(tmp_path, NOW + HOUR - 1) == 0
    assert expire_allows(tmp_path, NOW + HOUR) == 1
    assert expire_allows(tmp_path, NOW + HOUR) == 0
    lines = audit(tmp_path)
    assert [(line["action"], line["id"], line["who"], line["why"]) for line in lines] == [
        ("allowed", one.id, "anna (uid 0)", "asked for"),
        ("allowed", two.id, "anna (uid 0)", "why not"),
        ("ended", two.id, "berta (uid 0)", "done with"),
        ("expired", one.id, "", "asked for"),
    ]
    assert {
        name: value for name, value in lines[0].items() if name not in ("seq", "prev", "hash", "sign")
    } == {
        "time": "2026-11-25T09:46:40Z",
        "action": "allowed",
        "id": one.id,
        "kind": "page",
        "who": "anna (uid 0)",
        "until": "2026-11-25T10:46:40Z",
        "why": "asked for",
        "url": KEY.digest(f"u{HOST}/a").hex(),
    }
    assert lines[3]["url"] == lines[0]["url"]
    assert verify(tmp_path).holds


def test_the_next_change_tells_of_what_has_expired(tmp_path: Path) -> None:
    one = allow(tmp_path, "a.test")
    two = allow(tmp_path, "b.test", now=NOW + HOUR)
    assert [(line["action"], line["id"]) for line in audit(tmp_path)[1:]] == [
        ("expired", one.id),
        ("allowed", two.id),
    ]


def test_without_a_record_nothing_is_allowed(tmp_path: Path) -> None:
    with audit_on_a_full_disk(), pytest.raises(StateError, match=r"audit\.jsonl: No space left on device"):
        allow(tmp_path, "a.test")
    assert current_allows(tmp_path, NOW) == ()


def test_no_plaintext_anywhere(tmp_path: Path) -> None:
    made = allow(tmp_path, f"http://{HOST}/{SENTINEL}/page?{SENTINEL}=1")
    compiled = compile_allows((made,), KEY, NOW)
    assert compiled is not None
    assert parse(compiled).meta["entries"] == 1
    everything = [compiled, repr(made).encode(), *(p.read_bytes() for p in tmp_path.iterdir())]
    assert len(everything) == 7
    for data in everything:
        assert SENTINEL.encode() not in data


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    allow(tmp_path, "a.test")
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {
        "allows.json": 0o600,
        "audit.head": 0o600,
        "audit.jsonl": 0o600,
        "key": 0o600,
        "key.copy": 0o600,
    }


@each_row(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version": 1, "allows": [1]}',
        b'{"version": 1, "allows": [{"id": "a-1"}]}',
        b"\xff",
    ],
)
def test_a_damaged_record_is_set_aside_and_excuses_nothing(tmp_path: Path, data: bytes) -> None:
    def no_such() -> None:
        with pytest.raises(UrlwardError, match="no allow"):
            end_allow(tmp_path, "a-1", "done with", "", now=NOW)

    for number, (change, left) in enumerate(
        (
            (lambda: current_allows(tmp_path, NOW), False),
            (lambda: expire_allows(tmp_path, NOW), False),
            (no_such, False),
            (lambda: allow(tmp_path, "a.test"), True),
        ),
        1,
    ):
        (tmp_path / "allows.json").write_bytes(data)
        change()
        assert (tmp_path / "allows.json").exists() == left
        assert len(list((tmp_path / "damaged").iterdir())) == number
    assert {path.read_bytes() for path in (tmp_path / "damaged").iterdir()} == {data}
    assert len(current_allows(tmp_path, NOW)) == 1


def test_each_flipped_bit_is_damage(tmp_path: Path) -> None:
    allow(tmp_path, "a.test")
    path = tmp_path / "allows.json"
    data, good = path.read_bytes(), current_allows(tmp_path, NOW)
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert current_allows(tmp_path, NOW) == (good if path.exists() else ()), data[at : at + 20]


def test_times_that_are_none_are_damage(tmp_path: Path) -> None:
    allow(tmp_path, "a.test")
    path = tmp_path / "allows.json"
    path.write_text(path.read_text().replace(f": {int(NOW) + HOUR}", ": 1e99"))
    assert current_allows(tmp_path, NOW) == ()
    assert not path.exists()


def test_another_version(tmp_path: Path) -> None:
    (tmp_path / "allows.json").write_text('{"version": 2}')
    with pytest.raises(UrlwardError, match="of another version of urlward"):
        current_allows(tmp_path, NOW)


def test_what_does_not_open_excuses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strange = add_allow(tmp_path, Key(bytes(32)), HOST, HOUR, "asked for", "", whole_host=False, now=NOW)
    made = allow(tmp_path, f"http://{HOST}/a")
    with caplog.at_level(logging.ERROR):
        found = matcher(current_allows(tmp_path, NOW))
    assert found.check_url(f"http://{HOST}/a").entry == made.id
    assert found.check_url(f"http://{HOST}/b").blocked
    assert [r.getMessage() for r in caplog.records] == [
        f"allow {strange.id} does not open under the local key, and is not in force"
    ]


def _allow_many(state: Path) -> None:
    key = local_key(state)
    for _ in range(10):
        add_allow(state, key, "a.test", HOUR, "asked for", "", whole_host=False, now=NOW)


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_allow_many, args=(tmp_path / "state",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    allows = current_allows(tmp_path / "state", NOW)
    assert len({one.id for one in allows}) == len(audit(tmp_path / "state")) == 40
    found = compile_allows(allows, local_key(tmp_path / "state"), NOW)
    assert found is not None
