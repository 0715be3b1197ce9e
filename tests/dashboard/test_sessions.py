from pathlib import Path

import pytest

from urlward.dashboard import handler
from urlward.dashboard.handler import SESSION, Sessions, Visitor
from urlward.engine.errors import UrlwardError
from urlward.state.folder import StateError
from urlward.state.people import People, Person, add_person, change_role, remove_person
from urlward.state.token import read_token

NOW = 1_795_600_000.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_the_token_is_made_once_for_its_owner_alone(state: Path):
    token = read_token(state / "admin.token")
    assert len(token) >= 43
    assert read_token(state / "admin.token") == token
    assert (state / "admin.token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "short", "with a space in between it is no token", "ü" * 30, "abcabcabcabcabcabcabcabc"]
)
def test_a_token_that_could_be_guessed_is_refused(state: Path, text: str):
    read_token(state / "admin.token")
    (state / "admin.token").write_text(text)
    with pytest.raises(UrlwardError, match="at least 20"):
        read_token(state / "admin.token")


def test_a_token_that_others_can_read_is_refused(state: Path):
    token = read_token(state / "admin.token")
    (state / "admin.token").chmod(0o640)  # root's, with the service's group
    assert read_token(state / "admin.token") == token
    # Who may write it may have put another in its place.
    for mode in (0o644, 0o620, 0o660, 0o602, 0o601):
        (state / "admin.token").chmod(mode)
        with pytest.raises(UrlwardError, match="chmod 600") as caught:
            read_token(state / "admin.token")
        assert token not in str(caught.value)


@pytest.fixture
def ann(state: Path) -> Person:
    return add_person(state, "Ann", "operator", "test", now=NOW - 1)[0]


@pytest.fixture
def sessions(state: Path, ann: Person) -> Sessions:
    return Sessions(state, People(state))


def test_a_session_tells_its_visitor_until_it_is_over(sessions: Sessions, ann: Person):
    cookie = sessions.begin(ann, NOW)
    visitor = sessions.visitor(cookie, NOW + SESSION - 1)
    assert visitor is not None
    assert (visitor.name, visitor.role) == ("Ann", "operator")
    assert sessions.visitor(cookie, NOW + SESSION + 1) is None
    assert sessions.visitor(None, NOW) is None


def test_a_cookie_that_was_changed_is_none(sessions: Sessions, ann: Person):
    cookie = sessions.begin(ann, NOW)
    for at in range(0, len(cookie), 7):
        other = "0" if cookie[at] != "0" else "1"
        assert sessions.visitor(cookie[:at] + other + cookie[at + 1 :], NOW) is None


def test_sessions_outlive_the_process_but_not_the_person(state: Path, sessions: Sessions, ann: Person):
    add_person(state, "Bob", "operator", "test", now=NOW)
    cookie = sessions.begin(ann, NOW)
    assert Sessions(state, People(state)).visitor(cookie, NOW) is not None
    remove_person(state, "ann", "test", now=NOW, token_file=state / "admin.token")
    assert sessions.visitor(cookie, NOW) is None
    again, _ = add_person(state, "Ann", "operator", "test", now=NOW)
    assert sessions.visitor(cookie, NOW) is None
    assert sessions.visitor(sessions.begin(again, NOW), NOW) is not None


def test_a_full_disk_ends_none(state: Path, sessions: Sessions, ann: Person, monkeypatch: pytest.MonkeyPatch):
    def write(path: Path, _: bytes) -> None:
        raise StateError(f"{path}: No space left on device")

    monkeypatch.setattr(handler, "write_private", write)
    cookie = sessions.begin(ann, NOW)
    assert Sessions(state, People(state)).visitor(cookie, NOW)


def test_another_role_ends_sessions_for_good(state: Path, sessions: Sessions, ann: Person):
    add_person(state, "Bob", "operator", "test", now=NOW)
    cookie = sessions.begin(ann, NOW)
    for role in ("viewer", "operator"):
        change_role(state, "Ann", role, "test", now=NOW)
        assert sessions.visitor(cookie, NOW) is None


def test_a_session_ends_with_the_days_of_its_person(state: Path):
    for_a_day, token = add_person(state, "Eva", "viewer", "test", now=NOW, days=1)
    people = People(state)
    sessions = Sessions(state, people)
    end = NOW + 86_400
    cookie = sessions.begin(for_a_day, end - 60)
    assert sessions.visitor(cookie, end - 1) is not None
    assert people.by_token(token, end - 1) is not None
    assert sessions.visitor(cookie, end) is None
    assert people.by_token(token, end) is None


def test_what_was_ended_stays_ended(state: Path, sessions: Sessions, ann: Person):
    cookie, other = sessions.begin(ann, NOW), sessions.begin(ann, NOW)
    visitor = sessions.visitor(cookie, NOW)
    assert visitor is not None
    sessions.end(visitor, NOW)
    for one in (sessions, Sessions(state, People(state))):
        assert one.visitor(cookie, NOW) is None
        assert one.visitor(other, NOW) is not None


def test_ended_sessions_that_are_over_are_forgotten(state: Path, sessions: Sessions):
    sessions.end(Visitor("Ann", "operator", "one"), NOW)
    sessions.end(Visitor("Ann", "operator", "two"), NOW + 2 * SESSION)
    text = (state / "admin.json").read_text()
    assert "two" in text
    assert "one" not in text


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"secret": "x", "ended": []}'])
def test_a_damaged_file_ends_the_sessions_and_no_more(
    state: Path, sessions: Sessions, ann: Person, text: str
):
    cookie = sessions.begin(ann, NOW)
    (state / "admin.json").write_text(text)
    again = Sessions(state, People(state))
    assert again.visitor(cookie, NOW) is None
    assert again.visitor(again.begin(ann, NOW), NOW) is not None
