"""State folders as each format of their files was first written: each file is read, or refused with a line.

Databases of earlier versions are in ``records/test_migrations.py``, artifacts in ``engine/test_artifact.py``.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from docs.documents import ROOT
from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.feeds.store import FeedStore
from urlward.objections.objections import message_of, read_objections
from urlward.policy.allows import add_allow, compile_allows, current_allows
from urlward.policy.own import add_own, draft, line_of, own_entries, remove_own
from urlward.records.holds import held_references, hold
from urlward.records.store import node_of
from urlward.state.audit import mend_audit, verify
from urlward.state.folder import DAMAGED, local_key
from urlward.state.people import change_role, digest_of, read_people

SAMPLES = sorted((ROOT / "tests/data/state").iterdir())
WRITTEN = 1_796_000_000.0
"""When what is in the samples was allowed, held and objected to."""
REFERENCE = "3K8X-CVNT-S9KS"


@pytest.fixture(params=SAMPLES, ids=lambda path: path.name)
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A state folder as it was then."""
    return copied(request.param, tmp_path)


def copied(sample: Path, folder: Path) -> Path:
    made = folder / "state"
    shutil.copytree(sample, made)
    made.chmod(0o700)
    for path in made.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return made


def test_there_is_a_sample_of_each() -> None:
    assert [path.name for path in SAMPLES] == ["version1", "version2", "version3", "version4"]


def test_all_of_it_is_read(state: Path) -> None:
    key = local_key(state)
    (allow,) = current_allows(state, WRITTEN)
    assert (allow.why, allow.who, allow.until) == ("asked for by the school", "operator", WRITTEN + 86_400)
    assert compile_allows([allow], key, WRITTEN) is not None, "its entry opens"
    assert held_references(state, WRITTEN) == {REFERENCE: WRITTEN + 365 * 86_400}
    (objection,) = read_objections(state)
    assert (objection.reference, message_of(objection, key)) == (REFERENCE, "this page is mine")
    store = FeedStore(state, "hotline")
    assert store.in_force() is not None
    verdict = Matcher([load(store.path.read_bytes(), key)]).check_url("http://blocked.example/")
    assert (verdict.action, verdict.entry) == ("block", "B-1")
    assert store.facts().entries == 1
    assert node_of("gw1", state).identity
    assert not (state / DAMAGED).exists(), "nothing was set aside"


def test_own_entries_and_people_are_read(tmp_path: Path) -> None:
    """They came with version 4."""
    state = copied(SAMPLES[-1], tmp_path)
    key = local_key(state)
    page, excused = own_entries(state)
    assert (page.action, page.kind, page.category, page.note, page.who, page.created) == (
        "block", "page", "phishing", "asked for by the school", "operator", WRITTEN,
    )  # fmt: skip
    assert line_of(page, key) == f"http://own.example/page id={page.id} category=phishing"
    assert (excused.action, excused.kind, excused.expires) == ("allow", "domain", "2027-06-30")
    assert line_of(excused, key) == f"@@fine.example id={excused.id} expires=2027-06-30"
    with pytest.raises(UrlwardError, match=f"there already: {page.id}"):
        add_own(state, key, draft("http://own.example/page", "page"), "operator", now=WRITTEN + 1)
    add_own(state, key, draft("http://own.example/other", "page"), "operator", now=WRITTEN + 1)
    assert len(own_entries(state)) == 3
    (ann,) = read_people(state)
    assert (ann.name, ann.role, ann.digest) == (
        "Ann Reyes", "operator", digest_of("0123456789abcdefghij-token"),
    )  # fmt: skip
    assert change_role(state, "Ann Reyes", "operator", "operator", now=WRITTEN + 1).digest == ann.digest
    assert remove_own(state, page.id, "over", "operator", now=WRITTEN + 2).id == page.id
    assert verify(state).broken is None
    assert not (state / DAMAGED).exists()


def test_what_is_added_goes_with_what_was_there(state: Path) -> None:
    mend_audit(state, WRITTEN + 1)
    add_allow(
        state, local_key(state), "other.example", 60, "also", "operator", whole_host=True, now=WRITTEN + 1
    )
    assert len(current_allows(state, WRITTEN + 2)) == 2
    hold(state, "R0S2-KVX1-BSWR", int(WRITTEN) + 60, "case 8", "operator", now=WRITTEN + 1)
    assert len(held_references(state, WRITTEN + 2)) == 2
    report = verify(state)
    assert report.broken is None
    assert report.unsigned == ""
    assert report.lines >= 4
    assert not (state / DAMAGED).exists()


@each_row("name", ["allows", "holds", "objections"])
def test_a_file_of_a_later_version_is_refused_and_stays(state: Path, name: str) -> None:
    path = state / f"{name}.json"
    data = json.loads(path.read_text())
    data.pop("sum", None)
    path.write_text(json.dumps(data | {"version": 2}))
    read = {
        "allows": lambda: current_allows(state, WRITTEN),
        "holds": lambda: held_references(state, WRITTEN),
        "objections": lambda: read_objections(state),
    }[name]
    with pytest.raises(Exception, match=re.escape(f"{path}: of another version of urlward")):
        read()
    assert json.loads(path.read_text())["version"] == 2
