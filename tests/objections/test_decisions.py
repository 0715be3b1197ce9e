import json
from pathlib import Path
from typing import Any

import pytest

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.objections import objections as module
from urlward.objections.objections import Objection, add_objection, decline, grant, read_objections
from urlward.policy.allows import current_allows
from urlward.state.audit import verify
from urlward.state.folder import local_key

NOW = 1_800_000_000.0
REFERENCE = "7Q4M-2XKD-93FH"
URL = "http://blocked.example/page"


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return local_key(tmp_path)


@pytest.fixture
def objection(tmp_path: Path, key: Key) -> Objection:
    return add_objection(tmp_path, key, REFERENCE, "please", client="", now=NOW)


def audit(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]


def test_declined(tmp_path: Path, objection: Objection) -> None:
    declined = decline(tmp_path, objection.id, "is what it says", "op", now=NOW + 5)
    assert read_objections(tmp_path) == [declined]
    assert (declined.state, declined.why, declined.who) == ("declined", "is what it says", "op")
    assert declined.decided == NOW + 5
    (line,) = audit(tmp_path)
    assert line["action"] == "objection-declined"
    assert (line["id"], line["reference"], line["who"]) == (objection.id, REFERENCE, "op")


def test_granted_with_what_is_to_pass(tmp_path: Path, key: Key, objection: Objection) -> None:
    granted, allow = grant(tmp_path, key, objection.id, "mistake", "op", now=NOW, url=URL, seconds=3600)
    assert allow is not None
    assert (granted.state, granted.allow) == ("granted", allow.id)
    assert current_allows(tmp_path, NOW + 3599) == (allow,)
    assert current_allows(tmp_path, NOW + 3600) == ()
    assert [line["action"] for line in audit(tmp_path)] == ["allowed", "objection-granted"]
    assert audit(tmp_path)[1]["allow"] == allow.id
    assert verify(tmp_path).holds
    for path in tmp_path.iterdir():
        assert b"blocked" not in path.read_bytes()


def test_granted_where_nothing_has_to_be_allowed(tmp_path: Path, key: Key, objection: Objection) -> None:
    granted, allow = grant(tmp_path, key, objection.id, "the list was corrected", "op", now=NOW)
    assert (granted.state, granted.allow, allow) == ("granted", "", None)
    assert current_allows(tmp_path, NOW) == ()


@pytest.mark.parametrize("url", ["", URL])
def test_nothing_is_decided_twice(tmp_path: Path, key: Key, objection: Objection, url: str) -> None:
    decline(tmp_path, objection.id, "no", "op", now=NOW)
    with pytest.raises(UrlwardError, match="declined already, by op"):
        grant(tmp_path, key, objection.id, "yes", "other", now=NOW, url=url, seconds=60)
    assert current_allows(tmp_path, NOW) == ()
    assert len(audit(tmp_path)) == 1


def test_who_decides_a_moment_later_takes_back_what_they_allowed(
    tmp_path: Path, key: Key, objection: Objection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*args: Any, **more: Any) -> Any:
        decline(tmp_path, objection.id, "no", "other", now=NOW)
        return add_allow(*args, **more)

    add_allow = module.add_allow
    monkeypatch.setattr(module, "add_allow", meanwhile)
    with pytest.raises(UrlwardError, match="declined already, by other"):
        grant(tmp_path, key, objection.id, "yes", "op", now=NOW, url=URL, seconds=60)
    assert current_allows(tmp_path, NOW) == ()
    assert [line["action"] for line in audit(tmp_path)] == ["objection-declined", "allowed", "ended"]


def test_an_id_that_is_none(tmp_path: Path, key: Key, objection: Objection) -> None:
    with pytest.raises(UrlwardError, match="no objection 'o-0'"):
        decline(tmp_path, "o-0", "no", "op", now=NOW)
    with pytest.raises(UrlwardError, match="no objection 'o-0'"):
        grant(tmp_path, key, "o-0", "yes", "op", now=NOW, url=URL, seconds=60)


@pytest.mark.parametrize("why", ["", " ", "two\nlines", "a" * 501])
def test_a_reason_is_needed(tmp_path: Path, key: Key, objection: Objection, why: str) -> None:
    with pytest.raises(UrlwardError, match=r"^why: "):
        decline(tmp_path, objection.id, why, "op", now=NOW)
    with pytest.raises(UrlwardError, match=r"^why: "):
        grant(tmp_path, key, objection.id, why, "op", now=NOW)
    assert read_objections(tmp_path) == [objection]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"url": URL, "seconds": 0}, "at most 30 days"),
        ({"url": "http://", "seconds": 60}, "not a URL or host"),
        ({"url": URL, "seconds": 60, "why": "blocked.example is fine"}, "names the host"),
    ],
)
def test_what_cannot_be_allowed_leaves_it_open(
    tmp_path: Path, key: Key, objection: Objection, more: dict[str, Any], message: str
) -> None:
    why = more.pop("why", "fine")
    with pytest.raises(UrlwardError, match=message):
        grant(tmp_path, key, objection.id, why, "op", now=NOW, **more)
    assert read_objections(tmp_path) == [objection]
    assert not (tmp_path / "audit.jsonl").exists()
