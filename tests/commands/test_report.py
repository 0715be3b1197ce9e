"""``urlward report file``: what is exported, for whom it is, and what the audit log has of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from assignments.support import at, sighting, taken
from conftest import run_command
from obstacles import audit_on_a_full_disk
from urlward.assignments.interval import SightingKind
from urlward.assignments.store import AssignmentStore
from urlward.commands.who import add_report_commands
from urlward.config.records import StoreTable
from urlward.engine.errors import UrlwardError
from urlward.lists.source import SourceError
from urlward.policy.own import draft, learn_own, own_entries
from urlward.records.event import make_event
from urlward.records.stores import open_store
from urlward.records.worker import KnownFile
from urlward.state.audit import read_audit, verify
from urlward.state.folder import StateError, local_key

R1, R2, R9 = (f"7Q4M-2XKD-93F{n}" for n in "129")
A = "198.51.100.7"
MS = at(50)
WHY = ("--why", "to the hotline")
CONFIG = (
    'state = "state"\n[records]\nnode = "gw1"\n[records.days]\n'
    "blocks = 30\noperations = 30\nassignments = 180\n"
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "urlward.toml").write_text(CONFIG)
    folder = tmp_path / "state"
    folder.mkdir()
    store = open_store(StoreTable(kind="sqlite"), folder)
    known = {
        "list": "hotline", "serial": 7, "entry": "H-7", "category": "csam", "verdict": "block", "node": "gw2",
        "digest": "ab" * 16, "protocol": "http", "destination": "192.0.2.66", "destination_port": 80,
        "stage": "body", "group": "pupils",
    }  # fmt: skip
    exact = KnownFile("sha256", "cut", "image/jpeg", 1_234_567).detail()
    alike = KnownFile("pdq", "learn", "video/mp4", 9, distance=12, frame=2.5).detail()
    store.write(
        [
            make_event(
                "file", MS * 1_000_000, bytes(8), reference=R1, client=A, client_port=40_213, detail=exact,
                **known,
            ),
            make_event(
                "file", (MS + 1) * 1_000_000, bytes(8), reference=R2, client="198.51.100.0/24", detail=alike,
                **known,
            ),
            make_event("block", MS * 1_000_000, b"\1" * 8, reference=R9, client=A),
        ]
    )  # fmt: skip
    store.close()
    assignments = AssignmentStore(folder / "assignments.db")
    taken(assignments, sighting(A, 0, 100, "anna", SightingKind.WHOLE))
    assignments.close()
    return folder


def report(state: Path, *arguments: str) -> int:
    config = str(state.parent / "urlward.toml")
    output = str(state.parent / "out")
    return run_command(add_report_commands, "report", "file", *arguments, "-o", output, "--config", config)


def audited(state: Path) -> list[dict[str, Any]]:
    return [line for line in read_audit(state) if line]


def written(state: Path) -> tuple[dict[str, Any], str]:
    folder = state.parent / "out"
    return json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()


def test_what_was_met_without_the_client(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(state, "7q4m 2xkd 93f1", *WHY) == 0
    folder = state.parent / "out"
    assert capsys.readouterr().out == (
        f"{folder}/report.html: what is known of it; report.json beside it is for programs\n"
    )
    data, page = written(state)
    found = data["data"]
    assert found["reference"] == R1
    assert found["prepared"].pop("time").startswith("20")
    prepared = found["prepared"]
    assert prepared.pop("who")
    assert prepared == {"why": "to the hotline", "node": "gw2", "order": None}
    (event,) = found["events"]
    assert (event["list"], event["serial"], event["entry"], event["digest"]) == (
        "hotline",
        7,
        "H-7",
        "ab" * 16,
    )
    assert event["destination"] == "192.0.2.66"
    assert event["detail"] == {
        "algorithm": "sha256", "action": "cut", "media": "image/jpeg", "size": 1_234_567,
    }  # fmt: skip
    assert found["assignments"] == found["learned"] == []
    for text in (json.dumps(data), page):
        assert not any(personal in text for personal in (A, "40213", "pupils", "anna"))
    assert "1234567" in page, "figures are as they were recorded"
    assert "byte for byte" in page
    assert "did not arrive whole" in page
    assert "Its URL was not learned by this event" in page
    assert "no plots" not in page
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600, 0o600]
    (line,) = audited(state)
    assert (line["action"], line["reference"], line["why"], line["answer"]) == (
        "file-report", R1, "to the hotline", "one",
    )  # fmt: skip
    assert "order" not in line
    assert verify(state).holds


def test_a_picture_is_said_to_be_like_another(state: Path) -> None:
    assert report(state, R2, *WHY) == 0
    data, page = written(state)
    assert data["data"]["events"][0]["detail"]["distance"] == 12
    assert "like the listed one" in page
    assert "byte for byte" not in page


def test_who_had_the_address_on_an_order_alone(state: Path) -> None:
    assert report(state, R1, *WHY, "--order", "order 12/2026 of the court", "--tolerance", "5s") == 0
    data, page = written(state)
    (answer,) = data["data"]["assignments"]
    assert (answer["address"], answer["port"], answer["tolerance"]) == (A, 40_213, 5.0)
    assert (answer["answer"], answer["candidates"][0]["subscriber"]) == ("one", "anna")
    assert data["data"]["prepared"]["order"] == "order 12/2026 of the court"
    assert "anna" in page
    assert "Asked for by: order 12/2026 of the court." in page
    first, second = audited(state)
    assert (first["action"], first["order"]) == ("file-report", "order 12/2026 of the court")
    assert (second["action"], second["order"]) == ("who", "order 12/2026 of the court")
    assert second["candidates"][0]["subscriber"] == "anna"


def test_where_no_whole_address_is_kept_an_order_is_of_no_use(state: Path) -> None:
    with pytest.raises(UrlwardError, match="no whole address"):
        report(state, R2, *WHY, "--order", "order 12/2026")
    assert not (state.parent / "out").exists()
    assert [(line["action"], line["answer"]) for line in audited(state)] == [("file-report", "error")]


def test_what_was_learned_is_named_by_its_id(state: Path) -> None:
    key = local_key(state)
    drafts = [
        draft(f"http://listed.example/{n}", note=f"list hotline, reference {reference}", expires="2027-01-20")
        for n, reference in enumerate((R1, R2))
    ]
    learn_own(state, key, drafts, 9, now=1_800_000_000.0)
    assert report(state, R1, *WHY) == 0
    data, page = written(state)
    first, _ = own_entries(state)
    assert data["data"]["learned"] == [first.id]
    assert "did not arrive whole" in data["summary"]
    assert "Its URL was learned, and is blocked until 2027-01-20." in data["summary"]
    assert first.id in page
    assert "listed.example" not in page


@pytest.mark.parametrize("reference", [R9, "0000-0000-0000"], ids=["a block", "none"])
def test_what_is_no_known_file(reference: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(state, reference, *WHY) == 1
    assert capsys.readouterr() == ("", f"urlward: no known file has the reference {reference}\n")
    assert not (state.parent / "out").exists()
    assert audited(state)[0]["answer"] == "none"


def test_what_cannot_be_audited_is_not_exported(state: Path) -> None:
    with audit_on_a_full_disk(), pytest.raises(StateError):
        report(state, R1, *WHY)
    assert not (state.parent / "out").exists()


def test_nothing_of_others_is_written_over(state: Path) -> None:
    (state.parent / "out").mkdir()
    (state.parent / "out/report.html").write_text("mine")
    with pytest.raises(SourceError, match="there already"):
        report(state, R1, *WHY)
    assert audited(state) == []


def test_a_report_does_not_take_the_place_of_another(state: Path) -> None:
    assert report(state, R1, *WHY) == 0
    before = written(state)
    with pytest.raises(SourceError, match="perhaps another report: it is not overwritten"):
        report(state, R2, *WHY)
    assert written(state) == before
    assert len(audited(state)) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("R-1", *WHY), UrlwardError),
        ((R1, "--why", " "), UrlwardError),
        ((R1, "--why", "of http://listed.example/"), UrlwardError),
        ((R1, *WHY, "--order", " "), UrlwardError),
        ((R1, *WHY, "--tolerance", "long"), UrlwardError),
    ],
)
def test_what_makes_no_sense(state: Path, arguments: tuple[str, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        report(state, *arguments)
    assert audited(state) == []
