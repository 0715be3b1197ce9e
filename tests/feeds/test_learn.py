"""URLs of known files: what a worker hands on, and what becomes of it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from rows import each_row
from urlward.config import Config
from urlward.engine.errors import UrlwardError
from urlward.feeds import learn
from urlward.feeds.learn import (
    A_DAY,
    AGAIN,
    FOLDER,
    OF_HOST,
    TOGETHER,
    Learner,
    Learning,
    Match,
    draft_of,
    leads_to,
)
from urlward.feeds.setup import make_keeper
from urlward.policy import own
from urlward.policy.own import LEARNED, add_own, draft, line_of, own_entries
from urlward.samples import PROTECTED
from urlward.state.folder import DAMAGED, StateError, local_key

pytestmark = pytest.mark.usefixtures("compiles_here")

NOW = 1_800_000_000.0
MATCH = Match("listed.example/secret-page?x=1", "hotline", "H-7", "csam", "7Q4M-2XKD-93FH")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


class Worker(Learner):
    """A worker, and what it could not hand on."""

    def __init__(self, state: Path) -> None:
        self.refused = 0
        self.now = NOW
        super().__init__(state, local_key(state), self._count, clock=lambda: self.now)

    def _count(self) -> None:
        self.refused += 1


@pytest.fixture
def worker(state: Path) -> Iterator[Worker]:
    made = Worker(state)
    yield made
    made.close()


class Service(Learning):
    def __init__(self, state: Path) -> None:
        self.alarms: list[tuple[str, str]] = []
        config = Config(state=str(state))
        super().__init__(config, state, local_key(state), 7, lambda *one: self.alarms.append(one))


def requests(state: Path) -> list[Path]:
    return sorted((state / FOLDER).iterdir())


def verdict(state: Path, url: str) -> tuple[str, str]:
    (state.parent / "list.txt").write_text("other.example\n")
    keeper = make_keeper([state.parent / "list.txt"], Config(state=str(state)))
    keeper.load()
    found = keeper.matcher.check_url(url.encode(), time.time())
    return found.action, found.list


def test_a_match_becomes_an_entry_that_is_in_force(worker: Worker, state: Path) -> None:
    worker.learn(MATCH)
    worker.close()
    service = Service(state)
    service.look()
    (entry,) = own_entries(state)
    assert (entry.who, entry.action, entry.kind, entry.category) == (LEARNED, "block", "params", "csam")
    assert entry.note == "list hotline, entry H-7, reference 7Q4M-2XKD-93FH"
    assert entry.expires == time.strftime("%Y-%m-%d", time.gmtime(entry.created + 7 * 86_400))
    assert line_of(entry, local_key(state)).startswith("http://listed.example/secret-page?x=1 id=")
    assert verdict(state, "https://listed.example/secret-page?x=1") == ("block", "own-entries")
    assert verdict(state, "http://listed.example/another")[0] == "pass"
    assert requests(state) == []
    assert service.alarms == []


def test_nothing_on_the_way_names_it(worker: Worker, state: Path) -> None:
    worker.learn(MATCH)
    worker.close()
    (request,) = requests(state)
    assert request.stat().st_mode & 0o777 == 0o600
    Service(state).look()
    for path in [request, *state.rglob("*")]:
        if path.is_file():
            assert b"listed.example" not in path.read_bytes()
            assert b"secret-page" not in path.read_bytes()


def test_the_same_url_is_one_request_and_one_entry(worker: Worker, state: Path) -> None:
    for _ in range(3):
        worker.learn(MATCH)
        worker.now += AGAIN
    worker.close()
    assert len(requests(state)) == 1
    service = Service(state)
    service.look()
    another = Worker(state)
    another.learn(MATCH)
    another.close()
    service.look()
    assert len(own_entries(state)) == 1
    assert requests(state) == []


def test_a_match_that_is_not_learned_keeps_no_other_of_its_url_from_it(worker: Worker, state: Path) -> None:
    """A client may name a host to a server of its own; what came over plain HTTP is for its port alone."""
    there = MATCH._replace(address="192.0.2.7", port=80)
    for match in (there._replace(address="192.0.2.8", port=0), there, there._replace(port=0)):
        worker.learn(match)
    worker.close()
    assert len(requests(state)) == 3
    service = Service(state)
    service.leads_to = lambda _, address: address == there.address
    service.look()
    assert len(own_entries(state)) == 2
    assert verdict(state, "https://listed.example/secret-page?x=1") == ("block", "own-entries")


def test_a_host_has_only_so_many_in_a_day(worker: Worker, state: Path) -> None:
    for n in range(OF_HOST + 5):
        worker.learn(MATCH._replace(url=f"listed.example/{n}"))
    worker.learn(MATCH._replace(url="other.example/1"))
    assert worker.refused == 5
    worker.now += 86_400
    worker.learn(MATCH._replace(url="listed.example/again"))
    worker.close()
    assert (worker.refused, len(requests(state))) == (5, OF_HOST + 2)


def test_what_many_ask_for_at_once_counts_once(worker: Worker, state: Path) -> None:
    """Until its entry is in force; a file that is met often leaves room for others of its host."""
    written: list[str] = []
    worker._write = lambda match, name: written.append(match.url)  # type: ignore[method-assign]
    for _ in range(3 * OF_HOST):
        worker.learn(MATCH)
        worker.now += AGAIN / OF_HOST
    for n in range(OF_HOST - 1):
        worker.learn(MATCH._replace(url=f"listed.example/{n}"))
    worker.close()
    assert (worker.refused, written.count(MATCH.url), len(written)) == (0, 3, OF_HOST + 2)


def test_a_worker_has_only_so_many_in_a_day(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "OF_WORKER", 2)
    for n in range(3):
        worker.learn(MATCH._replace(url=f"{n}.example/"))
    assert worker.refused == 1


def test_what_nobody_takes_does_not_fill_the_disk(
    worker: Worker, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "WAITING", 3)
    for n in range(3):
        worker.learn(MATCH._replace(url=f"listed.example/{n}"))
        worker._thread.submit(int).result()
    worker.learn(MATCH._replace(url="listed.example/more"))
    worker.close()
    assert (worker.refused, len(requests(state))) == (1, 3)


def test_more_than_are_learned_in_a_day_are_an_alarm(
    worker: Worker, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "A_DAY", 2)
    for n in range(4):
        worker.learn(MATCH._replace(url=f"{n}.example/"))
    worker.close()
    service = Service(state)
    service.look()
    assert len(own_entries(state)) == 2
    ((kind, text),) = service.alarms
    assert kind == "learned-full"
    assert text.startswith("known files are met under more than 2 URLs a day: no more are learned")
    assert requests(state) == []
    another = Worker(state)
    another.learn(MATCH._replace(url="5.example/"))
    another.close()
    service.look()
    assert len(service.alarms) == 1, "it is said once an hour"
    assert A_DAY > OF_HOST


@pytest.mark.parametrize("damage", [b"", b"noise" * 20, None], ids=["empty", "noise", "of another key"])
def test_what_is_no_request_is_set_aside_and_the_others_are_learned(
    damage: bytes | None, worker: Worker, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker.learn(MATCH)
    worker.learn(MATCH._replace(url="other.example/"))
    worker.close()
    first = requests(state)[0]
    first.write_bytes(local_key(state.parent / "other").seal(b"[]") if damage is None else damage)
    service = Service(state)
    service.look()
    assert len(own_entries(state)) == 1
    assert requests(state) == []
    assert [path.name.split(".")[0] for path in (state / DAMAGED).iterdir()] == [first.name.split(".")[0]]
    assert "its URL is not learned" in caplog.text


def test_what_is_sealed_and_no_match_is_set_aside(state: Path) -> None:
    (state / FOLDER).mkdir(parents=True)
    for n, row in enumerate((b"[1, 2]", b"{}", b'["a.example/", "", "", null, ""]', b"[", b'["\xff"]')):
        (state / FOLDER / f"{n}.sealed").write_bytes(local_key(state).seal(row))
    Service(state).look()
    assert requests(state) == own_entries(state) == []
    assert len(list((state / DAMAGED).iterdir())) == 5


@pytest.mark.parametrize(
    ("address", "learned"),
    [("192.0.2.7", True), ("2001:db8::7", True), ("192.0.2.8", False), ("", True)],
)
def test_a_host_that_does_not_lead_there_is_not_learned(
    address: str, learned: bool, worker: Worker, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Or a client could have anybody's page blocked, from a server of its own."""
    worker.learn(MATCH._replace(address=address))
    worker.learn(MATCH._replace(url="192.0.2.8/a", address="192.0.2.8"))
    worker.close()
    service = Service(state)
    addresses = {"listed.example": ("192.0.2.7", "2001:db8::7"), "192.0.2.8": ("192.0.2.8",)}
    service.leads_to = lambda host, asked: asked in addresses[host]
    service.look()
    assert len(own_entries(state)) == 1 + learned
    assert requests(state) == []
    assert ("known files: 1 not learned: the host is not where the" in caplog.text) is not learned
    assert "listed.example" not in caplog.text


