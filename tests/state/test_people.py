import json
from pathlib import Path

import pytest

from obstacles import audit_on_a_full_disk
from urlward.engine.errors import UrlwardError
from urlward.state.audit import read_audit, verify
from urlward.state.folder import StateError
from urlward.state.people import (
    ADMIN,
    FILE,
    MOST,
    People,
    Person,
    add_person,
    admit,
    change_role,
    digest_of,
    may,
    person_row,
    read_people,
    remove_person,
)

NOW = 1_795_600_000.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def add(state: Path, name: str, role: str = "operator", days: int | None = None) -> tuple[Person, str]:
    return add_person(state, name, role, "root", now=NOW, days=days)


def remove(state: Path, name: str, token_file: str = "admin.token") -> Person:
    return remove_person(state, name, "root", now=NOW, token_file=state / token_file)


def actions(state: Path) -> list[tuple[str, str, str]]:
    return [(line["action"], line["name"], line["role"]) for line in read_audit(state) if line is not None]


def test_a_token_is_told_once_and_its_digest_is_kept(state: Path):
    person, token = add(state, "Ann")
    assert len(token) >= 43
    assert (state / FILE).stat().st_mode & 0o777 == 0o600
    kept = b"".join(path.read_bytes() for path in state.iterdir() if path.is_file())
    assert token.encode() not in kept
    assert json.loads((state / FILE).read_text())["people"][0]["digest"] == digest_of(token)
    assert person.digest == digest_of(token)
    assert person.digest not in repr(person)
    assert People(state).by_token(token, NOW) == person
    for wrong in (token[:-1], token + "x", "", "\udcff", person.digest):
        assert People(state).by_token(wrong, NOW) is None


def test_each_has_a_token_and_another_process_sees_who_goes(state: Path):
    people = People(state)
    assert people.by_token("x", NOW) is None
    _, first = add(state, "Ann")
    _, second = add(state, "Bob", "viewer")
    found = [people.by_token(token, NOW) for token in (first, second)]
    assert [(one.name, one.role) for one in found if one] == [("Ann", "operator"), ("Bob", "viewer")]
    change_role(state, "Bob", "operator", "root", now=NOW)
    changed = people.by_token(second, NOW)
    assert changed is not None
    assert changed.role == "operator"
    assert found[1] is not None
    assert people.by_grant(found[1].grant, NOW) is None
    remove(state, "Ann")
    assert people.by_token(first, NOW) is None
    assert actions(state) == [
        ("person-added", "Ann", "operator"),
        ("person-added", "Bob", "viewer"),
        ("person-role", "Bob", "operator"),
        ("person-removed", "Ann", "operator"),
    ]
    assert verify(state).holds


def test_a_viewer_may_less(state: Path):
    assert may("operator", "viewer")
    assert may("viewer", "viewer")
    assert not may("viewer", "operator")


@pytest.mark.parametrize(
    "name",
    ["", " ", "x" * 65, "a\u202eb", "a  b", "_a", "a\nb", "a (dashboard)", "-a", "<b>", "a/b", "a\0b", "a;b"],
)
def test_names_that_are_none(state: Path, name: str):
    with pytest.raises(UrlwardError, match=r"^name: "):
        add(state, name)


@pytest.mark.parametrize(
    "name", ["Ann", "José Ñandú", "o'brien", "a.b@noc.example", "night-shift 2", "x" * 64]
)
def test_names(state: Path, name: str):
    assert add(state, f" {name} ")[0].name == name


@pytest.mark.parametrize("name", ["ANN", "ann", "\uff21nn", "admin", "ADMIN"])
def test_no_two_have_names_that_look_alike(state: Path, name: str):
    add(state, "Ann")
    with pytest.raises(UrlwardError, match="is there already"):
        add(state, name)


@pytest.mark.parametrize("days", [0, -1, 3_651])
def test_days_that_are_none(state: Path, days: int):
    with pytest.raises(UrlwardError, match=r"^days: "):
        add(state, "Ann", days=days)


def test_days_end(state: Path):
    person, token = add(state, "Ann", days=2)
    people, end = People(state), NOW + 2 * 86_400
    assert people.by_token(token, end - 1) == person
    assert people.by_token(token, end) is None
    assert people.by_grant(person.grant, end) is None
    assert person_row(person, end) == {
        "name": "Ann",
        "role": "operator",
        "created": "2026-11-25T09:46:40Z",
        "until": "2026-11-27T09:46:40Z",
        "expired": True,
    }


def test_a_token_of_ones_own(state: Path):
    file = state.parent / "token"
    file.touch(0o600)
    file.write_text("0123456789abcdef0123\n")
    person, token = add_person(state, "prometheus", "viewer", "root", now=NOW, token=file)
    assert token == "0123456789abcdef0123"
    assert People(state).by_token(token, NOW) == person
    with pytest.raises(UrlwardError, match="is somebody else's"):
        add_person(state, "Ann", "operator", "root", now=NOW, token=file)
    file.write_text("short")
    with pytest.raises(UrlwardError, match="at least 20"):
        add_person(state, "Ann", "operator", "root", now=NOW, token=file)
    folder = state.parent / "folder"
    folder.mkdir(0o755)
    with pytest.raises(UrlwardError, match=r"not a regular file|Is a directory"):
        add_person(state, "Ann", "operator", "root", now=NOW, token=folder)


