"""State folders as each format of their files was first written: each file is read, or refused with a line.

Databases of earlier versions are in ``records/test_migrations.py``, artifacts in ``engine/test_artifact.py``.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from docs.documents import ROOT
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.feeds.store import FeedStore
from urlward.objections.objections import message_of, read_objections
from urlward.policy.allows import add_allow, compile_allows, current_allows
from urlward.records.holds import held_references, hold
from urlward.records.store import node_of
from urlward.state.audit import mend_audit, verify
from urlward.state.folder import DAMAGED, local_key

SAMPLES = sorted((ROOT / "tests/data/state").iterdir())
WRITTEN = 1_796_000_000.0
"""When what is in the samples was allowed, held and objected to."""
REFERENCE = "3K8X-CVNT-S9KS"


@pytest.fixture(params=SAMPLES, ids=lambda path: path.name)
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A state folder as it was then."""
    made = tmp_path / "state"
    shutil.copytree(request.param, made)
    made.chmod(0o700)
    for path in made.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return made


def test_there_is_a_sample_of_each() -> None:
    assert [path.name for path in SAMPLES] == ["version1", "version2", "version3"]


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


@pytest.mark.parametrize("name", ["allows", "holds", "objections"])
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