def test_a_protected_host_is_not_learned(
    worker: Worker, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = next(line.split()[0] for line in PROTECTED.read_text().splitlines() if line[:1].isalpha())
    worker.learn(MATCH._replace(url=f"{host}/a"))
    worker.learn(MATCH)
    worker.close()
    Service(state).look()
    assert len(own_entries(state)) == 1
    assert "known files: 1 not learned: the host is protected" in caplog.text
    assert host not in caplog.text


@each_row(
    ("host", "address", "leads"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "192.0.2.7", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("[2001:db8::7]", "2001:db8:0::7", True),
        ("nobody.invalid", "192.0.2.7", False),
        ("a..b", "192.0.2.7", False),
        ("localhost", "no address", False),
        ("127.0.0.1", "no address", False),
    ],
)
def test_where_a_name_leads(host: str, address: str, leads: bool) -> None:
    assert leads_to(host, address) is leads


def test_many_are_taken_in_turns(worker: Worker, state: Path) -> None:
    for n in range(TOGETHER + 1):
        worker.learn(MATCH._replace(url=f"{n}.example/"))
    worker.close()
    service = Service(state)
    service.look()
    assert (len(own_entries(state)), len(requests(state))) == (TOGETHER, 1)
    service.look()
    assert (len(own_entries(state)), len(requests(state))) == (TOGETHER + 1, 0)


@each_row(
    ("url", "folder", "line"),
    [
        ("listed.example/", False, "http://listed.example/"),
        ("listed.example/a/b.jpg", False, "http://listed.example/a/b.jpg"),
        ("listed.example/a/b.ts?n=1", True, "http://listed.example/a/*"),
        ("listed.example/b.ts?x=/", True, "http://listed.example/b.ts?x=/"),
        ("listed.example/a*b/c.ts", True, "http://listed.example/a%2Ab/*"),
        ("192.0.2.7/a.jpg", False, "http://192.0.2.7/a.jpg"),
        ("[2001:db8::7]/a.jpg", False, "http://[2001:db8::7]/a.jpg"),
    ],
)
def test_what_is_learned_of_a_url(url: str, folder: bool, line: str) -> None:
    for port, attribute in ((0, ""), (80, " port=80"), (8080, " port=8080")):
        made = draft_of(MATCH._replace(url=url, folder=folder, port=port), 1, NOW)
        assert made.entry == draft(line + attribute).entry
        assert made.expires == "2027-01-16"


@each_row(
    "changes",
    [
        {"entry": "http://listed.example/"}, {"list": "listed.example"}, {"category": "a b"},
        {"entry": "x" * 600}, {"entry": "two\nlines"},
    ],
)  # fmt: skip
def test_a_publishers_words_keep_nothing_from_being_learned(changes: dict[str, Any]) -> None:
    made = draft_of(MATCH._replace(**changes), 1, NOW)
    assert (made.note, made.category) == ("reference 7Q4M-2XKD-93FH", "")


def test_a_url_that_cannot_be_an_entry_is_said_without_it(
    worker: Worker, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker.learn(MATCH._replace(url="secret..example:x/"))
    worker.close()
    service = Service(state)
    service.look()
    assert own_entries(state) == requests(state) == []
    assert "known files: a URL is not learned: not a URL or host" in caplog.text
    assert "secret" not in caplog.text


def test_a_disk_that_takes_nothing_is_one_line(
    worker: Worker, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, *_: object) -> None:
        raise StateError(f"{path.parent}: No space left on device")

    monkeypatch.setattr(learn, "write_private", full)
    worker.learn(MATCH)
    worker.close()
    assert caplog.messages == [
        f"known files: a URL is not learned: {state / FOLDER}: No space left on device"
    ]


def test_what_is_not_in_force_yet_is_tried_again(
    worker: Worker, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(state)
    own_feed = learn.own_feed

    class Failing:
        def __init__(self, *_: object) -> None:
            pass

        def refresh(self) -> Any:
            return type("Outcome", (), {"state": "failed", "text": "no process for it"})

    monkeypatch.setattr(learn, "own_feed", Failing)
    worker.learn(MATCH)
    worker.close()
    with pytest.raises(UrlwardError, match="no process for it; what was learned is not in force yet"):
        service.look()
    assert verdict(state, f"http://{MATCH.url}")[0] == "pass"
    monkeypatch.setattr(learn, "own_feed", own_feed)
    service.look()
    assert verdict(state, f"http://{MATCH.url}") == ("block", "own-entries")


def test_what_is_over_is_removed_though_nothing_is_met(
    worker: Worker, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.learn(MATCH)
    worker.close()
    service = Service(state)
    service.look()
    service.clock = lambda: time.time() + 9 * 86_400
    service.look()
    assert len(own_entries(state)) == 1, "it is looked for now and then"
    monkeypatch.setattr(learn, "CLEAN", 0.0)
    service.look()
    assert own_entries(state) == []
    assert verdict(state, f"http://{MATCH.url}")[0] == "pass"


def test_what_was_learned_goes_when_it_is_over_though_nothing_is_learned_any_more(
    worker: Worker, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.learn(MATCH)
    worker.close()
    Service(state).look()
    (learned,) = own_entries(state)
    monkeypatch.setattr(learn, "TOGETHER", 1)
    for n in range(3):
        worker.now += 1
        Learner(state, local_key(state)).learn(MATCH._replace(url=f"listed.example/{n}"))
    wait_for(lambda: len(requests(state)) == 3, "what workers have handed on before")
    mine = add_own(
        state, local_key(state), draft("http://other.example/", expires="2026-01-01"), "ann", now=0.0
    )
    service = Service(state)
    service.days = 0
    service.look()
    assert own_entries(state) == [learned, mine], "it is in force until then"
    assert requests(state) == []
    after = Service(state)
    after.days = 0
    after.clock = lambda: time.time() + 9 * 86_400
    after.look()
    assert own_entries(state) == [mine]
    assert verdict(state, f"http://{MATCH.url}")[0] == "pass"


def test_what_is_learned_leaves_room_for_what_operators_add(
    worker: Worker, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "MOST", 4)
    monkeypatch.setattr(own, "MOST_LEARNED", 2)
    for n in range(9):
        worker.learn(MATCH._replace(url=f"listed.example/{n}"))
    worker.close()
    service = Service(state)
    service.look()
    assert [one.who for one in own_entries(state)] == [LEARNED] * 2
    assert [alarm for alarm, _ in service.alarms] == ["learned-full"]
    for n in range(2):
        add_own(state, local_key(state), draft(f"http://other.example/{n}"), "ann", now=time.time())


def test_an_operators_entry_stays(worker: Worker, state: Path) -> None:
    key = local_key(state)
    mine = add_own(state, key, draft(f"http://{MATCH.url}"), "ann", now=time.time())
    worker.learn(MATCH)
    worker.close()
    Service(state).look()
    assert own_entries(state) == [mine]
    assert requests(state) == []