def test_what_cannot_be(state: Path):
    add(state, "Ann")
    for call in (
        lambda: add(state, "Bob", "root"),
        lambda: change_role(state, "Ann", "root", "root", now=NOW),
        lambda: remove(state, "Bob"),
        lambda: change_role(state, "Bob", "viewer", "root", now=NOW),
    ):
        with pytest.raises(UrlwardError):
            call()


def test_somebody_stays_an_operator(state: Path):
    add(state, "Ann")
    add(state, "Vic", "viewer")
    add(state, "Eva", days=1)
    remove(state, "Eva")
    late = NOW + 86_400
    with pytest.raises(UrlwardError, match="nobody else is an operator"):
        remove(state, "Ann")
    with pytest.raises(UrlwardError, match="nobody else is an operator"):
        change_role(state, "Ann", "viewer", "root", now=late)
    remove(state, "Vic")
    add(state, "Bob")
    assert remove(state, "Ann").name == "Ann"


def test_they_are_not_too_many(state: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("urlward.state.people.MOST", 2)
    add(state, "a")
    add(state, "b")
    with pytest.raises(UrlwardError, match="at most 2 people"):
        add(state, "c")
    assert MOST == 500


def test_the_first_gets_in_by_a_file(state: Path):
    file = state / "admin.token"
    admit(state, file, NOW)
    token = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    admin = People(state).by_token(token, NOW)
    assert admin is not None
    assert (admin.name, admin.role) == (ADMIN, "operator")
    admit(state, file, NOW)
    assert read_people(state) == [admin]
    file.unlink()  # the operator wants another one
    admit(state, file, NOW)
    assert People(state).by_token(token, NOW) is None
    assert People(state).by_grant(admin.grant, NOW) is None
    assert People(state).by_token(file.read_text().strip(), NOW) is not None
    assert [action for action, _, _ in actions(state)] == ["person-added", "person-token"]


def test_a_token_of_an_urlward_before_gets_in(state: Path):
    state.mkdir(0o700)
    file = state / "admin.token"
    file.touch(0o600)
    file.write_text("a-token-of-an-urlward-before\n")
    admit(state, file, NOW)
    found = People(state).by_token("a-token-of-an-urlward-before", NOW)
    assert found is not None
    assert found.role == "operator"


def test_no_file_is_made_where_somebody_else_is_an_operator(state: Path):
    file = state / "admin.token"
    add(state, "Vic", "viewer")
    add(state, "Ann", days=1)
    admit(state, file, NOW)
    assert not file.exists()
    admit(state, file, NOW + 86_400)
    assert file.exists()


def test_the_first_goes_with_the_file(state: Path):
    file = state / "admin.token"
    admit(state, file, NOW)
    with pytest.raises(UrlwardError, match="nobody else is an operator"):
        remove(state, ADMIN)
    add(state, "Ann")
    remove(state, ADMIN)
    assert not file.exists()
    admit(state, file, NOW)
    assert not file.exists()
    assert [one.name for one in read_people(state)] == ["Ann"]


def test_the_first_stays_where_the_file_does(state: Path):
    """Or the next start would let them in again, though the record has that they are gone."""
    token_file = state / "admin.token"
    admit(state, token_file, NOW)
    add(state, "Ann")
    token_file.unlink()
    token_file.mkdir()
    with pytest.raises(StateError, match=r"admin\.token"):
        remove(state, "admin")
    assert [one.name for one in read_people(state)] == ["admin", "Ann"]
    token_file.rmdir()
    remove(state, "admin")
    assert [one.name for one in read_people(state)] == ["Ann"]


def test_a_file_of_the_configuration_keeps_the_first(state: Path, tmp_path: Path):
    file = tmp_path / "token"
    admit(state, file, NOW)
    add(state, "Ann")
    with pytest.raises(UrlwardError, match=r"admin\.token_file"):
        remove(state, ADMIN, str(file))
    change_role(state, ADMIN, "viewer", "root", now=NOW)
    admit(state, file, NOW)
    found = People(state).by_token(file.read_text().strip(), NOW)
    assert found is not None
    assert found.role == "viewer"


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"version": 1, "people": [{"name": "Ann"}]}'])
def test_a_damaged_file_lets_nobody_in_but_by_the_first_token(
    state: Path, text: bytes, caplog: pytest.LogCaptureFixture
):
    file = state / "admin.token"
    admit(state, file, NOW)
    _, token = add(state, "Ann")
    people = People(state)
    assert people.by_token(token, NOW) is not None
    (state / FILE).write_bytes(text)
    assert people.by_token(token, NOW) is None
    assert "urlward admin add" in caplog.text
    assert token not in caplog.text
    admit(state, file, NOW)
    assert people.by_token(file.read_text().strip(), NOW) is not None
    assert people.by_token(token, NOW) is None


def test_a_role_that_was_written_into_the_file_is_none(state: Path):
    _, token = add(state, "Vic", "viewer")
    text = (state / FILE).read_text()
    (state / FILE).write_text(text.replace('"viewer"', '"operator"'))
    assert People(state).by_token(token, NOW) is None


def test_what_the_record_cannot_have_is_not_done(state: Path):
    add(state, "Ann")
    _, token = add(state, "Vic", "viewer")
    with audit_on_a_full_disk():
        for call in (
            lambda: add(state, "Bob"),
            lambda: remove(state, "Vic"),
            lambda: change_role(state, "Vic", "operator", "root", now=NOW),
        ):
            with pytest.raises(StateError):
                call()
    assert [one.name for one in read_people(state)] == ["Ann", "Vic"]
    found = People(state).by_token(token, NOW)
    assert found is not None
    assert found.role == "viewer"
