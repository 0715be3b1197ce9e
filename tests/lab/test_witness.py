import json
from pathlib import Path

import pytest

from urlward.lab.clients import Got
from urlward.lab.filter import FilterLog
from urlward.lab.outcome import JudgedAttempt, Result, Witness, machine_of
from urlward.lab.services import AUTHORITY

OWN, GATEWAY = "192.0.2.10", "198.51.100.129"
BLOCK = (
    "2026-11-25T09:23:16.337Z block client=[2001:db8:1::10]:60214 list=l entry=E-1 category=c "
    "reference=CD87-Y4NF-JYMT"
)


class Case:
    def __init__(self, folder: Path) -> None:
        self.origin, self.log = folder / "origin.log", folder / "urlward.log"
        self.origin.touch()
        self.log.touch()
        self.witness = Witness(self.origin, FilterLog(self.log))

    def serve(self, tag: str, client: str, uri: str = "/", status: int = 200) -> None:
        line = {"tag": tag, "host": "h", "uri": uri, "status": status, "from": client, "protocol": "HTTP/1.1"}
        with self.origin.open("a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_hit_is_found_in_the_log_of_whichever_filter(tmp_path: Path) -> None:
    origin, quiet, other = (tmp_path / name for name in ("origin.log", "node1.log", "node2.log"))
    origin.touch()
    quiet.touch()
    other.write_text(f"{BLOCK}\n")
    witness = Witness(origin, FilterLog(quiet), FilterLog(other))
    seen = witness.look("t/1", Got(451, "<p>CD87-Y4NF-JYMT</p>"), secure=False, status=451)
    assert (seen.blocked, seen.entry) == (True, "E-1")


def test_a_page_s_reference_counts_and_not_the_port_which_had_a_hit_at_another_node(tmp_path: Path) -> None:
    origin, node, other = (tmp_path / name for name in ("origin.log", "node1.log", "node2.log"))
    origin.touch()
    node.write_text(f"{BLOCK}\n")
    other.write_text(BLOCK.replace("E-1", "E-2").replace("CD87-Y4NF", "4NFY-87CD") + "\n")
    witness = Witness(origin, FilterLog(node), FilterLog(other))
    got = Got(451, "<p>CD87-Y4NF-JYMT</p>", local="2001:db8:1::10:60214")
    assert witness.look("t/1", got, secure=False, status=451).entry == "E-1"


def test_a_node_of_a_fleet_is_the_gateway_for_origins(case: Case) -> None:
    case.serve("t/1", "198.51.100.205")
    assert case.witness.look("t/1", Got(200, "page"), secure=False, status=451).stage == 3


@pytest.mark.parametrize(
    ("client", "secure", "issuer", "stage"),
    [
        (OWN, False, "", 1),
        (OWN, True, AUTHORITY, 1),
        (GATEWAY, False, "", 3),
        (GATEWAY, True, AUTHORITY, 2),
        (GATEWAY, True, "mitmproxy", 3),
        (GATEWAY, True, "", None),
    ],
)
def test_who_asks_the_origin_tells_the_stage(
    case: Case, client: str, secure: bool, issuer: str, stage: int | None
) -> None:
    case.serve("t/1", client)
    seen = case.witness.look("t/1", Got(200, "page", issuer), secure, 451)
    assert (seen.served, seen.stage, seen.blocked) == (1, stage, False)


def test_a_block_page_is_known_by_its_reference(case: Case) -> None:
    case.log.write_text(BLOCK + "\n")
    seen = case.witness.look("t/1", Got(451, "Reference: CD87-Y4NF-JYMT"), False, 451)
    assert (seen.blocked, seen.stage, seen.entry, seen.category) == (True, 3, "E-1", "c")


def test_what_ends_without_a_page_is_known_by_its_port(case: Case) -> None:
    case.log.write_text(BLOCK + "\n")
    got = Got(local="2001:db8:1::10:60214", error="tls alert")
    seen = case.witness.look("t/1", got, True, 451)
    assert (seen.blocked, seen.stage, seen.entry) == (False, 2, "E-1")
    other = case.witness.look("t/2", Got(local="2001:db8:1::10:60215", error="reset"), True, 451)
    assert (other.stage, other.entry) == (1, "")


def test_half_lines_are_waited_for(case: Case) -> None:
    case.origin.write_text('{"tag":"t/1","host":"h","uri":"/","status":200,')
    assert case.witness.lines("t/1") == []
    with case.origin.open("a") as file:
        file.write('"from":"192.0.2.10","protocol":"HTTP/2.0"}\nnot json\n')
    assert [line.protocol for line in case.witness.lines("t/1")] == ["HTTP/2.0"]


def test_errors_and_icons_are_not_pages(case: Case) -> None:
    case.serve("t/1", OWN, status=404)
    case.serve("t/1", OWN, uri="/favicon.ico")
    assert case.witness.look("t/1", Got(404), False, 451).served == 0
    case.serve("t/1", OWN, status=499)
    assert case.witness.look("t/1", Got(404), False, 451).served == 1


def test_the_origin_has_the_last_word(case: Case) -> None:
    caught = JudgedAttempt("1", "x", "c", "block", Result.CAUGHT, "block page")
    assert case.witness.look_again("t/1", caught) == caught
    case.serve("t/1", GATEWAY)
    assert case.witness.look_again("t/1", caught).result is Result.MISSED
    passed = JudgedAttempt("1", "x", "c", "pass", Result.PASSED, "served")
    assert case.witness.look_again("t/1", passed) == passed


def test_sources_are_on_machines() -> None:
    assert machine_of("exempt") == "client"
    assert machine_of("neighbour") == "neighbour"
